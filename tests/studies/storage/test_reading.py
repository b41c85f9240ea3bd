"""Trials are read as Optuna itself reads them."""

from __future__ import annotations

from collections.abc import Callable
import copy
import math
from pathlib import Path
import shutil

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest
import sqlalchemy

from studies.commands.best import best
from studies.commands.status import status
from studies.storage.bulk import add_trials
from studies.storage.open import opened
from studies.storage.reading import read_trials


SPACE = {
    "depth": IntDistribution(1, 8, log=True),
    "lr": FloatDistribution(1e-4, 0.1, log=True),
    "pattern": CategoricalDistribution(("ab", 1, None, True)),
}


def _fill(study: optuna.Study) -> None:
    for state in TrialState:
        for values in ([0.5, math.inf], [-math.inf, 1e-300]):
            study.add_trial(
                create_trial(
                    state=state,
                    values=values if state == TrialState.COMPLETE else None,
                    params={"depth": 3, "lr": 0.01, "pattern": None},
                    distributions=SPACE,
                    user_attrs={"status": "ok", "deep": {"a": [1, {"b": None}]}},
                    system_attrs={"constraints": [1.0, -1.0]},
                    intermediate_values={2: 0.25, 0: math.nan, 1: math.inf},
                )
            )
    study.enqueue_trial({"depth": 5})
    study.ask()


def _told(trial: FrozenTrial) -> tuple[str, list[str]]:
    """All of a trial as text, where NaN is its own equal; attributes and steps have no order."""
    told = copy.copy(trial)
    for name in ("user_attrs", "system_attrs", "intermediate_values"):
        setattr(told, name, dict(sorted(getattr(trial, name).items())))
    return repr(told), list(trial.params)


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_it_is_as_optuna_reads_it(
    kind: str, request: pytest.FixtureRequest, tmp_path: object, in_tokyo: None
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    if kind != "sqlite":
        url = request.getfixturevalue(f"{kind}_url")
    with opened(url) as storage:
        for name in ("other", "s"):  # each study's own
            study = optuna.create_study(
                storage=storage, study_name=name, directions=["minimize"] * 2
            )
            _fill(study)
    own = RDBStorage(url)
    expected = own.get_all_trials(study._study_id)
    found = read_trials(own, study._study_id)
    assert list(map(_told, found)) == list(map(_told, expected)) and len(found) == 11
    with pytest.raises(KeyError):
        read_trials(own, 10**6)
    own.remove_session()
    own.engine.dispose()


@pytest.mark.parametrize("statement", range(2, 8))
def test_a_trial_that_ends_while_it_is_read_has_its_value_or_still_runs(
    statement: int, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(storage=url)
    trial = study.ask()
    reader = RDBStorage(url)
    statements = 0

    def end_before(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == statement:
            study.tell(trial, 0.5)

    sqlalchemy.event.listen(reader.engine, "before_cursor_execute", end_before)
    (found,) = read_trials(reader, study._study_id)
    assert study.trials[0].state == TrialState.COMPLETE
    assert found.state == TrialState.RUNNING or found.values == [0.5]


def _suggest(url: str) -> None:
    """The first suggestion of a worker that comes to a study."""
    with opened(url) as storage:
        sampler = optuna.samplers.TPESampler(seed=0)
        study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
        assert 0 <= study.ask().suggest_float("x", 0, 1) <= 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study of 3,000 trials, to be copied."""
    file = tmp_path_factory.mktemp("large") / "s.db"
    trial = create_trial(
        value=0.5, params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}
    )
    with opened(f"sqlite:///{file}") as storage:
        study = optuna.create_study(storage=storage, study_name="s")
        add_trials(study, storage, [trial] * 3000)
    return file


@pytest.mark.parametrize("look", [status, best, _suggest])
def test_a_look_at_a_large_study_reads_each_table_once_and_makes_no_object_of_a_row(
    look: Callable[[str], None], large: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{shutil.copy(large, tmp_path)}"
    objects: list[object] = []
    statements: list[str] = []

    def note_object(row: object, _: object) -> None:
        objects.append(row)

    def note_statement(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    rows = (models.TrialModel, models.TrialParamModel, models.TrialValueModel)
    for model in rows:
        sqlalchemy.event.listen(model, "load", note_object)
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note_statement)
    try:
        look(url)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note_statement)
        for model in rows:
            sqlalchemy.event.remove(model, "load", note_object)
    assert len(objects) <= 10  # of the trial that is asked for
    whole = [s for s in statements if "FROM trial_params JOIN" in s and "LIMIT" not in s]
    assert len(whole) == 1
