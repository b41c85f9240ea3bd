"""Studies of the embedded testbed: real, short trainings on real text."""

from __future__ import annotations

import json
import os
import signal

from optuna.artifacts import get_all_artifact_meta
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from objective import Testbed
from studies.budget import charge
from studies.budget import is_evaluated
from tests.studies.conftest import Cli
from tests.studies.conftest import until


def test_the_embedded_testbed_has_the_14_rows(cli: Cli) -> None:
    rows = [row for row in json.loads(cli("space", "--json").stdout) if row["type"] is not None]
    assert len(rows) == 14
    assert {row["name"]: row["default"] for row in rows} == Testbed.load().baseline


def test_a_killed_study_of_real_trainings_ends_with_all_its_trials(cli: Cli) -> None:
    arguments = ["run", "--method", "cma-es", "--study", "s", "--trials", "3"]
    arguments += ["--train-seconds", "2s", "--memory-limit", "1500M"]
    process = cli.start(*arguments)

    def trains() -> bool:  # any trial but the first: on a busy machine one may pass unseen
        last = cli.trials("s")[-1:]
        return any(t.number and t.intermediate_values and not t.state.is_finished() for t in last)

    until(trains)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    killed = cli.trials("s")[-1]
    assert killed.state == TrialState.RUNNING

    done = cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    trials = cli.trials("s")
    evaluated = [t for t in trials if is_evaluated(t)]
    assert len(evaluated) == 3
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    again = trials[killed.number + 1]
    assert again.params == killed.params
    assert again.system_attrs["failed_trial"] == killed.number

    facts = json.loads(done.stdout)
    assert facts["baseline"]["trial"] == 0
    assert facts["baseline"]["params"] == Testbed.load().baseline
    assert 0 < facts["best"]["val_bpb"] <= facts["baseline"]["val_bpb"] < 8
    assert all(1 < charge(t) for t in evaluated if t.user_attrs["status"] == "ok")
    assert trials[0].intermediate_values
    kept = get_all_artifact_meta(trials[0], storage=RDBStorage(cli.storage))
    assert {meta.filename for meta in kept} == {"train.py", "train.log"}
