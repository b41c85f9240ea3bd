"""Arguments that make no sense are refused by name."""

from __future__ import annotations

import math

import pytest

from samplers._trials.arguments import check_choices
from samplers._trials.arguments import check_least


@pytest.mark.parametrize("value", [-1, 0.9, math.nan])
def test_what_is_less_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"^`wrong` must be 1 or more, but got {value}.$"):
        check_least(1, right=1, wrong=value)


def test_what_was_not_given_is_not_checked() -> None:
    check_least(1, right=1, unknown=None)


def test_what_is_no_choice_is_refused() -> None:
    check_choices(right=(None, ("a", None)))
    with pytest.raises(ValueError, match=r"^`wrong` must be one of \('a', None\), but got 'b'.$"):
        check_choices(right=("a", ("a", None)), wrong=("b", ("a", None)))
