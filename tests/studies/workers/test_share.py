"""Workers of one command: what they share, and what becomes of their errors."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from optuna.trial import TrialState

from studies.budget import Budget
from studies.spec import Spec
from studies.spec import Where
from studies.storage.patient import PATIENCE
from studies.storage.patient import PatientStorage
from studies.workers.share import _share
from studies.workers.share import share_work
from tests.studies.commands.test_run import run
from tests.studies.conftest import Cli


def test_workers_share_the_trials_of_one_command(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, trials=10, workers=2, confirm=0), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluated"] == 10
    trials = cli.trials("s")
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 10
    assert len({t.system_attrs["autoresearch:worker"][1] for t in trials}) == 2
    assert done.stderr.count("\ntrial ") == 9  # and the first line


def test_an_error_of_a_worker_is_the_error_of_the_command(cli: Cli, testbed: Path) -> None:
    (testbed / "train.py").write_text("DEPTH = 4\nLR = 0.01\nPATTERN = 'ab'\n1 / 0\n")
    done = cli(*run(testbed, trials=4, workers=2))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_worker_waits_for_a_storage_that_is_away_when_it_begins() -> None:
    seen = []

    def work(spec: Spec, watch: object) -> None:
        seen.append(spec.where.wait)

    _share((work, Spec(Where("sqlite://"), "s", "random", 0, Budget(trials=1))), lambda _: None)
    assert seen == [PATIENCE]


def test_who_only_watches_waits_for_the_storage_once_it_is_to_tell_what_came_of_it() -> None:
    storage = PatientStorage("sqlite://", patience=0)
    study = optuna.create_study(storage=storage)
    spec = Spec(Where("sqlite://"), "s", "random", 0, Budget(trials=1))
    seen = []
    share_work(
        study, print, spec, 1, lambda trials: None, run=lambda *_: seen.append(storage.patience)
    )
    assert seen == [0] and storage.patience == PATIENCE
