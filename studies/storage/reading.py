"""All trials of a study in a database, read without SQLAlchemy's objects.

Optuna makes an object of each row and reads each distribution twice, which takes a millisecond of
the processor a trial: seconds for the first look at a study of thousands. What comes out is equal.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from datetime import timezone
import json
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial
import sqlalchemy


def read_trials(storage: RDBStorage, study_id: int) -> list[FrozenTrial]:
    """Return a study's trials in the order of their identifiers.

    Raises:
        KeyError: If there is no such study.
        optuna.exceptions.StorageInternalError: If the database fails.
    """
    trials: Any = models.TrialModel.__table__
    with _create_scoped_session(storage.scoped_session) as session:
        models.StudyModel.find_or_raise_by_id(study_id, session)
        # States before what they promise: a trial that ends meanwhile has its values and still
        # runs here, and is read again; the other way round it would have ended without a value,
        # for good.
        columns = ("trial_id", "number", "state", "datetime_start", "datetime_complete")
        query = sqlalchemy.select(*(trials.c[name] for name in columns))
        query = query.where(trials.c.study_id == study_id).order_by(trials.c.trial_id)
        found = list(session.execute(query))

        def rows(model: Any, key: str, *names: str) -> defaultdict[int, list[Any]]:
            """The named columns of a table's rows, by their trial and in the order of their key."""
            table = model.__table__
            columns = (table.c[name] for name in ("trial_id", *names))
            query = sqlalchemy.select(*columns).join(trials, trials.c.trial_id == table.c.trial_id)
            query = query.where(trials.c.study_id == study_id).order_by(table.c[key])
            of = defaultdict(list)
            for trial_id, *values in session.execute(query).all():
                of[trial_id].append(values)
            return of

        value = models.TrialValueModel
        values = rows(value, "trial_value_id", "objective", "value", "value_type")
        params = rows(
            models.TrialParamModel, "param_id", "param_name", "param_value", "distribution_json"
        )
        user = rows(models.TrialUserAttributeModel, "trial_user_attribute_id", "key", "value_json")
        system = rows(
            models.TrialSystemAttributeModel, "trial_system_attribute_id", "key", "value_json"
        )
        step = models.TrialIntermediateValueModel
        steps = rows(
            step,
            "trial_intermediate_value_id",
            *("step", "intermediate_value", "intermediate_value_type"),
        )
    known: dict[str, BaseDistribution] = {}  # most trials have the same ones
    frozen = []
    for trial_id, number, state, start, complete in found:
        distributions, external = {}, {}
        for name, internal, text in params[trial_id]:
            if text not in known:
                known[text] = json_to_distribution(text)
            distributions[name] = known[text]
            external[name] = known[text].to_external_repr(internal)
        objectives = {
            objective: value.stored_repr_to_value(stored, kind)
            for objective, stored, kind in values[trial_id]
        }
        frozen.append(
            FrozenTrial(
                number=number,
                state=state,
                value=None,
                values=[objectives[i] for i in range(len(objectives))] or None,
                datetime_start=_local(start),
                datetime_complete=_local(complete),
                params=external,
                distributions=distributions,
                user_attrs={key: json.loads(text) for key, text in user[trial_id]},
                system_attrs={key: json.loads(text) for key, text in system[trial_id]},
                intermediate_values={
                    at: step.stored_repr_to_intermediate_value(stored, kind)
                    for at, stored, kind in steps[trial_id]
                },
                trial_id=trial_id,
            )
        )
    return frozen


def _local(stored: datetime | None) -> datetime | None:
    """What Optuna makes of a time, which databases hold in UTC: a local one that names no zone."""
    if stored is None:
        return None
    return stored.replace(tzinfo=timezone.utc).astimezone().replace(tzinfo=None)
