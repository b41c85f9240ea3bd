"""The history of a code study: which scripts were kept, computed from the stored trials alone.

The rule is hill climbing. Finished trials are judged in the order in which they finished; one
is *kept* if its value is better than the best one's by more than ``min_gain``, and *reverted*
otherwise. Half of that is enough for other values of the constants, which make no script longer.
A change that trained for longer than the others is not kept either (*overtime*). The best is at
first the mean of the repeated baselines, whose standard deviation tells what a run's value is
worth. Nothing of this is stored: a resumed run and every worker compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
import math
import re
import statistics

from optuna.trial import FrozenTrial

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from samplers._trials.internals import interrupted_trials
from studies.budget import is_evaluated
from studies.budget import is_ok


# User attribute ``source`` of a trial.
BASELINE = "startup"
PROPOSAL = "llm"
TUNER = "tuner"
# A change must gain this many standard deviations of a repeated baseline to be kept.
GAIN_IN_SD = 2.0

# It must not train for longer than the longest baseline by this factor and these seconds (a pass of
# a larger model ends a little later).
_MOST_TIME, _LEEWAY_SECONDS = 1.25, 0.5

# User attribute of a trial that was made of one that had crashed at once.
MENDED = "mended"
# Exceptions that say more about the code than about where it runs, as an OSError does. PyTorch's
# errors of shapes are RuntimeErrors.
_MISTAKE = re.compile(
    r"(\w+\.)*(Name|UnboundLocal|Attribute|Type|Value|Key|Index|Import|ModuleNotFound|Assertion"
    r"|Runtime|NotImplemented|ZeroDivision|Syntax|Indentation|Recursion)Error\b"
)

KEPT = "kept"
REVERTED = "reverted"
OVERTIME = "overtime"
REJECTED = "rejected"


@dataclass(frozen=True)
class Step:
    """One finished trial of a code study.

    Attributes:
        trial: The trial.
        outcome: ``baseline``, ``kept``, ``reverted``, or the trial's status if it isn't ok.
        best_before: Value to beat when it finished; None before the baselines have one.
        gain: By how much it was better than that, in the metric's unit; 0 without a value.
    """

    trial: FrozenTrial
    outcome: str
    best_before: float | None
    gain: float = 0.0

    @property
    def value(self) -> float | None:
        """The measured value; None for a failure."""
        return self.trial.value if is_ok(self.trial) else None


@dataclass(frozen=True)
class CodeHistory:
    """A code study so far.

    Attributes:
        steps: Finished trials in the order in which they finished.
        pending: Proposals that wait or run.
        best: The trial whose script the next proposal edits; None without a measured baseline.
        best_value: Its value (the mean of the baselines for a baseline).
        noise: Standard deviation of the baselines' values; None with fewer than two.
        min_gain: A change must improve the value by more than this to be kept.
        metric: Names the values.
    """

    steps: tuple[Step, ...]
    pending: tuple[FrozenTrial, ...]
    best: FrozenTrial | None
    best_value: float | None
    noise: float | None
    min_gain: float
    metric: Metric = METRIC

    @property
    def proposals(self) -> list[Step]:
        """What the language model proposed."""
        return [s for s in self.steps if not is_baseline(s.trial) and not is_tuned(s.trial)]

    @property
    def tuned(self) -> list[Step]:
        """What the tuner proposed."""
        return [step for step in self.steps if is_tuned(step.trial)]

    def cost(self, value: float) -> float:
        """Return a value so that lower is better."""
        return self.metric.cost(value)

    def lineage(self) -> list[FrozenTrial]:
        """Return the best trial and what it was made from, back to the baseline, oldest first."""
        by_number: dict[int | None, FrozenTrial] = {
            first_number(step.trial): step.trial for step in self.steps
        }
        line: list[FrozenTrial] = []
        trial = self.best
        while trial is not None:
            line.append(trial)
            trial = by_number.get(parent_number(trial))
        return line[::-1]


def is_baseline(trial: FrozenTrial) -> bool:
    """Return whether the trial runs the unedited script."""
    return trial.user_attrs.get("source") == BASELINE


def is_tuned(trial: FrozenTrial) -> bool:
    """Return whether the trial runs a script with other constants, chosen by the tuner."""
    return trial.user_attrs.get("source") == TUNER


def crashed_at_once(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the model's latest change if a mistake in it ended the script before it trained.

    Such a change goes back to the model once: what it replies is run in the place of that trial,
    which counts no more. Scripts that report no progress can't be told from those that trained.
    """
    proposals = [t for t in trials if t.user_attrs.get("source") == PROPOSAL]
    latest = max(filter(is_evaluated, proposals), key=_when, default=None)
    if latest is None or latest.number in interrupted_trials(trials):
        return None
    if latest.user_attrs.get(MENDED):
        return None
    reports = any(t.intermediate_values for t in trials if is_baseline(t))
    is_crash = latest.user_attrs.get("status") == "crash" and not latest.intermediate_values
    mistake = _MISTAKE.match(str(latest.user_attrs.get("reason", "")))
    return latest if reports and is_crash and mistake else None


def _when(trial: FrozenTrial) -> tuple[datetime, int]:
    return trial.datetime_complete or datetime.max, trial.number


def parent_number(trial: FrozenTrial) -> int | None:
    """Return the number of the trial that one was made from; None without an earlier one."""
    parent = trial.user_attrs.get("parent")
    return parent if parent is not None and 0 <= parent < first_number(trial) else None


def first_number(trial: FrozenTrial) -> int:
    """Return the number of a trial's first attempt, so that the model sees no interruption."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def read_history(
    trials: Sequence[FrozenTrial], min_gain: float | None = None, metric: Metric = METRIC
) -> CodeHistory:
    """Read the history of a code study from its trials.

    Args:
        trials: All of them, in any state.
        min_gain: See :class:`CodeHistory`; None makes it two standard deviations of the baselines
            (0 if there is only one).
        metric: Names the values.
    """
    again = interrupted_trials(trials)  # also those that crashed at once, and were mended
    finished = sorted((t for t in trials if is_evaluated(t) and t.number not in again), key=_when)
    baselines = [t for t in finished if is_baseline(t) and is_ok(t)]
    values = [t.value for t in baselines if t.value is not None]
    noise = statistics.stdev(values) if len(values) > 1 else None
    if min_gain is None:
        min_gain = GAIN_IN_SD * (noise or 0.0)
    best = min(baselines, key=lambda t: t.number, default=None)
    best_value = statistics.fmean(values) if values else None
    # What a script says itself isn't compared: it may lie, and it varies with other load.
    times = [t.user_attrs.get("measured_seconds", math.inf) for t in baselines]
    longest = _MOST_TIME * max(times, default=math.inf) + _LEEWAY_SECONDS
    steps = []
    for trial in finished:
        before = None if is_baseline(trial) else best_value
        gain, needed = 0.0, min_gain / 2 if is_tuned(trial) else min_gain
        if is_ok(trial) and trial.value is not None and before is not None:
            gain = metric.cost(before) - metric.cost(trial.value)
        if not is_ok(trial):
            outcome = str(trial.user_attrs.get("status", "crash"))
        elif is_baseline(trial):
            outcome = "baseline"
        elif trial.user_attrs.get("measured_seconds", 0.0) > longest:
            outcome = OVERTIME
        elif gain > needed:
            outcome, best, best_value = KEPT, trial, trial.value
        else:
            outcome = REVERTED
        steps.append(Step(trial, outcome, before, gain))
    pending = tuple(t for t in trials if not t.state.is_finished() and not is_baseline(t))
    return CodeHistory(tuple(steps), pending, best, best_value, noise, min_gain, metric)
