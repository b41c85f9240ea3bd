"""What a study's trials say to a model: configurations, values, and which failed.

Notation:

    n        trials
    values   (n,), lower is better whatever the study's direction; NaN where there is none
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import TrialState

from .._trials.announced import values_so_far
from .._trials.history import finished_trials
from .._trials.history import is_failure
from .._trials.history import limited
from .._trials.history import number
from .._trials.history import sign_of
from .._trials.history import violation
from .._trials.internals import cached_trials


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials: those that finished, by number, and then those that run or are queued.

    Attributes:
        configurations: Parameters of each trial.
        values: What they came to, (n,): lower is better; NaN of one that failed, was pruned before it
            reported anything, or is running.
        failed: Whether they failed, or violate a constraint that is not in ``constraints``, (n,).
        running: Whether they have not finished, (n,).
        constraints: Those that tell more than yes or no, above 0 where they are violated, (n, k). NaN
            where they aren't known; k = 0 if nothing is violated, or everything, or all are marks.
        feasible: Whether they violate none of these, as far as is known, (n,).
    """

    configurations: list[dict[str, Any]]
    values: np.ndarray
    failed: np.ndarray
    running: np.ndarray
    constraints: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        return np.asarray(~(self.constraints > 0).any(axis=1))


def read_trials(study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> Trials:
    """The trials of a study without ``trial``, the one that is sampled.

    A trial that was pruned is at least as bad as the median of those that were not: it was stopped
    because it was worse than others at the same step, and may still have been about to improve.

    One without parameters, such as a reference value that was added, says nothing of a search space.

    As long as no trial satisfies the constraints, the value is by how much they are violated, and
    what violates them has not failed.
    """
    sign = sign_of(study.direction)
    finished = [t for t in finished_trials(study) if t.params]
    values = np.array([_value(t, sign) for t in finished])
    failed = np.array([is_failure(t) for t in finished], dtype=bool)
    violations = np.array([violation(t) for t in finished])
    constraints = np.empty((len(finished), 0))
    succeeded = np.isfinite(values) & ~failed
    if (succeeded & (violations > 0)).any():
        if (succeeded & (violations == 0)).any():
            constraints = _constraints(finished, failed)
            failed |= (violations > 0) & ~(constraints > 0).any(axis=1)
        else:
            values = np.where(np.isfinite(values), violations, math.nan)
    values[failed] = math.nan
    pruned = np.array([t.state == TrialState.PRUNED for t in finished], dtype=bool)
    completed = values[~pruned & ~np.isnan(values) & ~(constraints > 0).any(axis=1)]
    if len(completed):
        values[pruned] = np.maximum(values[pruned], np.median(completed))

    others = [c for c in unfinished(cached_trials(study), trial, space) if c]
    return Trials(
        configurations=[t.params for t in finished] + others,
        values=np.concatenate([values, np.full(len(others), math.nan)]),
        failed=np.concatenate([failed, np.zeros(len(others), dtype=bool)]),
        running=np.arange(len(finished) + len(others)) >= len(finished),
        constraints=np.concatenate(
            [constraints, np.full((len(others), constraints.shape[1]), math.nan)]
        ),
    )


def _constraints(trials: Sequence[FrozenTrial], failed: np.ndarray) -> np.ndarray:
    """Those constraints of n trials that have more than two values, (n, k); NaN of what failed.

    Two are a mark, such as that of a training that failed.
    """
    of_trials = [t.constraints for t in trials]  # Optuna makes a trial's anew at each look
    names = sorted({name for constraints in of_trials for name in constraints})
    rows = [[number(constraints.get(name)) for name in names] for constraints in of_trials]
    found = np.array(rows, dtype=float)
    found[failed | ~np.isfinite(found).all(axis=1)] = math.nan
    told = found[~np.isnan(found).any(axis=1)]
    return found[:, [len(np.unique(column)) > 2 for column in told.T]]


def _value(trial: FrozenTrial, sign: float) -> float:
    """Lower is better; NaN if there is none."""
    if trial.state == TrialState.COMPLETE:
        value = sign * trial.values[0]
    elif trial.state == TrialState.PRUNED and trial.last_step is not None:
        value = sign * trial.intermediate_values[trial.last_step]
    else:
        return math.nan
    return limited(value) if math.isfinite(value) else math.nan


def unfinished(
    trials: Sequence[FrozenTrial], sampled: FrozenTrial, space: Mapping[str, BaseDistribution]
) -> list[dict[str, Any]]:
    """What is known of the parameters of trials that run or are queued, besides ``sampled``."""
    return [
        values_so_far(t, space)
        for t in trials
        if not t.state.is_finished() and t.number != sampled.number
    ]
