"""Other people's trials as trials of ours: their study, their moments, their attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from studies.errors import Misuse
from studies.importing.foreign import FAILURE_VALUE
from studies.importing.foreign import ForeignTrial
from studies.importing.space import fits
from studies.storage.open import check_name
from studies.study_note import COMMAND


KEY = "import:key"  # system attribute: which of a file's trials it is
# Trials without a time of their own end one after the other, from here on.
_EPOCH = datetime(2000, 1, 1)
_LONGEST_SECONDS = 100 * 366 * 86_400.0  # of all trials of a study together


def open_study(
    storage: BaseStorage,
    method: str,
    seed: int,
    file: str,
    trials: Sequence[ForeignTrial],
    metric: Metric,
    command: str | None,
) -> optuna.Study:
    """Open the study of a method and a seed, with what its trials agree in."""
    name = f"{method}-seed{seed}"
    study = optuna.create_study(
        storage=storage, study_name=name, direction=metric.direction, load_if_exists=True
    )
    check_name(study, name)
    attrs = study.user_attrs
    if "imported_from" not in attrs and (attrs or study.get_trials(deepcopy=False)):
        raise Misuse(
            f"study {study.study_name!r} of --storage is no import, and trials of other programs"
            " don't belong among its own; choose another --storage or a --prefix"
        )
    metric.name_in(study)
    stored = Metric.of(study)
    if (stored.name, stored.direction) != (metric.name, metric.direction):
        raise Misuse(
            f"study {study.study_name!r} of --storage has {stored.name} to {stored.direction}, not"
            f" {metric.name} to {metric.direction}; choose another --storage or a --prefix"
        )
    metadata: dict[str, Any] = {
        "imported_from": file,
        "method": method,
        "seed": seed,
        "version": version("optuna-autoresearch"),
        **({} if command is None else {COMMAND: command}),
    }
    ratios = {trial.llm_ratio for trial in trials}
    if len(ratios) == 1 and (ratio := ratios.pop()) is not None:
        metadata["llm_ratio"] = ratio
    for name, value in metadata.items():
        if name not in attrs:
            study.set_user_attr(name, value)
    return study


def moments_of(trials: Sequence[ForeignTrial], notes: Counter[str]) -> list[datetime]:
    """When the trials of a study ended, by the file if it says so of every one.

    Else they end one after the other, in the file's order: the order is what best-so-far curves
    need. Trials of one moment keep the file's order too.
    """
    moments = [trial.ended for trial in trials if trial.ended is not None]
    if len(moments) == len(trials):
        return moments
    if moments:
        notes["a study with times for some trials only: dates are made up"] += 1
    seconds = [max(trial.seconds, 0.001) for trial in trials]
    shorter = min(1.0, _LONGEST_SECONDS / sum(seconds)) if seconds else 1.0
    end, made_up = _EPOCH, []
    for each in seconds:
        end += timedelta(seconds=each * shorter)
        made_up.append(end)
    return made_up


def frozen_trial(
    trial: ForeignTrial,
    space: Mapping[str, BaseDistribution],
    ended: datetime,
    notes: Counter[str],
    metric: Metric,
) -> FrozenTrial:
    """Return a trial with the attributes that our own objective would have given it."""
    params: dict[str, Any] = {}
    for name, value in trial.params.items():
        if name not in space:
            continue
        distribution = space[name]
        if not fits(value, distribution):
            notes[f"{name}: a value left out that isn't in its range"] += 1
        elif isinstance(distribution, CategoricalDistribution):
            params[name] = value
        else:
            params[name] = (
                int(value) if isinstance(distribution, IntDistribution) else float(value)
            )
    attrs: dict[str, Any] = {
        "training_seconds": trial.seconds,
        "total_seconds": trial.seconds,
        "status": trial.status,
        "tid": trial.tid,
        **trial.attributes,
    }
    known = {"reason": trial.reason, "source": trial.source, "llm_model": trial.model}
    attrs |= {name: value for name, value in known.items() if value}
    value = trial.value
    if value is not None:
        attrs[metric.name] = value
    elif metric.name == METRIC.name:
        value = FAILURE_VALUE  # of another metric it may be a good one
    frozen = create_trial(
        state=TrialState.FAIL if value is None else TrialState.COMPLETE,
        value=value,
        params=params,
        distributions={name: space[name] for name in params},
        user_attrs=attrs,
        system_attrs={KEY: trial.key},
    )
    frozen.datetime_start = ended - timedelta(seconds=trial.seconds)
    frozen.datetime_complete = ended
    return frozen
