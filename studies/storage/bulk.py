"""Many finished trials into a study at once.

`Study.add_trials` asks an SQL database several times for each parameter and attribute, which takes
26 ms of the processor's time for a trial of 14 parameters on SQLite. Rows of all trials together,
table by table in one transaction, take less than 1 ms (tests/benchmarks/import_speed.py). This
writes Optuna's own tables, as `reading` reads them; other storages get `Study.add_trials`, which takes
about 1 ms in a journal.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial
from sqlalchemy import insert
from sqlalchemy import select
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError


def add_trials(
    study: optuna.Study, storage: optuna.storages.BaseStorage, trials: Sequence[FrozenTrial]
) -> None:
    """Add finished trials to a study, in their order: all of them, or none if that fails.

    Args:
        study: Where they go.
        storage: The one that the study was opened with.
        trials: Without intermediate values; with one finite value, or none.
    """
    if not isinstance(storage, RDBStorage):
        study.add_trials(trials)
        return
    with _create_scoped_session(storage.scoped_session) as session:
        # As in Optuna: servers keep others from adding trials meanwhile by this lock, SQLite by the
        # first write.
        models.StudyModel.find_or_raise_by_id(study._study_id, session, for_update=True)
        rows = [
            models.TrialModel(
                study_id=study._study_id,
                number=None,
                state=trial.state,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
            )
            for trial in trials
        ]
        session.add_all(rows)
        session.flush()
        first = rows[0].count_past_trials(session)
        ids = [row.trial_id for row in rows]
        session.execute(
            update(models.TrialModel),
            [{"trial_id": id_, "number": first + i} for i, id_ in enumerate(ids)],
        )
        tables: dict[type, list[dict[str, object]]] = {
            models.TrialParamModel: [
                {
                    "trial_id": id_,
                    "param_name": name,
                    "param_value": trial.distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(trial.distributions[name]),
                }
                for id_, trial in zip(ids, trials)
                for name, value in trial.params.items()
            ],
            models.TrialValueModel: [
                {
                    "trial_id": id_,
                    "objective": 0,
                    "value": trial.value,
                    "value_type": models.TrialValueModel.TrialValueType.FINITE,
                }
                for id_, trial in zip(ids, trials)
                if trial.values is not None
            ],
            models.TrialUserAttributeModel: [
                {"trial_id": id_, "key": key, "value_json": json.dumps(value)}
                for id_, trial in zip(ids, trials)
                for key, value in trial.user_attrs.items()
            ],
            models.TrialSystemAttributeModel: [
                {"trial_id": id_, "key": key, "value_json": json.dumps(value)}
                for id_, trial in zip(ids, trials)
                for key, value in trial.system_attrs.items()
            ],
        }
        for table, values in tables.items():
            if values:
                session.execute(insert(table), values)


def add_study_attrs(
    study: optuna.Study,
    storage: optuna.storages.BaseStorage,
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Add groups of system attributes to a study, but none of which it has an attribute already.

    Args:
        study: Where they go.
        storage: The one that the study was opened with, or the study's own.
        groups: Values that JSON holds, by name.
    """
    if isinstance(storage, _CachedStorage):
        storage = storage._backend
    if not isinstance(storage, RDBStorage):
        for key, value in _new(groups, storage.get_study_system_attrs(study._study_id)):
            storage.set_study_system_attr(study._study_id, key, value)
        return
    table = models.StudySystemAttributeModel
    keys = [key for group in groups for key in group]
    asked = select(table.key).where(table.study_id == study._study_id, table.key.in_(keys))

    def write(ask: bool) -> None:
        with _create_scoped_session(storage.scoped_session) as session:
            names: list[str] = list(session.scalars(asked)) if ask else []
            rows = [
                {"study_id": study._study_id, "key": key, "value_json": json.dumps(value)}
                for key, value in _new(groups, names)
            ]
            if rows:  # in one statement: psycopg complains in the log of one of many that fails
                session.execute(insert(table).values(rows))

    # There is hardly ever one, so that asking first would be a statement for nothing. Each time that
    # it fails afterwards, somebody else was faster with one group at least.
    for ask in (False, *(True for _ in groups)):
        try:
            return write(ask)
        except IntegrityError as error:
            refused = error
    raise refused


def _new(groups: Sequence[Mapping[str, Any]], names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    there = set(names)
    return (item for group in groups if there.isdisjoint(group) for item in group.items())
