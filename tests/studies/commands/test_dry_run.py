"""``run --dry-run`` shows prompts and costs, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.studies.commands.test_run import run
from tests.studies.conftest import Cli
from tests.toy_testbed import write_testbed


def test_a_dry_run_trains_nothing_and_writes_nothing(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, "tpe"), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [row["name"] for row in facts["space"]] == ["DEPTH", "LR", "PATTERN"]
    assert facts["llm"] is None
    assert list(cli.folder.iterdir()) == []


def test_a_dry_run_says_when_a_trial_is_killed(cli: Cli, testbed: Path) -> None:
    command = [*run(testbed, "tpe"), "--dry-run"]
    assert json.loads(cli(*command, "--json").stdout)["wall_seconds"] == pytest.approx(60.1)
    said = cli(*command, "--wall-seconds", "2m").stdout.splitlines()[-1]
    assert said == "A trial is killed after 120 s (--wall-seconds)."


def test_a_dry_run_says_what_ends_the_study(cli: Cli, testbed: Path) -> None:
    command = [*run(testbed, "tpe", trials=30), "--dry-run", "--confirm", 2]
    more = ("--budget", "1m", "--wall-time", "8h", "--until", "08:00", "--train-seconds", 3)
    said = cli(*command).stdout
    assert "ends after 30 trials; then up to 2 of the best are trained again.\n" in said
    said = cli(*command, *more).stdout
    assert "ends after 30 trials, after 1:00 of training (about " in said
    assert ", at 08:00 on " in said
    assert ", 8:00:00 after the start of its first trial, whichever comes first; then" in said
    facts = json.loads(cli(*command, *more, "--json").stdout)
    assert (facts["budget_trials"], facts["budget_seconds"]) == (30, 60.0)


def test_a_dry_run_shows_the_first_prompt_and_what_the_calls_would_cost(
    cli: Cli, testbed: Path
) -> None:
    # Nothing listens at this address: a dry run needs no model.
    llm = {"llm": "http://127.0.0.1:9/v1", "model": "m", "price_in": 3, "price_out": 15}
    done = cli(*run(testbed, "centaur", trials=30, **llm), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["llm"]
    prompt = "".join(message["content"] for message in facts["first_prompt"])
    assert "DEPTH" in prompt and "val_bpb" in prompt
    assert 0 < facts["first_prompt_tokens"] < len(prompt)
    assert facts["calls"] == 7  # the warm start, and 30 % of the 20 trials after start-up
    tokens = facts["prompt_tokens"] * 3 + facts["completion_tokens"] * 15
    assert facts["cost"] == pytest.approx(tokens / 1e6, abs=1e-4)
    assert list(cli.folder.iterdir()) == []
    text = cli(*run(testbed, "centaur", trials=30, **llm), "--dry-run").stdout
    assert prompt.splitlines()[0] in text and "7 calls" in text
    assert "without what the model thinks" in text


def test_a_dry_run_of_a_script_whose_time_nobody_knows_says_so(cli: Cli, tmp_path: Path) -> None:
    bed = write_testbed(tmp_path / "plain", "LR = 0.5\nprint('---')\nprint('val_bpb:', LR)\n")
    command = ["run", "--method", "centaur", "--llm", "random-steps", "--testbed", bed]
    done = cli(*command, "--budget", "8h", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "How many trials the budget is enough for shows when one has run." in done.stdout
