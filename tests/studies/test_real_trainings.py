"""Studies of the embedded testbed: real, short trainings on real text."""

from __future__ import annotations

import json

from optuna.artifacts import get_all_artifact_meta
from optuna.storages import RDBStorage

from objective import Testbed
from studies.budget import charge
from studies.budget import is_evaluated
from tests.studies.conftest import Cli


def test_the_embedded_testbed_has_the_14_rows(cli: Cli) -> None:
    rows = [row for row in json.loads(cli("space", "--json").stdout) if row["type"] is not None]
    assert len(rows) == 14
    assert {row["name"]: row["default"] for row in rows} == Testbed.load().baseline


def test_a_study_of_real_trainings_begins_with_the_scripts_own_values(cli: Cli) -> None:
    arguments = ["run", "--method", "cma-es", "--study", "s", "--trials", "2"]
    arguments += ["--train-seconds", "1s", "--memory-limit", "1500M"]
    done = cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    trials = cli.trials("s")
    assert len(trials) == 2 and all(map(is_evaluated, trials))

    facts = json.loads(done.stdout)
    assert facts["baseline"]["trial"] == 0
    assert facts["baseline"]["params"] == Testbed.load().baseline
    assert 0 < facts["best"]["val_bpb"] <= facts["baseline"]["val_bpb"] < 8
    assert all(charge(t) > 0.5 for t in trials if t.user_attrs["status"] == "ok")
    assert trials[0].intermediate_values
    kept = get_all_artifact_meta(trials[0], storage=RDBStorage(cli.storage))
    assert {meta.filename for meta in kept} == {"train.py", "train.log"}
