"""Many trials in one transaction."""

from __future__ import annotations

from pathlib import Path
import random

import optuna
from optuna.trial import TrialState
import pytest
import sqlalchemy

from objective.testbed.inference import PAPER_SPACE
from studies.storage.bulk import add_study_attrs
from studies.storage.bulk import add_trials
from tests.conftest import StorageFactory
from tests.studies.importing.conftest import config


def test_many_trials_at_once_are_what_one_by_one_would_be(storage: StorageFactory) -> None:
    rng = random.Random(0)
    trials = [
        optuna.trial.create_trial(
            state=TrialState.COMPLETE if i % 3 else TrialState.FAIL,
            value=float(i) if i % 3 else None,
            params=config(rng) if i != 4 else {},
            distributions=PAPER_SPACE if i != 4 else {},
            user_attrs={"status": "ok", "n": i, "x": 0.1} if i != 5 else {},
            system_attrs={"k": [i, None]},
        )
        for i in range(7)
    ]
    opened = storage()
    raw = optuna.storages.RDBStorage(opened) if isinstance(opened, str) else opened
    assert raw is not None
    one, many = (optuna.create_study(storage=raw, study_name=name) for name in ("one", "many"))
    one.add_trials(trials[:2])
    add_trials(many, raw, trials[:2])
    one.add_trials(trials[2:])
    add_trials(many, raw, trials[2:])
    again = [
        optuna.load_study(storage=storage() or raw, study_name=name).trials
        for name in ("one", "many")
    ]
    for expected, found in zip(*again, strict=True):
        for name in ("number", "state", "values", "params", "distributions", "user_attrs"):
            assert getattr(found, name) == getattr(expected, name), name
        assert found.system_attrs == expected.system_attrs
        assert found.datetime_start == expected.datetime_start
        assert found.datetime_complete == expected.datetime_complete
    many.sampler = optuna.samplers.RandomSampler(seed=0)
    assert many.ask(PAPER_SPACE).number == 7


def test_a_failed_addition_leaves_nothing(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/x.db")
    study = optuna.create_study(storage=storage, study_name="s")
    good = optuna.trial.create_trial(value=1.0)
    bad = optuna.trial.create_trial(value=1.0, user_attrs={"x": object()})
    with pytest.raises(TypeError):
        add_trials(study, storage, [good, bad])
    assert optuna.load_study(storage=storage, study_name="s").trials == []


def test_groups_that_others_are_faster_with_are_left_to_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(storage=url)
    other = optuna.load_study(study_name=study.study_name, storage=url)
    storage = optuna.storages.RDBStorage(url)
    waiting = [0, 1, 2]

    def be_faster(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("INSERT") and waiting:
            add_study_attrs(other, other._storage, [{f"k{waiting.pop(0)}": "theirs"}])

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", be_faster)
    add_study_attrs(study, storage, [{f"k{i}": "own"} for i in range(4)])
    found = storage.get_study_system_attrs(study._study_id)
    assert found == {"k0": "theirs", "k1": "theirs", "k2": "theirs", "k3": "own"}
