"""Reading of the values of options."""

from __future__ import annotations

import sys

import pytest

from studies.commands import options
from studies.commands.options import parse_seeds
from studies.errors import Misuse


def test_seeds_are_ranges_and_lists_without_repetition() -> None:
    assert parse_seeds("0-3,8, 2") == [0, 1, 2, 3, 8]
    with pytest.raises(Misuse):
        parse_seeds("")


def test_commands_that_are_shown_hide_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:pa55@word@db/x"
    monkeypatch.setattr(sys, "argv", ["studies", "run", "--storage", url, f"--storage={url}"])
    for shown in (options.this_command(), options.command("status", url)):
        assert "postgresql://me:***@db/x" in shown and "pa55" not in shown
