"""A schema's regular expression, against Python's own ``re`` and ``json``."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from samplers._llm import openai_chat
from samplers._llm.reply import changes_schema
from samplers._llm.reply import params_schema
from samplers._llm.reply import with_reason_first
from samplers._llm.schema_regex import integer_regex
from samplers._llm.schema_regex import schema_regex
from samplers._llm.warm_start import configurations_schema
from samplers.llambo_paper.candidates import candidates_schema
from studies.code_agent.constant_choice import choice_schema

from .test_embedded import BASE
from .test_prompt import SPACE


def follows(value: Any, schema: dict[str, Any]) -> bool:
    return re.fullmatch(schema_regex(schema), json.dumps(value)) is not None


def test_integers_between_bounds() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        low, width = rng.randint(-3000, 3000), rng.choice([0, 1, 9, 90, rng.randint(0, 40_000)])
        regex = re.compile(integer_regex(low, low + width))
        for number in (low, low + width, low - 1, low + width + 1, rng.randint(-9000, 9000)):
            assert bool(regex.fullmatch(str(number))) == (low <= number <= low + width)
        assert not any(regex.fullmatch(text) for text in ("01", "-0", "", "-", "1.0"))


def test_all_integers_of_a_range() -> None:
    for low, high in ((4, 24), (0, 0), (16, 48), (512, 16384), (-12, 7), (99, 101), (100, 999)):
        regex = re.compile(integer_regex(low, high))
        found = [n for n in range(-20_000, 20_000) if regex.fullmatch(str(n))]
        assert found == list(range(low, high + 1))


def test_a_configuration() -> None:
    schema = params_schema(SPACE)
    assert follows(BASE, schema)
    assert not follows({**BASE, "DEPTH": 99}, schema)
    assert not follows({**BASE, "WINDOW_PATTERN": "none"}, schema)
    assert not follows({k: v for k, v in BASE.items() if k != "DEPTH"}, schema)
    regex = re.compile(schema_regex(schema))
    assert not regex.fullmatch(json.dumps(BASE, indent=1)), "no line breaks"
    assert regex.fullmatch(json.dumps(BASE, separators=(",", ":")))
    assert not regex.fullmatch(json.dumps({**BASE, "MATRIX_LR": 0.03}).replace("0.03", "0,03"))
    assert not regex.fullmatch(json.dumps({**BASE, "MATRIX_LR": 0.03}).replace("0.03", "00.03"))
    assert not regex.fullmatch(
        json.dumps({**BASE, "MATRIX_LR": 0.03}).replace("0.03", "0.0333333333")
    )


def test_changes_are_any_of_the_offered_values_in_their_order() -> None:
    schema = changes_schema(SPACE, BASE)
    offered = {name: value["enum"] for name, value in schema["properties"].items()}
    rng = random.Random(0)
    for _ in range(200):
        names = [name for name in offered if rng.random() < 0.3]
        changes = {name: rng.choice(offered[name]) for name in names}
        assert follows(changes, schema) == bool(changes)
    first, second = list(offered)[:2]
    turned = {second: offered[second][0], first: offered[first][0]}
    assert not follows(turned, schema)
    assert not follows({first: -1}, schema)


def test_a_reason_comes_first_and_is_not_all() -> None:
    values = {"DEPTH": 6, "MATRIX_LR": 0.03}
    changes = with_reason_first(changes_schema(SPACE), "reason")
    assert follows({"reason": "It's too deep.", **values}, changes)
    for reply in ({"reason": "It's too deep."}, values, {**values, "reason": "late"}):
        assert not follows(reply, changes)
    several = configurations_schema(SPACE, 2, "reason")
    assert follows({"configurations": [{"reason": "why", **BASE}] * 2}, several)
    assert not follows({"configurations": [BASE] * 2}, several)


def test_a_list_of_configurations() -> None:
    schema = candidates_schema(SPACE, 2)
    row = [BASE[name] for name in SPACE]
    assert follows({"candidates": [row, row]}, schema)
    assert not follows({"candidates": [row]}, schema)
    assert not follows({"candidates": [row, row[:-1]]}, schema)


def test_names_and_labels_with_signs_of_their_own() -> None:
    labels = ['a "b"', "c|d", "[e]", "f\\g", "é", "x.y*"]
    schema = {
        "type": "object",
        "properties": {"a.b (c)": {"type": "string", "enum": labels}},
        "required": ["a.b (c)"],
    }
    for label in labels:
        assert follows({"a.b (c)": label}, schema)
    assert not follows({"axb (c)": labels[0]}, schema)
    assert not follows({"a.b (c)": "xzy"}, schema)


def test_the_choice_of_a_constant() -> None:
    schema = choice_schema({"LR": [0.1, 0.25], "DEPTH": [3, 5]})
    reply = {"name": "LR", "value": 0.25, "reason": "It's [too] low; see trial 3."}
    assert follows(reply, schema)
    assert not follows({**reply, "name": "DEPTH"}, schema)
    assert not follows({**reply, "reason": "x" * 81}, schema)
    assert not follows({**reply, "reason": 'a "b"'}, schema), "escapes are not needed"


@pytest.mark.parametrize(
    "low, high, inside, outside",
    [
        (-5, 5, [-0.5, -0.05, 0.5, -5, 0, 4.9], [-6.1, 6.2]),
        (-0.5, 0.5, [-0.3, 0.3, 0], [-1.5, 1.5]),
        (-2.5, -0.5, [-0.7, -2.4, -1], [-3.9, 0.7]),
        (0.5, 12.5, [0.7, 12.25], [-0.7, 13.5]),
    ],
)
def test_a_number_between_bounds(
    low: float, high: float, inside: list[float], outside: list[float]
) -> None:
    schema = {"type": "number", "minimum": low, "maximum": high}
    assert all(follows(value, schema) for value in inside)
    assert not any(follows(value, schema) for value in outside)


@pytest.mark.parametrize("value", [0, -1.5, -0.31, 12345.25, 1e-05, 3])
def test_a_number_without_bounds(value: float) -> None:
    assert follows(value, {"type": "number"})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"enum": []},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object", "properties": {"a": {"$ref": "#/b"}}, "required": ["a"]},
        {
            "type": "object",
            "properties": {"a": {"enum": [1]}, "b": {"enum": [1]}},
            "required": ["b"],
        },
        {},
    ],
)
def test_what_it_does_not_know_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        schema_regex(schema)


def test_the_check_before_the_first_trial_has_a_schema_that_the_embedded_model_can_follow() -> (
    None
):
    """Else the check itself would teach that the server takes no schemas."""
    pattern = schema_regex(openai_chat._CHECK_SCHEMA)
    assert re.fullmatch(pattern, '{"ready": true}') and re.fullmatch(pattern, '{"ready": false}')
