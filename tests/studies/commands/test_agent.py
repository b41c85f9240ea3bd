"""``agent``: when it ends, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
import sys

import optuna
import pytest

from samplers._llm.chat import ChatUnavailable
from studies.budget import is_ok
from studies.commands.work import run as work
from studies.loop import Watch
from studies.spec import Spec
from studies.workers.share import work_on
from tests.studies.conftest import Cli
from tests.studies.scripted import make_testbed


EDITOR = """
import re
from pathlib import Path
script = Path("train.py")
old = script.read_text()
rate = float(re.search(r"RATE = (.*)", old)[1])
script.write_text(old.replace(f"RATE = {rate}", f"RATE = {rate * 0.9}"))
"""


@pytest.mark.parametrize(
    ("limit", "stored"), [(("--budget", "0.4s"), 0.4), (("--wall-time", "4s"), 4.0)]
)
def test_time_ends_it_where_no_number_of_trials_does(
    cli: Cli, tmp_path: Path, limit: tuple[str, str], stored: float
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(EDITOR)
    words = ["agent", "--testbed", make_testbed(tmp_path / "bed"), "--study", "s", "--unsafe"]
    words += ["--agent-command", f"{sys.executable} {editor}", "--baselines", 1, "--tune", 0]
    words += ["--train-seconds", "0.1s", *limit]
    done = cli(*words, "--json")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=cli.storage)
    assert stored in (study.user_attrs.get("budget_seconds"), study.user_attrs.get("budget_wall"))
    assert 1 <= sum(map(is_ok, study.trials)) < 20
    assert len(json.loads(done.stdout)["trials"]) == len(study.trials)
    before = len(study.trials)
    assert cli(*words).returncode == 0
    assert len(study.trials) == before, "it is used up"


@pytest.mark.parametrize(("time", "seconds"), [("0.01m", "0.6"), ("1", "1")])
def test_an_agent_of_ones_own_may_take_a_time_as_any_option_reads_one(
    cli: Cli, tmp_path: Path, time: str, seconds: str
) -> None:
    words = ["agent", "--testbed", make_testbed(tmp_path / "bed"), "--study", "s", "--unsafe"]
    words += ["--baselines", 1, "--tune", 0, "--train-seconds", "0.1s", "--trials", 2]
    done = cli(*words, "--agent-command", "sleep 60", "--agent-seconds", time)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=cli.storage)
    assert f"must end within {seconds} s" in study.trials[1].user_attrs["reason"]


@pytest.mark.parametrize("option", [("--llm", "local"), ("--model", "m"), ("--max-tokens", 9)])
def test_what_an_agent_of_ones_own_does_not_heed_is_refused(
    cli: Cli, tmp_path: Path, option: tuple[object, ...]
) -> None:
    words = ("--testbed", make_testbed(tmp_path / "bed"), "--unsafe", "--baselines", 1)
    said = cli.fails(2, "agent", "--agent-command", "true", "--trials", 1, *words, *option)
    assert f"{option[0]} must be without --agent-command" in said


def test_what_was_found_is_shown_before_the_error_that_ends_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_tokyo: None
) -> None:
    def and_end(spec: Spec, watch: Watch) -> None:
        work_on(spec, watch)
        raise ChatUnavailable("the server is down")

    monkeypatch.setattr(work, "work_on", and_end)
    words = ["agent", "--testbed", make_testbed(tmp_path / "bed"), "--unsafe", "--baselines", 1]
    done = cli(*words, "--train-seconds", "0.1s", "--trials", 1, "--agent-command", "true")
    assert done.returncode == 1 and "the server is down" in done.stderr.splitlines()[-1]
    assert "0 proposals" in done.stdout


def test_a_script_that_an_agent_of_ones_own_prints_does_not_stand_for_the_one_it_left(
    cli: Cli, tmp_path: Path
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "old = open('train.py').read().replace('0.5', '0.4')\n"
        "open('train.py', 'w')\n"
        "print(f'```\\n{old}```')\n"
    )
    words = ["agent", "--testbed", make_testbed(tmp_path / "bed"), "--study", "s", "--unsafe"]
    words += ["--baselines", 1, "--tune", 0, "--train-seconds", "0.1s", "--trials", 2]
    done = cli(*words, "--agent-command", f"{sys.executable} {editor}")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=cli.storage)
    assert "The script must still" in study.trials[1].user_attrs["reason"]
