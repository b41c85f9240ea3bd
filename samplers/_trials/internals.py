"""The one place where the samplers read and write what Optuna keeps private.

A release of Optuna may change any of it, so the requirements allow no next major version, and the
tests of this module run on the installed one.
"""

from __future__ import annotations

import copy
from typing import Any
from typing import TYPE_CHECKING

# The map between numerical parameters and the cube that CmaEsSampler works in.
from optuna._transform import _SearchSpaceTransform as _SearchSpaceTransform
from optuna.samplers._base import _process_constraints_after_trial
from optuna.trial import TrialState


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Sequence

    from optuna.artifacts._protocol import ArtifactStore as ArtifactStore
    from optuna.samplers import CmaEsSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

# System attribute: the point that CMA-ES with margin learns for a trial, and not its parameters.
POINT_TO_TELL = "x_for_tell"

_FIXED_PARAMS = "fixed_params"
# Optuna's own function to read it warns that it is experimental.
_RETRY_HISTORY = "retry_history"


def cached_trials(study: Study) -> list[FrozenTrial]:
    """All trials by number, as Optuna first read them for the trial that is being sampled.

    Each reading takes a database seven statements. ``Study.get_trials`` reads them anew.
    """
    return study._get_trials(deepcopy=False, use_cache=True)


def storage_of(study: Study) -> BaseStorage:
    """The storage of a study, as Optuna's artifact functions want it."""
    return study._storage


def stored_trial(study: Study, trial: FrozenTrial) -> FrozenTrial:
    """A trial as the storage has it now."""
    return study._storage.get_trial(trial._trial_id)


def set_user_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Write a user attribute of a running trial; ``value`` must be JSON."""
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def set_system_attr(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Write a system attribute of a running trial, of which people see nothing."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def study_system_attrs(study: Study) -> dict[str, Any]:
    """The system attributes of a study, as the storage has them now."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_study_system_attr(study: Study, key: str, value: Any) -> None:
    """Write a system attribute of a study; ``value`` must be JSON."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    """The values that ``enqueue_trial`` decided for a trial; whatever is sampled, they win."""
    return dict(trial.system_attrs.get(_FIXED_PARAMS, {}))


def is_enqueued(trial: FrozenTrial) -> bool:
    """Whether ``enqueue_trial`` made a trial, with or without values."""
    return _FIXED_PARAMS in trial.system_attrs


def store_constraints(
    function: Callable[[FrozenTrial], Sequence[float]],
    study: Study,
    trial: FrozenTrial,
    state: TrialState,
) -> None:
    """Compute a finished trial's constraints as Optuna's samplers do, and store them."""
    _process_constraints_after_trial(function, study, trial, state)


def interrupted_before(trial: FrozenTrial) -> list[int]:
    """Numbers of the interrupted trials that this one repeats, the first one first, if any."""
    return list(trial.system_attrs.get(_RETRY_HISTORY, ()))


def interrupted_trials(trials: Iterable[FrozenTrial]) -> set[int]:
    """Numbers of the trials that others among ``trials`` repeat."""
    return {number for trial in trials for number in interrupted_before(trial)}


class StudyView:
    """A study in which a sampler sees the trials that it is given.

    Like the ``_BracketStudy`` that Optuna's HyperbandPruner passes to samplers. CmaEsSampler reads
    trials through ``_get_trials`` alone, which a test checks on the installed Optuna.
    """

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self._study = study
        self._trials = list(trials)

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return self._trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class CmaStore:
    """What a CmaEsSampler stores on trials: its optimizer and each trial's generation.

    Args:
        sampler: The sampler, whose options the names of the attributes depend on.
    """

    def __init__(self, sampler: CmaEsSampler) -> None:
        self._sampler = sampler

    def generation(self, trial: FrozenTrial) -> int | None:
        """The generation that a trial was sampled in, ``None`` if it has none."""
        number: int | None = trial.system_attrs.get(self._sampler._attr_key_generation)
        return number

    def has_optimizer(self, trial: FrozenTrial) -> bool:
        """Whether an optimizer is stored on a trial; its pickle comes in pieces from 0 on."""
        return f"{self._sampler._attr_key_optimizer}:0" in trial.system_attrs

    def with_generation(self, trial: FrozenTrial, number: int) -> FrozenTrial:
        """A copy of a trial that was sampled in the generation of this number."""
        moved = copy.copy(trial)
        moved.system_attrs = {**trial.system_attrs, self._sampler._attr_key_generation: number}
        return moved

    def optimizer_alone(self, trial: FrozenTrial) -> FrozenTrial:
        """A COMPLETE copy that has the trial's optimizer, if any, and is of no generation."""
        carried = copy.copy(trial)
        carried.state = TrialState.COMPLETE
        carried.system_attrs = {
            key: value
            for key, value in trial.system_attrs.items()
            if key.startswith(self._sampler._attr_key_optimizer)
        }
        return carried

    def optimizer(
        self,
        trial: FrozenTrial | None,
        transform: _SearchSpaceTransform,
        direction: StudyDirection,
    ) -> Any:
        """The ``cmaes`` optimizer stored on a trial, else one that has learned nothing."""
        stored = None if trial is None else self._sampler._restore_optimizer([trial])
        return self._sampler._init_optimizer(transform, direction) if stored is None else stored
