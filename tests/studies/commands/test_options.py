"""Commands that are named in messages."""

from __future__ import annotations

import sys

import pytest

from studies.commands import options


def test_commands_that_are_shown_hide_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:pa55@word@db/x"
    monkeypatch.setattr(sys, "argv", ["studies", "run", "--storage", url, f"--storage={url}"])
    for shown in (options.this_command(), options.command("status", url)):
        assert "postgresql://me:***@db/x" in shown and "pa55" not in shown
