"""Numbers of tokens, as servers say them and as estimated."""

from __future__ import annotations

from typing import Any

import pytest

from samplers._llm.tokens import as_tokens
from samplers._llm.tokens import estimate_tokens


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (7, 7),
        (7.0, 7),
        (0, 0),
        (-1, 0),
        (True, 0),
        (None, 0),
        ("7", 0),
        ([7], 0),
        (float("nan"), 0),
        (float("inf"), 0),
        (10**30, 0),
    ],
)
def test_what_is_no_number_of_tokens_is_none(value: Any, tokens: int) -> None:
    assert as_tokens(value) == tokens


def test_an_estimate_counts_digits_and_signs_one_by_one() -> None:
    words = estimate_tokens("a table of numbers ")
    assert estimate_tokens("") <= words < estimate_tokens("0.12345,0.98765,1.0")
