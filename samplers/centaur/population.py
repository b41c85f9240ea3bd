"""Which trials CMA-ES is told as a generation, and as what.

CmaEsSampler tells the first lambda COMPLETE trials of a generation, whoever proposed them and
whether they failed or not. With foreign points and failures among them that harms it: failures
become parents when fewer than mu trials succeed, and a far point that happens to be good moves the
mean by many standard deviations. So here:

- A failure ranks behind every success, whatever value the objective returned for it, and is never
  a parent: while fewer than mu trials of a generation succeeded, it is not closed, up to
  ``PATIENCE`` populations; then the missing parents are told as the mean itself, a step of zero.
  A recombination of fewer parents with their own weights makes a shorter step, as it should.
- A failed trial of the language model is left out. It says where the model went wrong, not
  where CMA-ES's own distribution does.
- Foreign points (the model's, and those that somebody enqueued in part) are clipped.

A generation without failures and foreign points is told as CmaEsSampler tells it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
import sys
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import TrialState

from .._llm.history import is_failure
from .._llm.record import LLM
from .state import clip_steps
from .state import limit_mean_step


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .state import CmaState
    from .state import UnitCube

# A generation is closed with fewer than mu successes once this many populations were evaluated.
PATIENCE = 2
# What a failure, and a parent that is missing, are told as: finite, behind every real value.
_FAILED = sys.float_info.max
_MISSING = sys.float_info.max / 2


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


@dataclass(frozen=True)
class Generation:
    """The trials of the generation that is being evaluated.

    Attributes:
        carrier: The newest trial that an optimizer is stored on; ``None`` in generation 0.
        members: Finished trials that were sampled in this generation, by number.
    """

    carrier: FrozenTrial | None
    members: list[FrozenTrial]


def current_generation(
    trials: Sequence[FrozenTrial], *, generation_key: str, optimizer_key: str
) -> Generation:
    """Find the generation that is being evaluated.

    Args:
        trials: All trials of the study, by number.
        generation_key: System attribute that a trial's generation is stored as.
        optimizer_key: System attribute that an optimizer's pickle begins in.
    """
    carrier = next(
        (
            t
            for t in reversed(trials)
            if optimizer_key in t.system_attrs
            and generation_key in t.system_attrs
            and t.state.is_finished()
        ),
        None,
    )
    number = 0 if carrier is None else carrier.system_attrs[generation_key]
    members = [
        t for t in trials if t.system_attrs.get(generation_key) == number and t.state.is_finished()
    ]
    return Generation(carrier, members)


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether a trial of a generation is something else than a sample of CMA-ES's."""
    # A trial that was enqueued with some of its values has CMA-ES's only in the others.
    return trial.user_attrs.get("source") == LLM or "fixed_params" in trial.system_attrs


def population(
    successes: Sequence[FrozenTrial],
    members: Sequence[FrozenTrial],
    *,
    size: int,
    direction: StudyDirection,
    cube: UnitCube,
    state: Callable[[], CmaState],
) -> list[FrozenTrial]:
    """The trials to tell as one generation, ``[]`` if it is not due.

    Args:
        successes: Members that did not fail, with the value that CMA-ES is to learn.
        members: All finished trials of the generation.
        size: Population size, lambda.
        direction: The study's.
        cube: The numerical search space.
        state: Gives CMA-ES's state; called only if it is needed.

    Returns:
        ``size`` trials; where something else is told than what is stored, they are copies.
    """
    n_parents = size // 2
    retried = {t.system_attrs.get("failed_trial") for t in members}
    failures = [
        t
        for t in members
        if is_failure(t)
        and t.user_attrs.get("source") != LLM
        and t.number not in retried
        and all(name in t.params for name in cube.space)
    ]
    good = list(successes[:size])
    missing = max(0, n_parents - len(good))
    evaluated = len(good) + len(failures)
    if evaluated < size or (missing and (not good or evaluated < PATIENCE * size)):
        return []

    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    bad = failures[: size - len(good) - missing]
    foreign = np.array([is_foreign(t) for t in good + bad])
    if not missing and not foreign.any():
        return good + [_told(t, sign * _FAILED) for t in bad]

    now = state()
    if len(now.mean) != len(cube.space):
        return []  # The search space changed, and CmaEsSampler stops.
    good.sort(key=lambda t: (sign * t.values[0], t.number))
    trials = good + bad
    foreign = np.array([is_foreign(t) for t in trials])
    x = np.array([_point(t, cube) for t in trials])
    x = np.where(foreign[:, None], clip_steps(now, x), x)
    n_good = min(len(good), n_parents)
    if foreign[:n_good].any():
        parents = np.vstack([x[:n_good], np.tile(now.mean, (n_parents - n_good, 1))])
        x[:n_good] = limit_mean_step(now, parents)[:n_good]
    values = [t.values[0] for t in good] + [sign * _FAILED] * len(bad)
    told = [_told(t, value, cube, x_i) for t, value, x_i in zip(trials, values, x)]
    return told + [_told(good[0], sign * _MISSING, cube, now.mean) for _ in range(missing)]


def _point(trial: FrozenTrial, cube: UnitCube) -> np.ndarray:
    """The point that CMA-ES learns for a trial, (n,)."""
    if "x_for_tell" in trial.system_attrs:  # CMA-ES with margin
        return np.array(trial.system_attrs["x_for_tell"])
    return cube.transform.transform(trial.params)


def _told(
    trial: FrozenTrial, value: float, cube: UnitCube | None = None, x: np.ndarray | None = None
) -> FrozenTrial:
    """A copy that CmaEsSampler reads as a COMPLETE trial with this value, and at x if given."""
    told = copy.copy(trial)
    told.state = TrialState.COMPLETE
    told.value = value
    if cube is not None and x is not None:
        told.params = {**trial.params, **cube.values(x)}
        told.system_attrs = {**trial.system_attrs, "x_for_tell": x.tolist()}
    return told


def anchor(trial: FrozenTrial, optimizer_key: str) -> FrozenTrial:
    """A copy that carries the trial's optimizer, if any, but is a member of no generation."""
    carried = copy.copy(trial)
    carried.state = TrialState.COMPLETE
    carried.system_attrs = {
        key: value for key, value in trial.system_attrs.items() if key.startswith(optimizer_key)
    }
    return carried
