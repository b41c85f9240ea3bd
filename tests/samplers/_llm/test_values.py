"""Values as text and back."""

from __future__ import annotations

import math
import sys
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from samplers._llm.values import choice_labels
from samplers._llm.values import fit_value
from samplers._llm.values import format_value
from samplers._llm.values import neighbours
from samplers._llm.values import pooled_sd
from samplers._llm.values import value_digits
from samplers._llm.values import ValueRefused


MIXED = CategoricalDistribution([None, True, 1, "1", 1.5, "None", "a,b"])
MOST = sys.float_info.max


@pytest.mark.parametrize(
    "value, distribution, text",
    [
        (0.0123456, FloatDistribution(1e-3, 1, log=True), "0.0123"),
        (1.23456e-5, FloatDistribution(1e-6, 1, log=True), "1.23e-5"),
        (0.30000000000000004, FloatDistribution(0, 1), "0.3"),
        (0.123456, FloatDistribution(0, 0.5), "0.123"),
        (1000.12345, FloatDistribution(1000, 1001), "1000.123"),
        (0.0, FloatDistribution(0, 1), "0"),
        (1e-9, FloatDistribution(0, 1), "0"),
        (-12.3456, FloatDistribution(-50, 50), "-12.3"),
        (123456.7, FloatDistribution(1, 1e6, log=True), "123000"),
        (0.75, FloatDistribution(0, 1, step=0.25), "0.75"),
        (524288, IntDistribution(65536, 2097152, log=True), "524288"),
        (2.0, IntDistribution(1, 3), "2"),
        (None, MIXED, "None (NoneType)"),
        ("1", MIXED, "1"),
        (1, MIXED, "1 (int)"),
    ],
)
def test_text_is_short_but_tells_values_apart(
    value: Any, distribution: BaseDistribution, text: str
) -> None:
    assert format_value(value, distribution) == text


def test_every_choice_has_a_label_of_its_own_that_leads_back_to_it() -> None:
    labels = choice_labels(MIXED)
    assert len(set(labels)) == len(labels)
    for choice, label in zip(MIXED.choices, labels):
        back, repair = fit_value(label, MIXED)
        assert type(back) is type(choice) and back == choice and not repair


@pytest.mark.parametrize(
    "raw, distribution, value, repair",
    [
        ("1e-3", FloatDistribution(0, 1), 0.001, ""),
        (1, FloatDistribution(0, 2), 1.0, ""),
        (0.123456789012345, FloatDistribution(0, 1), 0.123456789012345, ""),
        (3, FloatDistribution(0, 2), 2.0, "3 is above 2.0, clipped"),
        (-0.5, FloatDistribution(0, 2), 0.0, "-0.5 is below 0.0, clipped"),
        (0.3, FloatDistribution(0, 1, step=0.25), 0.25, "0.3 rounded to 0.25"),
        (0.3, FloatDistribution(0, 1, step=0.1), 0.3, ""),
        (64.0, IntDistribution(1, 100), 64, ""),
        ("64", IntDistribution(1, 100), 64, ""),
        (3.7, IntDistribution(1, 100), 4, "3.7 rounded to 4"),
        (6, IntDistribution(1, 9, step=4), 5, "6 rounded to 5"),
        (10**400, IntDistribution(1, 10), 10, "above 10, clipped"),
        ("TRUE", CategoricalDistribution([True, False]), True, ""),
        (True, CategoricalDistribution([1, True]), True, ""),
        (None, CategoricalDistribution(["a", None]), None, ""),
        ("null", CategoricalDistribution(["a", None]), None, ""),
        (2, CategoricalDistribution([1.0, 2.0]), 2.0, ""),
    ],
)
def test_what_a_model_writes_becomes_a_value_of_the_distribution(
    raw: Any, distribution: BaseDistribution, value: Any, repair: str
) -> None:
    fitted, said = fit_value(raw, distribution)
    assert type(fitted) is type(value) and fitted == value
    assert repair in said and bool(repair) == bool(said)
    assert distribution._contains(distribution.to_internal_repr(fitted))


@pytest.mark.parametrize(
    "raw, distribution, message",
    [
        (math.nan, FloatDistribution(0, 1), "NaN is not a finite number"),
        ("1e999", FloatDistribution(0, 1), "not a finite number"),
        ("fast", FloatDistribution(0, 1), '"fast" is not a number'),
        (True, IntDistribution(0, 1), "true is not a number"),
        ([1], IntDistribution(0, 1), "is not a number"),
        (None, FloatDistribution(0, 1), "null is not a number"),
        ("d", CategoricalDistribution(["a", "b"]), '"d" is not one of a, b'),
        ({"a": 1}, CategoricalDistribution(["a", "b"]), "is not one of"),
    ],
)
def test_what_can_mean_no_value_is_refused(
    raw: Any, distribution: BaseDistribution, message: str
) -> None:
    with pytest.raises(ValueRefused, match=message):
        fit_value(raw, distribution)


@pytest.mark.parametrize(
    "value, distribution",
    [
        (0.04, FloatDistribution(0.005, 0.2, log=True)),
        (0.0, FloatDistribution(0, 0.3)),
        (8, IntDistribution(4, 24)),
        (1, IntDistribution(1, 3)),
        (524288, IntDistribution(65536, 2097152, log=True)),
        (0.5, FloatDistribution(0, 1, step=0.5)),
        ("b", CategoricalDistribution(["a", "b", "c"])),
    ],
)
def test_neighbours_are_other_values_inside(value: Any, distribution: BaseDistribution) -> None:
    near = neighbours(value, distribution)
    assert near and value not in near and len(set(near)) == len(near)
    for other in near:
        assert distribution._contains(distribution.to_internal_repr(other))
        assert fit_value(other, distribution) == (other, "")


def test_a_spread_is_pooled_whatever_the_scale() -> None:
    assert pooled_sd([]) == pooled_sd([[0.0, 0.0]]) == pooled_sd([[MOST, MOST]]) == 0
    for scale in (1.0, 1e-300, 1e300):
        groups = [[scale, 3 * scale], [5 * scale, 5 * scale]]
        assert pooled_sd(groups) == pytest.approx(scale)
    assert pooled_sd([[1.0, 1e300]]) == pytest.approx(1e300 / 2**0.5)
    assert pooled_sd([[MOST, -MOST]]) == MOST


def test_values_have_digits_whatever_the_scale() -> None:
    assert value_digits([-MOST, -MOST, MOST, MOST]) == 5
    assert value_digits([1.0, MOST], pooled_sd([[1.0, MOST]])) == 2
