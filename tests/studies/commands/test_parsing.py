"""Reading of the values of options."""

from __future__ import annotations

import pytest

from studies.commands.parsing import parse_seeds
from studies.errors import Misuse


def test_seeds_are_ranges_and_lists_without_repetition() -> None:
    assert parse_seeds("0-3,8, 2") == [0, 1, 2, 3, 8]
    with pytest.raises(Misuse):
        parse_seeds("")
