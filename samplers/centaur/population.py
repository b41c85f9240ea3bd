"""Which trials CMA-ES is told as a generation, and as what.

CmaEsSampler tells the first lambda COMPLETE trials of a generation, whoever proposed them and
whether they failed or not. With foreign points and failures among them that harms it: failures
become parents when fewer than mu trials succeed, and a far point that happens to be good moves the
mean by many standard deviations. So here:

- A failure ranks behind every success, whatever value the objective returned for it, and is never
  a parent: while fewer than mu trials of a generation succeeded, it is not closed, up to
  ``PATIENCE`` populations; then the missing parents are told as the mean itself, a step of zero.
  A recombination of fewer parents with their own weights makes a shorter step, as it should.
- A failed trial that another proposed is left out. It says where that one went wrong, not where
  CMA-ES's own distribution does.
- Foreign points (the model's, steps, and those that somebody enqueued in part) are clipped.
- Of several workers most still evaluate a trial when a generation is closed. CmaEsSampler drops
  what comes of those; here they count for the next generation, as foreign points. A new optimizer
  is used as soon as it is stored, and not only when the trial that it is stored on has finished.

A generation without failures, foreign points and late trials is told as CmaEsSampler tells it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
import sys
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import TrialState

from .._llm.record import LLM
from .._llm.record import source_of
from .._trials.history import is_failure
from .._trials.history import is_interrupted
from .._trials.history import sign_of
from .._trials.internals import cached_trials
from .._trials.internals import integers
from .._trials.internals import interrupted_before
from .._trials.internals import interrupted_trials
from .._trials.internals import is_enqueued
from .._trials.internals import number_without_repeats
from .internals import POINT_TO_TELL
from .screening import CMA_ES
from .state import clip_steps
from .state import limit_mean_step


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

    from .internals import CmaStore
    from .state import CmaState
    from .state import UnitCube

# A generation is closed with fewer than mu successes once this many populations were evaluated.
PATIENCE = 2
# System attribute beside an optimizer: the trials that may still count for a later generation.
LATE_KEY = "centaur:late"
# What a failure, and a parent that is missing, are told as: finite, behind every real value.
_FAILED = sys.float_info.max
_MISSING = sys.float_info.max / 2


@dataclass(frozen=True)
class Generation:
    """The generation that is being evaluated.

    Attributes:
        carrier: The trial that its optimizer is stored on; ``None`` in generation 0.
        members: Finished trials that count for it, by number. Of trials that were sampled in an
            earlier generation they are copies with this one's number.
        late: Numbers of the trials that were sampled in an earlier generation.
        running: Numbers of the trials that will count for it if they finish before it is closed,
            and of those that may turn out to: their samplers are still at work.
    """

    carrier: FrozenTrial | None
    members: list[FrozenTrial]
    late: frozenset[int]
    running: list[int]


def carriers(trials: Sequence[FrozenTrial], store: CmaStore) -> dict[int, FrozenTrial]:
    """Generation to the newest trial that its optimizer is stored on, the generations in order.

    CmaEsSampler writes a trial's generation after its optimizer, so that a trial with both has the
    whole of it, running or not. One that was queued again has copies of both, or of one and
    something newer of the other, and the trial that they come from has them too. The last of them
    is sound: CMA-ES goes on from the last optimizer that is.

    Args:
        trials: Trials of the study, by number.
        store: What CmaEsSampler stored on them.
    """
    found = {
        generation: t
        for t in trials
        if (generation := store.generation(t)) is not None
        and store.has_optimizer(t)
        and not interrupted_before(t)
    }
    found = dict(sorted(found.items()))
    while found and not store.is_sound(list(found.values())[-1]):
        found.popitem()
    return found


def current_generation(trials: Sequence[FrozenTrial], store: CmaStore) -> Generation:
    """Find the generation that is being evaluated; the arguments are those of `carriers`."""
    found = carriers(trials, store)
    number, carrier = list(found.items())[-1] if found else (0, None)
    expected = set() if carrier is None else set(integers(carrier.system_attrs.get(LATE_KEY)))
    interrupted = interrupted_trials(trials)
    members, late, running = [], set(), []
    for t in trials:
        sampled = store.generation(t)
        if t.number in interrupted or is_interrupted(t):
            continue
        if sampled is None:
            if t.state == TrialState.RUNNING:
                running.append(t.number)
            continue
        if sampled != number:
            if not expected.intersection((t.number, *interrupted_before(t))):
                continue
            late.add(t.number)
            t = store.with_generation(t, number)
        if t.state.is_finished():
            members.append(t)
        else:
            running.append(t.number)
    return Generation(carrier, members, frozenset(late), running)


def turn_of(study: Study, trial: FrozenTrial) -> int:
    """The number that says whose turn a trial is: a trial that repeats a killed one has its turn.

    Otherwise every turn of the model that was killed while the model was asked would become
    CMA-ES's, and the longer it takes to ask, the more are.
    """
    return number_without_repeats(trial, cached_trials(study))


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether a trial of a generation is something else than a sample of CMA-ES's."""
    # A trial that was enqueued with some of its values has CMA-ES's only in the others.
    return is_proposed_by_others(trial) or is_enqueued(trial)


def is_proposed_by_others(trial: FrozenTrial) -> bool:
    """Whether the language model, or whoever else makes proposals, proposed a trial."""
    proposer = trial.user_attrs.get("proposer", CMA_ES)
    return source_of(trial) == LLM or proposer != CMA_ES


def population(
    successes: Sequence[FrozenTrial],
    generation: Generation,
    *,
    size: int,
    direction: StudyDirection,
    cube: UnitCube,
    state: Callable[[], CmaState],
    failed: Callable[[FrozenTrial], bool] = is_failure,
) -> list[FrozenTrial]:
    """The trials to tell as one generation, ``[]`` if it is not due.

    Args:
        successes: Members that did not fail, with the value that CMA-ES is to learn.
        generation: The generation with all its members.
        size: Population size, lambda.
        direction: The study's.
        cube: The numerical search space.
        state: Gives CMA-ES's state; called only if it is needed.
        failed: Whether a trial failed.

    Returns:
        ``size`` trials; where something else is told than what is stored, they are copies.
    """
    n_parents = size // 2
    failures = [
        t
        for t in generation.members
        if failed(t)
        and not is_proposed_by_others(t)
        and all(name in t.params for name in cube.space)
    ]
    good = list(successes[:size])
    missing = max(0, n_parents - len(good))
    evaluated = len(good) + len(failures)
    if evaluated < size or (missing and (not good or evaluated < PATIENCE * size)):
        return []

    sign = sign_of(direction)
    bad = failures[: size - len(good) - missing]

    def foreign_among(trials: Sequence[FrozenTrial]) -> np.ndarray:
        return np.array([is_foreign(t) or t.number in generation.late for t in trials])

    # CMA-ES with margin reads nothing but the points.
    whole = not cube.with_margin or all(_has_point(t, cube) for t in good + bad)
    if whole and not missing and not foreign_among(good + bad).any():
        return good + [_told(t, sign * _FAILED) for t in bad]

    now = state()
    if len(now.mean) != len(cube.space):
        return []  # The search space changed, and CmaEsSampler stops.
    good.sort(key=lambda t: (sign * t.values[0], t.number))
    trials = good + bad
    foreign = foreign_among(trials)
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
    if _has_point(trial, cube):  # CMA-ES with margin
        return np.array(trial.system_attrs[POINT_TO_TELL])
    return cube.transform.transform(trial.params)


def _has_point(trial: FrozenTrial, cube: UnitCube) -> bool:
    """Whether a trial says what CMA-ES with margin learns for it, which anybody may have written."""
    told = trial.system_attrs.get(POINT_TO_TELL)
    return (
        isinstance(told, list)
        and len(told) == len(cube.space)
        and all(isinstance(x, (int, float)) and abs(x) <= sys.float_info.max for x in told)
    )


def _told(
    trial: FrozenTrial, value: float, cube: UnitCube | None = None, x: np.ndarray | None = None
) -> FrozenTrial:
    """A copy that CmaEsSampler reads as a COMPLETE trial with this value, and at x if given."""
    told = copy.copy(trial)
    told.state = TrialState.COMPLETE
    told.value = value
    if cube is not None and x is not None:
        told.params = {**trial.params, **cube.values(x)}
        told.system_attrs = {**trial.system_attrs, POINT_TO_TELL: x.tolist()}
    return told
