"""Commands that are named in messages."""

from __future__ import annotations

from pathlib import Path
import shlex
import sys

import pytest

from studies.commands import options


def test_commands_that_are_shown_hide_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:pa55@word@db/x"
    monkeypatch.setattr(sys, "argv", ["studies", "run", "--storage", url, f"--storage={url}"])
    for shown in (options.this_command(), options.command("status", url)):
        assert "postgresql://me:***@db/x" in shown and "pa55" not in shown


def test_commands_that_are_shown_work_where_the_environment_is_not_active(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = ".venv/bin/optuna-autoresearch"
    monkeypatch.setattr(sys, "argv", [given, "run"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert options.this_command() == f"{given} run"
    assert options.command("status", options.DEFAULT_STORAGE) == f"{given} status"
    found = tmp_path / "optuna-autoresearch"
    found.touch(0o755)
    assert options.this_command() == "optuna-autoresearch run"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--env", "WANDB_API_KEY=s3cret"], ["--env", "WANDB_API_KEY"]),
        (["--env=HF_TOKEN=s3cret"], ["--env=HF_TOKEN"]),
        (["--env", "RUN=sk-0123456789abcdefghij"], ["--env", "RUN"]),
        (["--env", "WANDB_API_KEY"], ["--env", "WANDB_API_KEY"]),
        (["--env", "OMP_NUM_THREADS=1"], ["--env", "OMP_NUM_THREADS=1"]),
        (["--title", "HF_TOKEN=s3cret"], ["--title", "HF_TOKEN=s3cret"]),
    ],
)
def test_commands_that_are_shown_have_no_key(
    given: list[str], shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["studies", "run", *given])
    assert options.this_command().split() == ["optuna-autoresearch", "run", *shown]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("env ANTHROPIC_API_KEY=s3cret-s3cret claude -p", "env ANTHROPIC_API_KEY=*** claude -p"),
        ("my-agent --api-key sk-0123456789abcdef", "my-agent --api-key ***"),
        ("my-agent --api-key='two words'", "my-agent --api-key='***'"),
        ("MY_TOKEN='s3cret-s3cret", "MY_TOKEN=***"),  # a quote that nobody closes
        ("python train.py --tokens={batch_tokens} --max-tokens=500000", None),
    ],
)
@pytest.mark.parametrize("option", ["--agent-command", "--command", "--python"])
def test_a_command_that_is_an_options_value_is_shown_without_keys(
    option: str, given: str, shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = shown or given
    for words, expected in (
        ([option, given], [option, shown]),
        ([f"{option}={given}"], [f"{option}={shown}"]),
        (["--title", given], ["--title", given]),
    ):
        monkeypatch.setattr(sys, "argv", ["studies", "run", *words])
        assert shlex.split(options.this_command())[2:] == expected
