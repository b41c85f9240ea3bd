"""The doctor on a storage with one of everything, and what ``status --watch`` says of it."""

from __future__ import annotations

from datetime import datetime
from datetime import timedelta
from datetime import timezone
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any
import uuid

import optuna
from optuna.trial import TrialState
import pytest

from objective import worker
from objective.results import Results
from objective.worker import claim
from objective.worker import WORKER
from studies.commands.doctor import mend
from studies.commands.work.status import live_lines
from studies.commands.work.status import WATCH_SECONDS
from studies.storage import recovery
from studies.storage.examine import Finding
from studies.storage.open import artifact_folder
from studies.storage.open import open_storage
from tests.studies.conftest import Cli
from tests.studies.conftest import write_sleeping


def _pid_of_the_dead() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a command that ran two trials."""
    folder = tmp_path_factory.mktemp("ran")
    bed = write_sleeping(tmp_path_factory.mktemp("bed"))
    words = ["run", "--testbed", bed, "--study", "s", "--method", "random", "--trials", 2]
    done = Cli(folder)(*words)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def study(cli: Cli, ran: Path) -> optuna.Study:
    """Two trials that are as they should be."""
    shutil.copytree(ran, cli.folder, dirs_exist_ok=True)
    return optuna.load_study(study_name="s", storage=open_storage(cli.storage))


@pytest.fixture
def folder(cli: Cli) -> Path:
    return artifact_folder(cli.storage)


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_int("DEPTH", 1, 8)
    return trial


def ask_and_die(study: optuna.Study) -> optuna.Trial:
    trial = ask(study)
    mark: Any = [worker._machine(), _pid_of_the_dead(), 1.0, trial.number]
    study._storage.set_trial_system_attr(trial._trial_id, WORKER, mark)
    return trial


def kinds(cli: Cli, *options: str) -> list[str]:
    done = cli("doctor", "--json", *options)
    assert done.returncode == 0, done.stderr
    return [finding["kind"] for finding in json.loads(done.stdout)]


def test_nothing_is_wrong_with_a_study_that_ran(cli: Cli, study: optuna.Study) -> None:
    assert kinds(cli) == []
    assert "Nothing is wrong" in cli("doctor").stdout


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_trials_that_nobody_runs_are_queued_again_and_those_of_the_living_are_not(
    cli: Cli, study: optuna.Study, monkeypatch: pytest.MonkeyPatch, in_tokyo: None
) -> None:
    dead = ask_and_die(study)
    alive = ask(study)
    claim(alive)
    young = ask(study)  # another program's
    assert kinds(cli) == ["abandoned-trial", "unclaimed-trial"]
    monkeypatch.setattr(recovery, "SILENCE", timedelta(0))
    assert kinds(cli) == ["abandoned-trial"] * 2
    assert kinds(cli, "--yes") == ["abandoned-trial"] * 2
    trials = study.trials
    assert [trials[t.number].state for t in (dead, alive, young)] == [
        TrialState.FAIL,
        TrialState.RUNNING,
        TrialState.FAIL,
    ]
    assert [t.params for t in trials if t.state == TrialState.WAITING] == [
        trials[dead.number].params,
        trials[young.number].params,
    ]
    assert kinds(cli) == []


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_trial_that_was_failed_and_not_queued_is_queued_once(
    cli: Cli, study: optuna.Study
) -> None:
    trial = ask_and_die(study)
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    assert kinds(cli, "--yes") == ["unqueued-trial"]
    assert kinds(cli) == []
    assert [t.params for t in study.trials[3:]] == [study.trials[2].params]


def test_what_cannot_be_mended_keeps_nothing_else_from_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mended = []

    def fail() -> None:
        raise ValueError("no float")

    findings = [
        Finding("abandoned-trial", "trial 0 is running", "", fail),
        Finding("missing-artifact", "trial 1 has lost a file", ""),
        Finding("abandoned-trial", "trial 2 is running", "", lambda: mended.append(2)),
    ]
    assert mend(findings) == 1 and mended == [2]
    assert capsys.readouterr().err == "trial 0 is running, and can't be mended: no float\n"


def test_nothing_is_mended_without_a_yes(
    cli: Cli, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = ask_and_die(study)
    for answer in ("n\n", ""):
        read, write = os.pipe()
        os.write(write, answer.encode())
        os.close(write)
        with os.fdopen(read) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            done = cli("doctor")
        assert "Mend 1 of 1 findings?" in done.stdout + done.stderr
        assert study.trials[trial.number].state == TrialState.RUNNING


def test_artifacts_without_a_trial_are_deleted_and_lost_ones_are_named(
    cli: Cli, study: optuna.Study, folder: Path
) -> None:
    [of_trial, *_] = optuna.artifacts.get_all_artifact_meta(
        study.trials[1], storage=study._storage
    )
    (folder / of_trial.artifact_id).unlink()
    orphan, new = folder / str(uuid.uuid4()), folder / str(uuid.uuid4())
    for path in (orphan, new, folder / "mine.txt"):
        path.write_text("text")
    for path in folder.iterdir():
        if path != new:
            os.utime(path, (time.time() - 1e5,) * 2)
    before = set(folder.iterdir())
    assert kinds(cli, "--yes") == ["missing-artifact", "orphaned-artifacts"]
    assert before - set(folder.iterdir()) == {orphan}
    assert kinds(cli) == ["missing-artifact"], "which only a backup or a training can mend"


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_result_that_was_never_told_is_left_to_the_next_run(
    cli: Cli, study: optuna.Study, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = ask_and_die(study)
    mark = study.trials[trial.number].system_attrs[WORKER]
    with monkeypatch.context() as patch:
        patch.setattr("objective.results.worker_mark", lambda number: mark)
        Results(folder / "results").keep(trial, {"status": "ok", "val_bpb": 1.5}, 1.5)
    assert "untold-result" in kinds(cli)
    assert "came to 1.5" in cli("doctor", "--json").stdout


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_the_watch_names_the_workers_and_what_nobody_runs(study: optuna.Study) -> None:
    assert live_lines(study, "doctor") == []
    dead, alive = ask_and_die(study), ask(study)
    claim(alive)
    first, second, rates = live_lines(study, "doctor")
    assert f"trial {dead.number} runs" in first and "abandoned: its process" in first
    assert f"process {os.getpid()} on" in second and "abandoned" not in second
    ends = [t.datetime_complete for t in study.trials[:2]]
    assert all(isinstance(end, datetime) for end in ends)
    hours = (ends[1] - ends[0]).total_seconds() / 3600  # type: ignore[operator]
    assert rates == f"s: {1 / hours:.0f} trials an hour"


@pytest.mark.parametrize(
    ("zone", "runs"), [("CET-1CEST,M3.5.0,M10.5.0/3", "15:00"), ("UTC0", "0:00")]
)
def test_a_running_trial_is_as_old_as_it_is_whatever_the_clocks_do(
    zone: str, runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study(study_name="s")
    trial = study.ask()
    (stored,) = study.get_trials(deepcopy=False)
    stored.datetime_start = datetime(2026, 3, 29, 1, 50)  # ten minutes before summer time
    now = datetime(2026, 3, 29, 1, 5, tzinfo=timezone.utc).timestamp()
    monkeypatch.setattr("studies.storage.recovery.time", SimpleNamespace(time=lambda: now))
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            line, _ = live_lines(study, "doctor")
    finally:
        time.tzset()
    assert line == f"s: trial {trial.number} runs for {runs}, another program"


def test_the_watch_shows_the_table_until_it_is_stopped(
    cli: Cli, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    class Clock:
        def sleep(self, seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("studies.commands.work.status.time", Clock())
    done = cli("status", "--watch")
    assert done.returncode == 0, done.stderr
    assert looks == [WATCH_SECONDS] * 3
    assert "baseline" in done.stdout and "2.1" in done.stdout
    assert "--watch must be without --json" in cli.fails(2, "status", "--watch", "--json")
