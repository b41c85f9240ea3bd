"""A choice of one constant changes that constant alone, or says what is wrong with it."""

from __future__ import annotations

import json

import pytest

from studies.code_agent.constant_choice import apply_choice
from studies.code_agent.constant_choice import candidate_values
from studies.code_agent.constant_choice import choice_schema
from studies.code_agent.constant_choice import describe_choice
from studies.code_agent.edit_blocks import EditError


SOURCE = """\
DEPTH = 3  # layers
BATCH = 2**11
RATE = 0.5
PATTERN = "SL"
FAST = True
"""


def reply(**fields: object) -> str:
    return json.dumps({"reason": "it may help", **fields})


def anything(source: str) -> bool:
    return True


def test_only_the_value_changes() -> None:
    assert apply_choice(SOURCE, reply(name="DEPTH", value=4)) == (
        "DEPTH = 4: it may help",
        SOURCE.replace("DEPTH = 3", "DEPTH = 4"),
    )
    assert apply_choice(SOURCE, reply(name="RATE", value=1))[1] == SOURCE.replace("0.5", "1.0")


def test_only_numbers_are_offered_each_with_multiples_of_its_type() -> None:
    offered = candidate_values(SOURCE, 0, anything)
    assert offered == {
        "DEPTH": [2, 4, 6],
        "BATCH": [1024, 4096],
        "RATE": [0.25, 0.4, 0.625, 1.0],
    }
    branches = choice_schema(offered)["anyOf"]
    assert {
        b["properties"]["name"]["const"]: b["properties"]["value"]["enum"] for b in branches
    } == offered
    assert "BATCH = 2048: 1024 or 4096" in describe_choice(SOURCE, offered)


def test_what_may_not_be_proposed_is_not_offered() -> None:
    def is_usable(source: str) -> bool:
        tried = ("DEPTH = 4", "BATCH = 1024", "BATCH = 4096")
        return not any(text in source for text in tried)

    assert candidate_values(SOURCE, 0, is_usable) == {
        "DEPTH": [2, 6],
        "RATE": [0.25, 0.4, 0.625, 1.0],
    }
    assert candidate_values(SOURCE, 0, lambda source: False) == {}


def test_others_are_offered_each_time_and_never_zero() -> None:
    names = [f"C{i}" for i in range(14)]
    source = "\n".join(f"{name} = {i}" for i, name in enumerate(names))
    drawn = [candidate_values(source, seed, anything) for seed in range(40)]
    assert {len(offered) for offered in drawn} == {4}
    assert {name for offered in drawn for name in offered} == {*names} - {"C0"}
    assert drawn[3] == candidate_values(source, 3, anything)
    assert not any(0 in values for offered in drawn for values in offered.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one JSON object"),
        ("[]", "one JSON object"),
        ('{"name": "RATE", "val', "one JSON object"),
        (reply(name="PATTERN", value="LL"), "the name one of DEPTH, BATCH, RATE"),
        (reply(name="DEPTH", value=3.5), "must be a whole number, but got 3.5"),
        (reply(name="DEPTH", value=True), "must be a number"),
        (reply(name="RATE", value="high"), "must be a number, but got 'high'"),
        (reply(name="RATE", value=0.5), "is 0.5 already"),
        (reply(name="RATE", value=1e999), "must be a finite number"),
        (reply(name="DEPTH", value=1e999), "must be a finite number"),
        (reply(name="DEPTH", value=-(10**400)), "must be a finite number"),
        (reply(name="RATE", value=10**400), "must be a finite number"),
        (f'{{"name": "RATE", "value": {"1" * 5000}, "reason": ""}}', "one JSON object"),
        ('{"name": "RATE", "value": ' + "[" * 100_000, "one JSON object"),
    ],
)
def test_a_reply_that_is_no_choice_is_refused(text: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        apply_choice(SOURCE, text)
