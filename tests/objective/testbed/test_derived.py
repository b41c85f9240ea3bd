"""Formulas of the parameters, which run nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from objective import Testbed
from objective import TestbedError
from objective.testbed.derived import Derived


PARAMS = {"DEPTH": 5, "ASPECT_RATIO": 30, "HEAD_DIM": 64, "PATTERN": "S"}


def test_formulas_are_computed_of_what_is_run() -> None:
    tables = {"width": "ceil(DEPTH * ASPECT_RATIO / HEAD_DIM) * HEAD_DIM"}
    derived = Derived.of(tables, PARAMS, {"SEQ": 8})
    assert derived(PARAMS) == {"width": 192.0}
    assert derived({**PARAMS, "HEAD_DIM": 0}) == {}
    tables = {"a": "max(DEPTH, -SEQ) // 2 + 0.5", "b": "SEQ - log(1)"}
    assert Derived.of(tables, PARAMS, {"SEQ": 8})(PARAMS) == {"a": 2.5, "b": 8.0}


@pytest.mark.parametrize("given", [{"width": "DEPTH * ASPECT_RATIO"}, None])
def test_a_parameter_that_is_not_suggested_is_as_in_the_baseline(given: Any) -> None:
    derived = Derived.of(given, {**PARAMS, "DEPTH": 64}, {"DEPTH": 8})
    assert derived({"ASPECT_RATIO": 10}) == {"width": 640.0}


@pytest.mark.parametrize(
    "formula, told",
    [
        ("__import__('os').system('x')", "numbers and names"),
        ("DEPTH.real", "numbers and names"),
        ("DEPTH ** 9999999", "numbers and names"),
        ("PATTERN + 1", "numbers and names"),
        ("DEPTH +", "numbers and names"),
        ("(" * 10_000, "numbers and names"),
        (3, "numbers and names"),
        ("WIDTH * 2", "WIDTH is neither"),
    ],
)
def test_nothing_but_formulas_of_known_names_is_taken(formula: Any, told: str) -> None:
    with pytest.raises(TestbedError, match=told):
        Derived.of({"x": formula}, PARAMS, {})


def test_scripts_with_the_papers_names_have_the_usual_ones() -> None:
    testbed = Testbed.load()
    derived = testbed.derived(testbed.rule(testbed.baseline))
    assert derived["width"] == 96 and derived["accumulation_steps"] >= 1
    assert Derived.of(None, {"LR": 0.1}, {}).formulas == {}
