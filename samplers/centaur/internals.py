"""The one place where Centaur uses what Optuna's CmaEsSampler keeps private.

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
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

    from .._trials.stored_cma import CheckedCmaEsSampler

# System attribute: the point that CMA-ES with margin learns for a trial, and not its parameters.
POINT_TO_TELL = "x_for_tell"


def store_constraints(
    function: Callable[[FrozenTrial], Sequence[float]],
    study: Study,
    trial: FrozenTrial,
    state: TrialState,
) -> None:
    """Compute a finished trial's constraints as Optuna's samplers do, and store them."""
    _process_constraints_after_trial(function, study, trial, state)


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
    """The attributes that a CmaEsSampler stores on trials: its optimizer and their generation.

    Args:
        sampler: The sampler, whose options the names of the attributes depend on.
    """

    def __init__(self, sampler: CheckedCmaEsSampler) -> None:
        self._sampler = sampler

    def learnable(self, study: Study) -> list[FrozenTrial]:
        """Return the trials that CmaEsSampler learns: COMPLETE ones, and on request pruned ones."""
        return self._sampler._get_trials(study)

    def generation(self, trial: FrozenTrial) -> int | None:
        """Return the generation that a trial was sampled in, ``None`` if it has none."""
        number = trial.system_attrs.get(self._sampler._attr_key_generation)
        return number if isinstance(number, int) else None

    def has_optimizer(self, trial: FrozenTrial) -> bool:
        """Whether an optimizer is stored on a trial; its pickle comes in pieces from 0 on."""
        return f"{self._sampler._attr_key_optimizer}:0" in trial.system_attrs

    def is_sound(self, trial: FrozenTrial) -> bool:
        """Whether the optimizer stored on a trial is one that ``cmaes`` may have stored."""
        return self._sampler._restore_optimizer([trial]) is not None

    def with_generation(self, trial: FrozenTrial, number: int) -> FrozenTrial:
        """Return a copy of a trial, as one that was sampled in the generation of this number."""
        moved = copy.copy(trial)
        moved.system_attrs = {**trial.system_attrs, self._sampler._attr_key_generation: number}
        return moved

    def optimizer_alone(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a COMPLETE copy with the trial's optimizer, if any, and of no generation."""
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
        """Return the ``cmaes`` optimizer stored on a trial, else one that has learned nothing."""
        stored = None if trial is None else self._sampler._restore_optimizer([trial])
        return self._sampler._init_optimizer(transform, direction) if stored is None else stored
