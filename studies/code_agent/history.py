"""The history of a code study: which scripts were kept, computed from the stored trials alone.

The rule is hill climbing. Finished trials are judged in the order in which they finished, but none
before the one that it was made from, whatever the clocks said. One is *kept* if its value is better
than the best one's by more than ``min_gain``, and *reverted* otherwise. Half of that is enough for
other values of the constants, which make no script longer.
A change that trained for longer than the others is not kept either (*overtime*), nor one whose gain
no edit is expected to make (*doubted*), before it was trained again with another seed: then the
value of that training is judged in the place of its own. The best is at
first the mean of the baselines that have the script's own seed, as edits have; the standard deviation
of all, most of them with other seeds, tells what a run's value is worth. Nothing of this is stored: a resumed run and every worker compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
import math
import re
import statistics
from typing import Any

from optuna.trial import FrozenTrial

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from samplers._trials.internals import first_number
from samplers._trials.internals import interrupted_trials
from studies.budget import is_evaluated
from studies.budget import is_ok
from studies.facts import best_trial
from studies.facts import REPEATS
from studies.methods import CODE_AGENT
from studies.printable import decimals


# User attribute ``source`` of a trial.
BASELINE = "startup"
PROPOSAL = "llm"
TUNER = "tuner"
AGAIN = "again"  # of the second training of a doubted trial, which names that one by `REPEATS`
# `train_seed` of such a trial; those of repeated baselines are smaller by their places, those of
# `revalidate` larger, so that nothing is repeated.
AGAIN_SEED = 1000
# A change must gain this many standard deviations of a repeated baseline to be kept.
GAIN_IN_SD = 2.0

# It must not train for longer than the longest baseline by this factor and these seconds (a pass of
# a larger model ends a little later).
_MOST_TIME, _LEEWAY_SECONDS = 1.25, 0.5

# A gain is doubted that is larger than this part of the best value, and than so many times the largest
# gain of the study that was believed. Forged values were far beyond that (val_bpb 3.1 to 0.8, and
# to 0.0003), honest edits of a working script some percent, and a script that did not work yet shows
# by its first gains how far they go. A doubt costs one training.
_MOST_GAIN, _MORE_THAN_BEFORE = 0.25, 2.0

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
DOUBTED = "doubted"
REJECTED = "rejected"


@dataclass(frozen=True)
class Step:
    """One finished trial of a code study.

    Attributes:
        trial: The trial.
        outcome: ``baseline``, ``kept``, ``reverted``, ``overtime``, ``doubted`` until it was measured
            again, or the trial's status if it isn't ok.
        best_before: Value to beat when it finished; None before the baselines have one.
        gain: By how much it was better than that, in the metric's unit; 0 without a value.
        again: Its second training, if its gain was doubted and that has finished.
    """

    trial: FrozenTrial
    outcome: str
    best_before: float | None
    gain: float = 0.0
    again: FrozenTrial | None = None

    @property
    def value(self) -> float | None:
        """The value that counts; None for a failure, and for a gain that is doubted.

        Of a trial that was trained again it is what that training came to.
        """
        if self.outcome == DOUBTED:
            return None
        measured = self.again or self.trial
        return measured.value if is_ok(measured) else None

    @property
    def counted(self) -> FrozenTrial:
        """The trial, with the value of its second training if that is the one that counts."""
        if self.again is None or self.value is None:
            return self.trial
        trial = copy(self.trial)
        trial.value = self.value
        return trial

    @property
    def was_doubted(self) -> bool:
        """Whether its gain was too large to be believed at once."""
        return self.again is not None or self.outcome == DOUBTED

    @property
    def reason(self) -> str:
        """Why it failed, or why its gain was doubted and what came of that; else ``""``."""
        if not self.was_doubted:
            return str(self.trial.user_attrs.get("reason", ""))
        came = decimals(self.trial.values[0])
        doubt = f"came to {came}, a gain too large to be believed at once"
        if self.again is None:
            return f"{doubt}: to be trained again with another seed"
        what = f"{doubt}; trained again (trial {self.again.number})"
        if not is_ok(self.again):
            return f"{what} it failed: {self.again.user_attrs.get('status', 'crash')}"
        held = ", and is kept: read this change" if self.outcome == KEPT else ""
        return f"{what} it came to {decimals(self.again.values[0])}{held}"


@dataclass(frozen=True)
class CodeHistory:
    """A code study so far.

    Attributes:
        steps: Finished trials in the order in which they were decided: when they finished, or when
            their second training did, which has no step of its own.
        pending: Proposals that wait or run.
        best: The trial whose script the next proposal edits, with the value that counts; None
            without a measured baseline.
        best_value: Its value (that of `baseline` for a baseline).
        noise: Standard deviation of all baselines' values; None with fewer than two.
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

    @property
    def baseline(self) -> float | None:
        """Value of the unedited script, which is what edits are compared with; None without one."""
        return _baseline([s.trial for s in self.steps if s.outcome == "baseline"])

    @property
    def is_noise_unknown(self) -> bool:
        """Whether edits are kept for any gain, for the baselines, which are done, are all alike."""
        is_begun = len(self.proposals) + len(self.tuned) + len(self.pending) > 0
        return is_begun and self.noise == 0 and self.min_gain == 0

    @property
    def incumbents(self) -> list[Step]:
        """The steps that were the best, one after the other."""
        measured = [s for s in self.steps if s.outcome == "baseline"]
        first = min(measured, key=lambda s: _own_first(s.trial), default=None)
        kept = [s for s in self.steps if s.outcome == KEPT]
        return kept if first is None else [first, *kept]

    @property
    def doubted(self) -> list[FrozenTrial]:
        """Trials that must be trained again before they can be kept."""
        return [s.trial for s in self.steps if s.outcome == DOUBTED and s.again is None]

    def lineage(self) -> list[FrozenTrial]:
        """Return the best trial and what it was made from, back to the baseline, oldest first."""
        by_number: dict[int | None, FrozenTrial] = {
            first_number(step.trial): step.counted for step in self.steps
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


def _has_other_seed(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("train_seed") is not None


def _own_first(trial: FrozenTrial) -> tuple[bool, int]:
    """Order baselines: the one that edits are compared with may be the last, after a kill."""
    return _has_other_seed(trial), trial.number


def _baseline(baselines: Sequence[FrozenTrial]) -> float | None:
    """Return the mean of baselines' values with the script's own seed; without one, of all."""
    own = [t for t in baselines if not _has_other_seed(t)]
    # Not `fmean`, whose last digit may be such that a value gains on the mean of others like it.
    return statistics.mean(t.values[0] for t in own or baselines) if baselines else None


def is_tuned(trial: FrozenTrial) -> bool:
    """Return whether the trial runs a script with other constants, chosen by the tuner."""
    return trial.user_attrs.get("source") == TUNER


def is_again(trial: FrozenTrial) -> bool:
    """Return whether the trial trains a doubted one again."""
    return trial.user_attrs.get("source") == AGAIN


def history_of(
    trials: Sequence[FrozenTrial], metric: Metric, attributes: Mapping[str, Any]
) -> CodeHistory | None:
    """Return the history of a study with these user attributes; None if it isn't the agent's own.

    An imported one is not, whatever its method is called: its trials don't say what was kept.
    """
    if attributes.get("method") != CODE_AGENT or "imported_from" in attributes:
        return None
    return read_history(trials, attributes.get("min_gain"), metric)


def kept_first(
    ranked: Sequence[FrozenTrial],
    trials: Sequence[FrozenTrial],
    metric: Metric,
    attributes: Mapping[str, Any],
) -> list[FrozenTrial]:
    """Put what the agent kept last before the other successes of a code study.

    One of them may have a better value by noise alone. Those that trained for longer, or whose gain
    is doubted, are left out, and so are second trainings, whose values their trials have instead, and
    baselines with other seeds, to whose luck they may owe their values.
    Other studies' trials stay as they are.

    Args:
        ranked: The study's successful trials, the best value first.
        trials: All of its trials.
        metric: Its metric.
        attributes: Its user attributes.
    """
    history = history_of(trials, metric, attributes)
    if history is None:
        return list(ranked)
    steps = {step.trial.number: step for step in history.steps}
    out = {n for n, step in steps.items() if step.outcome in (OVERTIME, DOUBTED)}
    best = history.best
    out |= {t.number for t in trials if is_again(t) or (is_baseline(t) and _has_other_seed(t))}
    return sorted(
        (
            steps[t.number].counted if t.number in steps else t
            for t in ranked
            if t.number not in out or (best is not None and t.number == best.number)
        ),
        key=lambda t: (
            best is None or t.number != best.number,
            metric.cost(t.values[0]),
            t.number,
        ),
    )


def best_of(
    trials: Sequence[FrozenTrial], metric: Metric, attributes: Mapping[str, Any]
) -> FrozenTrial | None:
    """Return the best trial of a study with the value that counts, see `kept_first`; None if none
    has succeeded.
    """
    history = history_of(trials, metric, attributes)
    return best_trial(trials, metric) if history is None else history.best


def doubted_steps(
    trials: Sequence[FrozenTrial], metric: Metric, attributes: Mapping[str, Any]
) -> dict[int, Step]:
    """Return the steps of a study whose gains were doubted at first, by their trials' numbers."""
    history = history_of(trials, metric, attributes)
    steps = () if history is None else history.steps
    return {step.trial.number: step for step in steps if step.was_doubted}


def crashed_at_once(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the model's latest change if a mistake in it ended the script before it trained.

    Such a change goes back to the model once: what it replies is run in the place of that trial,
    which counts no more. Scripts that report no progress can't be told from those that trained.
    """
    proposals = [t for t in _in_order(trials) if t.user_attrs.get("source") == PROPOSAL]
    latest = proposals[-1] if proposals else None
    if latest is None or latest.number in interrupted_trials(trials):
        return None
    if latest.user_attrs.get(MENDED):
        return None
    reports = any(t.intermediate_values for t in trials if is_baseline(t))
    is_crash = latest.user_attrs.get("status") == "crash" and not latest.intermediate_values
    mistake = _MISTAKE.match(str(latest.user_attrs.get("reason", "")))
    return latest if reports and is_crash and mistake else None


def _in_order(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the evaluated trials in the order in which they finished.

    Their times are local ones, which jump in the autumn night and may be those of machines with
    other clocks: what was made from another trial, or repeats it, has finished after it all the same,
    and what was made from a doubted one, which was kept by then, after its second training.
    """
    at: dict[int, datetime] = {}
    decided: dict[int | None, datetime] = {}  # by the number of a first attempt
    evaluated = sorted(filter(is_evaluated, trials), key=lambda t: t.number)
    firsts: dict[int | None, int | None] = {t.number: first_number(t) for t in evaluated}
    for trial in evaluated:
        attrs, first = trial.user_attrs, firsts[trial.number]
        doubted = firsts.get(attrs.get(REPEATS), first)
        earlier = {attrs.get("parent"), doubted, first} & decided.keys()
        own = trial.datetime_complete or datetime.max
        at[trial.number] = max([own, *(decided[number] for number in earlier)])
        decided[first] = decided[doubted] = at[trial.number]
    return sorted(evaluated, key=lambda t: at[t.number])  # those of one moment by number


def parent_number(trial: FrozenTrial) -> int | None:
    """Return the number of the trial that one was made from; None without an earlier one."""
    parent = trial.user_attrs.get("parent")
    return parent if parent is not None and 0 <= parent < first_number(trial) else None


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
    finished = [t for t in _in_order(trials) if t.number not in again]
    baselines = [t for t in finished if is_baseline(t) and is_ok(t)]
    values = [t.values[0] for t in baselines]
    noise = statistics.stdev(values) if len(values) > 1 else None
    if min_gain is None:
        min_gain = GAIN_IN_SD * (noise or 0.0)
    best = min(baselines, key=_own_first, default=None)
    best_value = _baseline(baselines)
    # What a script says itself isn't compared: it may lie, and it varies with other load.
    times = [t.user_attrs.get("measured_seconds", math.inf) for t in baselines]
    longest = _MOST_TIME * max(times, default=math.inf) + _LEEWAY_SECONDS
    steps: dict[int, Step] = {}
    believed = 0.0  # the largest gain so far
    for measured in finished:
        trial, second = measured, None
        if is_again(measured):
            doubted = steps.get(measured.user_attrs.get(REPEATS, -1))
            if doubted is None or doubted.outcome != DOUBTED:
                continue
            trial, second = doubted.trial, measured
        before = None if is_baseline(trial) else best_value
        gain, needed = 0.0, min_gain / 2 if is_tuned(trial) else min_gain
        if is_ok(measured) and measured.value is not None and before is not None:
            gain = metric.cost(before) - metric.cost(measured.value)
        most = max(_MOST_GAIN * abs(before or 0.0), _MORE_THAN_BEFORE * believed)
        if not is_ok(measured):
            failed = str(measured.user_attrs.get("status", "crash"))
            outcome = failed if second is None else DOUBTED
        elif is_baseline(trial):
            outcome = "baseline"
        elif measured.user_attrs.get("measured_seconds", 0.0) > longest:
            outcome = OVERTIME
        elif gain <= needed:
            outcome = REVERTED
        elif second is None and gain > most:
            outcome = DOUBTED
        else:
            outcome = KEPT
            believed = max(believed, gain)
        steps.pop(trial.number, None)  # a doubted one, which is decided only now
        step = steps[trial.number] = Step(trial, outcome, before, gain, second)
        if outcome == KEPT:
            best, best_value = step.counted, step.value
    pending = tuple(
        t for t in trials if not (t.state.is_finished() or is_baseline(t) or is_again(t))
    )
    return CodeHistory(tuple(steps.values()), pending, best, best_value, noise, min_gain, metric)
