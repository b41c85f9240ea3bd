"""The rule of conditions between parameters."""

from __future__ import annotations

import json

from objective.testbed.rule import Rule


RULE = Rule(
    ("width",),
    constants={"momentum": 0.9, "nesterov": False, "width": 64},
    only_when={"momentum": {"opt": ("sgd",)}, "nesterov": {"momentum": (0.5, 0.9)}},
)


def test_a_parameter_whose_condition_fails_is_run_at_its_default() -> None:
    given = {"opt": "adam", "momentum": 0.3, "nesterov": True, "width": 48}
    assert RULE(given) == {"opt": "adam", "momentum": 0.9, "nesterov": True, "width": 32}
    assert RULE(given | {"opt": "sgd"}) == {**given, "opt": "sgd", "nesterov": False, "width": 32}
    assert RULE({"momentum": 0.3}) == {"momentum": 0.9}, "a condition on what isn't there fails"


def test_a_parameter_of_a_single_value_meets_a_condition_without_being_suggested() -> None:
    rule = Rule(
        constants={"opt": "sgd", "momentum": 0.9}, only_when={"momentum": {"opt": ("sgd",)}}
    )
    assert rule({"momentum": 0.3}) == {"momentum": 0.3}
    assert rule({"opt": "adam", "momentum": 0.3}) == {"opt": "adam", "momentum": 0.9}


def test_a_value_depends_on_others_as_they_are_run_whatever_the_order() -> None:
    chain = Rule(at_least={"a": ("b", "two"), "b": ("c",)}, constants={"two": 2, "c": 5})
    assert chain({"a": 1, "b": 1, "c": 3}) == {"a": 6, "b": 3, "c": 3}
    assert chain({"a": 1, "b": 1}) == {"a": 10, "b": 5}
    assert Rule.from_rows(chain.rows(), chain.constants)({"a": 1, "b": 1}) == {"a": 10, "b": 5}
    single = Rule(at_least={"a": ("b",), "b": ("c",)}, constants={"b": 1})
    assert single({"a": 1, "c": 4}) == {"a": 4, "c": 4}, "b has one value, and is raised, too"
    rule = Rule(
        ("width",), constants={"width": 16, "rate": 0.5}, only_when={"rate": {"width": (32,)}}
    )
    assert rule({"width": 40, "rate": 0.1}) == {"width": 32, "rate": 0.1}
    assert rule({"width": 50, "rate": 0.1}) == {"width": 64, "rate": 0.5}


def test_configurations_that_differ_only_in_what_does_not_count_are_one() -> None:
    one, other = ({"opt": "adam", "momentum": m, "nesterov": True} for m in (0.1, 0.7))
    assert RULE(one) == RULE(other)


def test_a_rule_survives_json() -> None:
    rows = json.loads(json.dumps(RULE.rows()))
    assert Rule.from_rows(rows, RULE.constants) == RULE
