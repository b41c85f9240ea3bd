"""The one place where samplers use what Optuna keeps private.

A release of Optuna may change any of it, so the requirements allow no next major version, and the
tests of this module run on the installed one.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Container
    from collections.abc import Iterable

    from optuna.artifacts._protocol import ArtifactStore as ArtifactStore
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_FIXED_PARAMS = "fixed_params"
# Optuna's own function to read it warns that it is experimental.
_RETRY_HISTORY = "retry_history"
_FAILED_TRIAL = "failed_trial"


def cached_trials(study: Study) -> list[FrozenTrial]:
    """Return all trials by number, as Optuna first read them for the trial being sampled.

    Each reading takes a database seven statements. ``fresh_trials`` reads them anew.
    """
    return study._get_trials(deepcopy=False, use_cache=True)


def fresh_trials(study: Study) -> list[FrozenTrial]:
    """Return all trials by number, as the storage has them now.

    ``Study.get_trials`` has not all: with HyperbandPruner only those of the trial's own bracket.
    """
    return study._get_trials(deepcopy=False)


def drop_older_cache(study: Study, trial: FrozenTrial) -> None:
    """Have ``cached_trials`` read anew, unless that was done for this trial.

    Every sampler's first step. Optuna keeps the trials for each thread and lets go of them where
    ``ask`` and ``tell`` are called, which another thread than the one that suggests may do.
    """
    kept: Any = study._thread_local
    if getattr(kept, "sampled", None) != trial.number:
        kept.sampled, kept.cached_all_trials = trial.number, None


def storage_of(study: Study) -> BaseStorage:
    """Return the storage of a study, as Optuna's artifact functions want it."""
    return study._storage


def stored_trial(study: Study, trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as the storage has it now."""
    return study._storage.get_trial(trial._trial_id)


def set_user_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Write a user attribute of a running trial; ``value`` must be JSON."""
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def set_system_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Write a system attribute of a running trial, of which people see nothing."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def study_system_attrs(study: Study) -> dict[str, Any]:
    """Return the system attributes of a study, as the storage has them now."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_study_system_attr(study: Study, key: str, value: Any) -> None:
    """Write a system attribute of a study; ``value`` must be JSON."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def fixed_params(trial: FrozenTrial, names: Container[str] | None = None) -> dict[str, Any]:
    """Return the values that ``enqueue_trial`` gave a trial; whatever is sampled, they win.

    Of these ``names``, if any are given. NumPy's numbers, which a storage in memory keeps as they
    are, become Python's own.
    """
    fixed = trial.system_attrs.get(_FIXED_PARAMS, {})
    return {
        name: v.item() if hasattr(v, "item") else v
        for name, v in fixed.items()
        if names is None or name in names
    }


def is_enqueued(trial: FrozenTrial) -> bool:
    """Whether ``enqueue_trial`` made a trial, with or without values."""
    return _FIXED_PARAMS in trial.system_attrs


def repeating(number: int) -> dict[str, Any]:
    """Return the system attributes of a trial that is to be run instead of the one of this number.

    They are those of Optuna's own callback for trials that were killed.
    """
    return {_FAILED_TRIAL: number, _RETRY_HISTORY: [number]}


def interrupted_before(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the interrupted trials that this one repeats, the first one first."""
    return integers(trial.system_attrs.get(_RETRY_HISTORY))


def first_number(trial: FrozenTrial) -> int:
    """Return the number of a trial's first attempt, which is its own if it repeats none."""
    return [*interrupted_before(trial), trial.number][0]


def number_without_repeats(trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> int:
    """Return the number that a trial would have if none of ``trials`` had ever been killed.

    What repeats a killed one has that one's.
    """
    first = first_number(trial)
    return sum(t.number < first and not interrupted_before(t) for t in trials)


def integers(stored: Any) -> list[int]:
    """Return the integers of a stored list, which anybody may have written."""
    return [n for n in stored if isinstance(n, int)] if isinstance(stored, list) else []


def interrupted_trials(trials: Iterable[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that others among ``trials`` repeat."""
    return {number for trial in trials for number in interrupted_before(trial)}
