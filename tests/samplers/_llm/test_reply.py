"""Replies to values, and what counts as the same configuration."""

from __future__ import annotations

import json
import random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from samplers._llm.reply import changes_schema
from samplers._llm.reply import configuration_key
from samplers._llm.reply import json_values
from samplers._llm.reply import known_configurations
from samplers._llm.reply import params_schema
from samplers._llm.reply import parse_params
from samplers._llm.reply import ReplyError
from samplers._llm.schema_chat import random_value
from samplers._trials.announced import announce
from tests.properties.bounds import bounded


SPACE: dict[str, BaseDistribution] = {
    "LR": FloatDistribution(1e-4, 1.0, log=True),
    "DECAY": FloatDistribution(0.0, 0.5),
    "DROP": FloatDistribution(0.0, 0.5, step=0.1),
    "DEPTH": IntDistribution(4, 24),
    "BATCH": IntDistribution(65536, 2097152, log=True),
    "WIDTH": IntDistribution(16, 64, step=16),
    "PATTERN": CategoricalDistribution(["SSSL", "LLLL"]),
    "NORM": CategoricalDistribution([None, True, 1.5, "None"]),
    "ONE": IntDistribution(3, 3),
}
BASE: dict[str, Any] = {
    "LR": 0.01,
    "DECAY": 0.1,
    "DROP": 0.2,
    "DEPTH": 8,
    "BATCH": 524288,
    "WIDTH": 32,
    "PATTERN": "SSSL",
    "NORM": None,
    "ONE": 3,
}


def assert_inside(params: dict[str, Any]) -> None:
    assert list(params) == list(SPACE)
    for name, distribution in SPACE.items():
        internal = distribution.to_internal_repr(params[name])
        assert distribution._contains(internal), name
        assert type(distribution.to_external_repr(internal)) is type(params[name]), name


@pytest.mark.parametrize(
    "schema", [params_schema(SPACE), changes_schema(SPACE), changes_schema(SPACE, BASE)]
)
def test_whatever_a_schema_allows_is_read_without_repair(schema: dict[str, Any]) -> None:
    json.dumps(schema, allow_nan=False)
    rng = random.Random(0)
    for _ in range(50):
        value = {n: v for n, v in random_value(schema, rng).items() if n not in ("DROP", "WIDTH")}
        parsed = parse_params(json.dumps(value or {"LR": 0.1}), SPACE, BASE)
        assert_inside(parsed.params)
        assert not parsed.repairs


def test_a_whole_configuration_is_required_and_changes_are_not() -> None:
    assert params_schema(SPACE)["required"] == list(SPACE)
    assert "required" not in changes_schema(SPACE)


@pytest.mark.parametrize("high", [2**63 - 1, 2**64 - 1])
def test_a_range_of_any_length_has_a_schema(high: int) -> None:
    schema = params_schema({"seed": IntDistribution(0, high)})
    assert schema["properties"]["seed"] == {"type": "integer", "minimum": 0, "maximum": high}


def test_a_menu_leaves_out_what_cannot_be_changed() -> None:
    menu = changes_schema(SPACE, BASE)["properties"]
    assert "ONE" not in menu
    assert menu["PATTERN"] == {"enum": ["LLLL"]}
    assert BASE["DEPTH"] not in menu["DEPTH"]["enum"]


@pytest.mark.parametrize(
    "text",
    [
        '{"LR": 0.5, "DEPTH": 12}',
        'Sure! Here you are:\n```json\n{"LR": 0.5, "DEPTH": 12}\n```\nGood luck {really}!',
        'I start from {"LR": 0.01} and end with {"LR": 0.5, "DEPTH": 12}.',
        '{"parameters": {"LR": 0.5, "DEPTH": 12}, "why": "deeper"}',
        '{"changes": [{"name": "LR", "value": 0.5}, {"name": "DEPTH", "value": 12}]}',
        '[{"LR": 0.5, "DEPTH": 12}]',
        "{'LR': 0.5, 'DEPTH': 12,}",
        '{"LR": 0.5, "DEPTH": 12, "BATCH": 5242',
        "LR = 0.5\nDEPTH: 12",
        "**LR**: 0.5, `DEPTH`: 12",
    ],
)
def test_values_are_found_however_they_are_wrapped(text: str) -> None:
    parsed = parse_params(text, SPACE, BASE)
    assert parsed.params == {**BASE, "LR": 0.5, "DEPTH": 12}
    assert parsed.named == {"LR", "DEPTH"}


@pytest.mark.parametrize(
    "number", ["BATCH = 524,288", "BATCH = 131072\nBATCH = 1,048,576", '{"LR": 0,01}']
)
def test_the_first_part_of_a_number_with_commas_is_not_taken_for_it(number: str) -> None:
    with pytest.raises(ReplyError, match="is not a number"):
        parse_params(number, SPACE, BASE)
    parsed = parse_params(f"{number.strip('}')}, DEPTH = 12\n", SPACE, BASE)
    assert parsed.params == {**BASE, "DEPTH": 12}


@pytest.mark.parametrize(
    "reply",
    [
        '{"reason": "deeper"}\n{"DEPTH": 12}',
        '{"reason": "deeper", "parameters": {"DEPTH": 12}}',
        '{"parameters": {"reason": "deeper", "DEPTH": 12}}',
        '[{"reason": "deeper"}, {"DEPTH": 12}]',
    ],
)
def test_a_reason_is_found_beside_the_values_too(reply: str) -> None:
    parsed = parse_params(reply, SPACE, BASE, "reason")
    assert parsed.reason == "deeper" and parsed.params == {**BASE, "DEPTH": 12}
    assert parsed.repairs == ()


@pytest.mark.parametrize(
    "reply, named",
    [
        (
            '{"reason": "Trial 7 with LR = 0.5, diverged, and BATCH = 512, ran out. So the other',
            {},
        ),
        ('{"reason": "LR = 0.5, diverged; change the depth alone"}', {}),
        ('{"reason": "LR = 0.5, diverged; change the depth alone", "DEPTH": 12.}', {"DEPTH": 12}),
        (r'{"reason": "Of the \"LR\", which is LR = 0.5, more", "DEPTH": 12.}', {"DEPTH": 12}),
        ('{"reason": "A "DROP": 0.5, was bad, {LR: 0.5}.", "DEPTH": 12.}', {"DEPTH": 12}),
        ("{'reason': 'LR = 0.5, so it isn't that, is it', 'DEPTH': 12,}", {"DEPTH": 12}),
        ('{"DEPTH": 12, "reason": "since LR = 0.5, and BATCH = 512, are', {"DEPTH": 12}),
        ("reason: LR = 0.5, diverged\nDEPTH = 12", {"DEPTH": 12}),
        ('reason: "LR = 0.5, diverged"\nDEPTH = 12', {"DEPTH": 12}),
        ('reason: "The "LR" is low" \n\n- **DEPTH**: 12\n', {"DEPTH": 12}),
        ('{"reason": "LR = 0.5, diverged" "DEPTH": 12, "OPT": "adam"}', {"DEPTH": 12}),
    ],
)
def test_what_the_reason_says_of_values_is_no_assignment(
    reply: str, named: dict[str, Any]
) -> None:
    if not named:
        with pytest.raises(ReplyError):
            parse_params(reply, SPACE, BASE, "reason")
    else:
        assert parse_params(reply, SPACE, BASE, "reason").params == {**BASE, **named}


def test_impossible_values_leave_the_base_and_say_so() -> None:
    reply = {
        "LR": "1e-3",
        "DECAY": float("nan"),
        "DEPTH": 99,
        "PATTERN": "XXXX",
        "NORM": True,
        "MOMENTUM": 0.9,
    }
    parsed = parse_params(json.dumps(reply), SPACE, BASE)
    assert_inside(parsed.params)
    assert parsed.params == {**BASE, "LR": 0.001, "DEPTH": 24, "NORM": True}
    assert parsed.named == {"LR", "DEPTH", "NORM"}
    assert parsed.repairs == (
        "DECAY: NaN is not a finite number",
        "DEPTH: 99 is above 24, clipped",
        'PATTERN: "XXXX" is not one of SSSL, LLLL',
        "not in the search space: MOMENTUM",
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must be a JSON object, but it has none"),
        ("I can't help with that.", "must be a JSON object"),
        ('{"lr": 1}', "keys, but none of lr is one"),
        ("{}", "none of its keys"),
        ('{"LR": "fast"}', 'usable value, but LR: "fast" is not a number'),
        ("[" * 100_000, "must be a JSON object"),
        ('{"OTHER": ' + "1" * 5000 + "}", "must be a JSON object"),
    ],
)
def test_a_reply_without_any_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReplyError, match=message):
        parse_params(text, SPACE, BASE)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":' * 400 + "1",
        '[1,{"a":[' * 300 + "1," * 50_000,
        "{" * 200_000,
        "'" * 200_000,
        '"LR"' * 50_000,
        "LR" + " " * 200_000,
        '{"LR": ' + "[" * 900 + "]" * 900 + "}",
        '{"a": ' * 200 + "1" + "}" * 200,
        '{"LR": ' + "9" * 5000 + "}",
        'reason: "' + '" x' * 100_000,
        ('reason: "' + "'" + " " * 500) * 400,
    ],
    ids=["lists", "objects", "cut", "long", "braces", "quotes", "names", "spaces", "deep", "levels", "digits", "reason", "reasons"],
)  # fmt: skip
def test_a_reply_that_takes_long_to_read_is_refused_soon(text: str) -> None:
    with bounded(), pytest.raises(ReplyError):
        parse_params(text, SPACE, BASE, "reason")


def test_halves_of_characters_are_replaced_and_whole_ones_are_not() -> None:
    text = r'{"LR": "\ud800x", "\ud83d\ude00": "\uDC00"}'
    [value] = json_values(text)
    assert value == {"LR": "\ufffdx", "\U0001f600": "\ufffd"}


def test_equal_after_rounding_is_the_same_configuration() -> None:
    key = configuration_key(BASE, SPACE)
    assert key == configuration_key({**BASE, "LR": 0.010004}, SPACE)
    assert key != configuration_key({**BASE, "LR": 0.0101}, SPACE)
    assert key != configuration_key({**BASE, "NORM": "None"}, SPACE)
    assert key != configuration_key({**BASE, "BATCH": 524289}, SPACE)


def test_equal_after_the_objectives_rule_is_the_same_configuration() -> None:
    def rule(params: Any) -> dict[str, Any]:
        return {"BATCH": 2 ** round(params["BATCH"]).bit_length()}

    changed = {**BASE, "BATCH": 600_000}
    assert configuration_key(BASE, SPACE, rule) == configuration_key(changed, SPACE, rule)


def test_a_text_that_was_enqueued_or_announced_for_a_number_is_no_configuration() -> None:
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    study = optuna.create_study()
    study.ask()
    announce(study, study.trials[0], {"x": "abc"})
    study.enqueue_trial({"x": "abc"})
    assert known_configurations(study, space) == {}


def test_a_configuration_that_was_interrupted_may_be_run_again() -> None:
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    study = optuna.create_study()
    for x, status in ((0.1, "interrupted"), (0.2, "crash")):
        trial = create_trial(state=TrialState.FAIL, params={"x": x}, distributions=space)
        trial.set_user_attr("status", status)
        study.add_trial(trial)
    assert list(known_configurations(study, space).values()) == [1]


def test_finished_running_queued_and_announced_configurations_are_known() -> None:
    space: dict[str, BaseDistribution] = {
        "x": FloatDistribution(0, 1),
        "k": IntDistribution(1, 9),
    }
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0, params={"x": 0.1, "k": 1}, distributions=space))
    # One that has a third parameter with a single value, and one whose third varies.
    for number, third in ((2, IntDistribution(5, 5)), (3, IntDistribution(5, 6))):
        params, distributions = {"x": 0.1, "k": number, "z": 5}, {**space, "z": third}
        study.add_trial(create_trial(value=1.0, params=params, distributions=distributions))
    suggested, announcing = study.ask(space), study.ask()
    announce(study, study.get_trials()[announcing.number], {"x": 0.4, "k": 4})
    study.enqueue_trial({"x": 0.5, "k": 5})
    myself = study.get_trials()[announcing.number]

    def key(params: dict[str, Any]) -> tuple[str, ...]:
        return configuration_key(params, space)

    known = known_configurations(study, space)
    assert known[key({"x": 0.1, "k": 1})] == 0
    assert known[key({"x": 0.1, "k": 2})] == 1
    assert key({"x": 0.1, "k": 3}) not in known
    assert known[key(suggested.params)] == suggested.number
    assert known[key({"x": 0.4, "k": 4})] == announcing.number
    assert known[key({"x": 0.5, "k": 5})] == 5
    others = known_configurations(study, space, besides=myself)
    assert key({"x": 0.4, "k": 4}) not in others
