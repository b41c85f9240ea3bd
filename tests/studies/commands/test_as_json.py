"""Facts for programs."""

from __future__ import annotations

import json
import math

import pytest

from studies.commands.as_json import finite
from studies.commands.as_json import print_json


def test_what_json_has_no_word_for_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, 1.5, (math.inf,)], "b": {"c": -math.inf, "d": None, "e": "NaN"}})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"a": [None, 1.5, [None]], "b": {"c": None, "d": None, "e": "NaN"}}


def test_everything_else_stays() -> None:
    facts = {"a": [1, 0.5, "x", True, None], "b": {"c": 10**30}}
    assert finite(facts) == facts
