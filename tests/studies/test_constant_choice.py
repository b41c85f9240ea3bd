"""A choice of one constant changes that constant alone, or says what is wrong with it."""

from __future__ import annotations

import json

import pytest

from studies.constant_choice import apply_choice
from studies.constant_choice import choice_schema
from studies.constant_choice import describe_choice
from studies.edit_blocks import EditError


SOURCE = """\
DEPTH = 3  # layers
BATCH = 2**11
RATE = 0.5
PATTERN = "SL"
FAST = True
"""


def reply(**fields: object) -> str:
    return json.dumps({"reason": "it may help", **fields})


def test_only_the_value_changes() -> None:
    assert apply_choice(SOURCE, reply(name="DEPTH", value=4)) == (
        "DEPTH = 4: it may help",
        SOURCE.replace("DEPTH = 3", "DEPTH = 4"),
    )
    assert apply_choice(SOURCE, reply(name="RATE", value=1))[1] == SOURCE.replace("0.5", "1.0")


def test_only_numbers_are_offered_each_with_its_type() -> None:
    branches = choice_schema(SOURCE)["anyOf"]
    offered = {
        b["properties"]["name"]["const"]: b["properties"]["value"]["type"] for b in branches
    }
    assert offered == {"DEPTH": "integer", "BATCH": "integer", "RATE": "number"}
    assert "BATCH = 2048" in describe_choice(SOURCE)


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
        (reply(name="DEPTH", value=1e999), "must be a whole number"),
    ],
)
def test_a_reply_that_is_no_choice_is_refused(text: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        apply_choice(SOURCE, text)
