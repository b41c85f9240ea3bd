"""Other programs' trials in a storage."""

from __future__ import annotations

from datetime import datetime
import json
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState
import pytest

from objective.testbed.inference import PAPER_SPACE
from tests.studies.conftest import Cli
from tests.studies.importing.conftest import a_row
from tests.studies.importing.conftest import facts_of
from tests.studies.importing.conftest import nested
from tests.studies.importing.conftest import Write


if TYPE_CHECKING:
    pass


def test_an_imported_study_is_like_one_of_our_own(cli: Cli, write: Write) -> None:
    content = nested()
    assert cli("import", write("runs.json", content)).returncode == 0
    study = optuna.load_study(study_name="Centaur [Opus 4.6]-seed2", storage=cli.storage)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == ["val_bpb"]
    facts = study.user_attrs
    assert (facts["method"], facts["seed"]) == ("Centaur [Opus 4.6]", 2)
    assert facts["imported_from"] == "runs.json"
    rows = content["Centaur [Opus 4.6]"]["2"]
    assert len(study.trials) == len(rows)
    for number, (trial, row) in enumerate(zip(study.trials, rows)):
        assert (trial.number, trial.state, trial.value) == (
            number,
            TrialState.COMPLETE,
            row["val_bpb"],
        )
        assert trial.params == {name: row[name] for name in PAPER_SPACE}
        assert trial.distributions == PAPER_SPACE
        attrs = trial.user_attrs
        assert attrs["tid"] == row["tid"]
        assert attrs["training_seconds"] == attrs["total_seconds"] == row["wt"]
        if row["success"]:
            assert (attrs["status"], attrs["val_bpb"]) == ("ok", row["val_bpb"])
        else:
            assert (attrs["status"], trial.value) == ("unknown", 100.0)
            assert "val_bpb" not in attrs and "reason" not in attrs
        assert trial.datetime_start and trial.datetime_complete
        span = trial.datetime_complete - trial.datetime_start
        assert span.total_seconds() == pytest.approx(row["wt"], abs=1e-3)
    ends = [t.datetime_complete for t in study.trials if t.datetime_complete]
    assert ends == sorted(set(ends)), "best-so-far curves are drawn in this order"
    (status,) = (
        facts
        for facts in json.loads(cli("status", "--json").stdout)
        if facts["study"] == study.study_name
    )
    assert status["ok"] == sum(row["success"] for row in rows)
    # Optuna goes on with it: nothing of the study is incomplete.
    study.sampler = optuna.samplers.TPESampler(seed=0)
    assert study.ask(PAPER_SPACE).number == len(rows)


def test_nothing_is_imported_twice(cli: Cli, write: Write) -> None:
    content = nested(10)
    half = {m: {s: rows[:5] for s, rows in seeds.items()} for m, seeds in content.items()}
    path = write("runs.json", half)
    assert cli("import", path).stdout.startswith("45 trials imported")
    assert cli("import", path).stdout.startswith(
        "0 trials imported into 9 studies, 45 were there before"
    )
    write("runs.json", content)
    assert cli("import", path).stdout.startswith(
        "45 trials imported into 9 studies, 45 were there before"
    )
    for method, seeds in content.items():
        for seed, rows in seeds.items():
            study = optuna.load_study(study_name=f"{method}-seed{seed}", storage=cli.storage)
            assert [t.value for t in study.trials] == [row["val_bpb"] for row in rows]


def test_times_are_the_files_own_whatever_their_form(cli: Cli, write: Write) -> None:
    stamps: list[Any] = [
        "2026-03-01T12:00:00.5",
        datetime(2026, 3, 1, 11).timestamp(),
        datetime(2026, 3, 1, 10).astimezone().isoformat(),
    ]
    facts_of(
        cli,
        write("a.jsonl", [a_row(trial_id=i, timestamp=stamp) for i, stamp in enumerate(stamps)]),
    )
    trials = cli.trials("tpe-seed0")
    assert [t.datetime_complete for t in trials] == [
        datetime(2026, 3, 1, 10),
        datetime(2026, 3, 1, 11),
        datetime(2026, 3, 1, 12, 0, 0, 500_000),
    ]
    assert [t.user_attrs["tid"] for t in trials] == [2, 1, 0], "in the order in which they ended"
    some = [a_row(backend="b", trial_id=i, timestamp=s) for i, s in enumerate(["soon", stamps[0]])]
    facts = facts_of(cli, write("b.jsonl", some))
    assert facts["notes"] == {"a study with times for some trials only: dates are made up": 1}
    assert [t.user_attrs["tid"] for t in cli.trials("b-seed0")] == [0, 1]


def test_trials_of_others_do_not_get_into_our_own_studies(
    cli: Cli, write: Write, testbed: Path
) -> None:
    arguments = ("--method", "random", "--testbed", testbed, "--trials", 1)
    assert cli("run", *arguments, "--study", "tpe-seed0").returncode == 0
    path = write("runs.jsonl", [a_row()])
    message = cli.fails(2, "import", path)
    assert "study 'tpe-seed0' of --storage is no import" in message and "--prefix" in message
    assert facts_of(cli, path, "--prefix", "paper ")["studies"] == {"paper tpe-seed0": 1}
    (imported,) = cli.trials("paper tpe-seed0")
    assert imported.params == {"DEPTH": 8}
    assert len(cli.trials("tpe-seed0")) == 1
