"""The value that stands for a failed evaluation, and the mark that makes it infeasible.

A number that is chosen beforehand is wrong for some metric: 100.0, which the paper's protocol has
for bits per byte, is better than any success where a loss is measured in thousands, and a sampler
then seeks what fails. So by default the study's own successes say what is bad: see `behind`.

Until a trial has succeeded there is no scale, and nothing stands for a failure: the objective
returns NaN, of which Optuna makes the state FAIL. A value is never changed afterwards, so a later
success can still be worse than it; therefore the trial is also marked as infeasible, which Optuna's
``best_trial``, its TPE and GP samplers and its dashboard heed. CMA-ES, which doesn't, compares
values of one generation only.

Several workers need not agree: each failure is behind all successes that had finished when it
was scored.
"""

from __future__ import annotations

from collections.abc import Iterable
import math
import sys
from typing import Literal
from typing import Union

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState


FailureValue = Union[float, Literal["worst"], None]
"""``"worst"``: see `behind`. A number: always that. None: `TrialFailed` is raised."""

# The user attribute ``status`` of a trial that failed; anything else is another program's own.
CLASSES = ("oom", "nan", "timeout", "crash", "killed", "no-metric", "rejected", "unknown")
INFEASIBLE = "infeasible"  # the same of a trial that has a value, but violates a constraint

# Its ``status`` after Ctrl-C, which is no failure: it says nothing of the parameters.
INTERRUPTED = "interrupted"

# Of a value that counts. Squares and sums of those up to it are finite; what is beyond it says, as
# an infinite one does, that a training diverged.
_LARGEST = 1e100

WORST: Literal["worst"] = "worst"
PAPER = 100.0
"""The failure value of the paper's protocol, and of studies that don't say which they have."""

# The system attribute in which Optuna keeps constraints without names. `Trial.set_constraint`
# writes one attribute for each name, of which optuna-dashboard knows nothing yet.
_CONSTRAINTS = "constraints"


def is_measured(value: float) -> bool:
    """Return whether a value counts as a measurement: finite, and no absurd one."""
    return -_LARGEST <= value <= _LARGEST


class TrialFailed(RuntimeError):
    """A failed evaluation, raised instead of the failure value if there is none.

    Attributes:
        status: The class of the failure, as in the trial's attribute.
        reason: One line.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


def score(
    trial: optuna.trial.BaseTrial,
    status: str,
    reason: str,
    value: float | None,
    failure_value: FailureValue,
) -> float:
    """Return the value of a trial: the measured one if it is ok, else what stands for it.

    That is NaN if the failure value is ``"worst"`` and no trial of the study has succeeded yet.

    Raises:
        TrialFailed: If it failed and there is no failure value.
    """
    if status == "ok":
        assert value is not None
        return value
    if failure_value is None:
        raise TrialFailed(status, reason)
    if failure_value != WORST:
        return float(failure_value)
    if not isinstance(trial, optuna.Trial):  # a FixedTrial has no study to compare with
        return math.nan
    study = trial.study
    others = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    successes = [t.values[0] for t in others if t.user_attrs.get("status") not in CLASSES]
    stands = behind(successes, study.direction)
    return math.nan if stands is None else stands


def behind(successes: Iterable[float], direction: StudyDirection) -> float | None:
    """Return a value that is worse than all of these, by as much as they differ.

    Where they don't differ, it is worse by their absolute value, or by 1 if that is 0: with one
    success of 0.9 to be maximized it is 0, with one of 2,600 to be minimized 5,200.

    Returns:
        A finite value; ``None`` without any finite success.
    """
    values = [value for value in successes if math.isfinite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    # Of halves, since two floats may be further apart than a float is large.
    spread = 2 * min(high / 2 - low / 2, sys.float_info.max / 2) or abs(low) or 1.0
    value = low - spread if direction == StudyDirection.MAXIMIZE else high + spread
    return min(max(value, -sys.float_info.max), sys.float_info.max)


def violation(status: str, failure_value: FailureValue) -> float | None:
    """Return the constraint of an evaluated trial: above 0 if it failed.

    ``None`` is for none: a failure value of one's own is the only thing that tells of failures
    then, as in the paper, and in studies that were begun so.
    """
    if failure_value != WORST:
        return None
    return -1.0 if status == "ok" else 1.0


def store_constraint(storage: BaseStorage, trial_id: int, constraint: float | None) -> None:
    """Store what `violation` returned for a running trial.

    Every trial gets it, failed or not: some samplers want the same constraints of all.
    """
    if constraint is not None:
        storage.set_trial_system_attr(trial_id, _CONSTRAINTS, [constraint])
