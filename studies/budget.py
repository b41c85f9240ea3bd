"""The budget of a study: a number of trials, a sum of training seconds, or both.

Everything is computed from the stored trials, so that a resumed run and several processes on one
storage agree. Trials are claimed in the order of their numbers, hence whether trial ``n`` may
start depends on the trials before it and on nothing else:

- *trials*: fewer than ``trials`` of them count. A trial that another one repeats does not count: it
  was killed or interrupted, or failed before the script was mended.
- *until*, *wall*: a moment, or a time from the study's first trial on, before the end of which the
  trial is expected to end.
- *seconds*: what the finished ones were charged, what the running ones are expected to
  cost, and what ``n`` itself is expected to cost, together fit. Trials are never shortened to
  fill the rest of a budget: they would not be comparable.

A successful trial is charged its training seconds (start-up, compilation and evaluation are free,
as in the paper), one that was pruned what it trained until then, and one that failed its whole run.
Asking a language model is free, unless the study charges for it (its user attribute ``charge_llm``):
then the seconds that its requests took are added. A killed trial left no record of its time and is charged nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from itertools import pairwise
from statistics import fmean
import time
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.failure import INFEASIBLE
from objective.failure import INTERRUPTED
from objective.worker import BEGAN
from objective.worker import WORKER
from samplers._trials.internals import interrupted_trials


# At the end of a run each of the best configurations is trained this many times again, but all that
# takes at most this share of the time, and of all trainings: one for every three trials.
FINAL_REPEATS = 2
FINAL_SHARE = 0.25
TRIALS_A_REPETITION = 3
# The next trial may take longer than all before it, and there is some work between trials.
SLACK = 1.1
_CLOCKS = timedelta(minutes=25)  # less is the clocks' or the workers' own
_OTHER_SECONDS = 60.0  # of a trial, beside its run and a language model's answers, at most


def is_evaluated(trial: FrozenTrial) -> bool:
    """Return whether the objective came to a verdict: a value, or a failure that it classified."""
    return trial.state.is_finished() and not is_interrupted(trial)


def is_interrupted(trial: FrozenTrial) -> bool:
    """Return whether the trial was stopped from outside: killed, or interrupted by the user.

    A moment before its end a trial may have been recorded as ok and yet not be COMPLETE.
    """
    status = trial.user_attrs.get("status", "ok")
    return trial.state == TrialState.FAIL and status in ("ok", INTERRUPTED)


def is_ok(trial: FrozenTrial) -> bool:
    """Return whether the trial ended with a measured value."""
    has_value = trial.values is not None  # of another program's trial, whatever it says of itself
    return has_value and is_evaluated(trial) and trial.user_attrs.get("status") == "ok"


def is_failed(trial: FrozenTrial) -> bool:
    """Return whether the evaluation failed; what was stopped as hopeless, or is infeasible, didn't."""
    is_other = trial.state == TrialState.PRUNED or trial.user_attrs.get("status") == INFEASIBLE
    return is_evaluated(trial) and not is_ok(trial) and not is_other


def charge(trial: FrozenTrial, llm: bool = False) -> float:
    """Return a trial's seconds of the budget, with those of the language model if ``llm``."""
    if not is_evaluated(trial):
        return 0.0
    attrs = trial.user_attrs
    trained = is_ok(trial) or trial.state == TrialState.PRUNED
    seconds = float(attrs.get("training_seconds" if trained else "total_seconds", 0.0))
    return seconds + float(attrs.get("llm_seconds", 0.0)) if llm else seconds


@dataclass(frozen=True)
class Budget:
    """The limits of a study; ``None`` is without limit.

    Attributes:
        trials: Evaluated trials in total, failures and earlier runs included.
        seconds: Training time of all trials together, the sum of their charges.
        train_seconds: Training time of a single trial, as far as it is known beforehand.
        charge_llm: Whether the language model's time is charged as well.
        until: When all is to be done, in seconds since 1970.
        wall: How many real seconds after the start of its first trial all is to be done.
        confirm: How many of the best configurations are trained again at the end. Time for that is
            kept of ``seconds``, ``until`` and ``wall``.
    """

    trials: int | None = None
    seconds: float | None = None
    train_seconds: float | None = None
    charge_llm: bool = False
    until: float | None = None
    wall: float | None = None
    confirm: int = 0

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Budget:
        """Read the budget from a study's user attributes; without limits if they have none."""
        return cls(
            metadata.get("budget_trials"),
            metadata.get("budget_seconds"),
            metadata.get("train_seconds"),
            bool(metadata.get("charge_llm")),
            metadata.get("budget_until"),
            metadata.get("budget_wall"),
            metadata.get("budget_confirm") or 0,
        )

    def metadata(self) -> dict[str, Any]:
        """Return the budget as user attributes of the study; a later command may extend it."""
        limits = {"budget_trials": self.trials, "budget_seconds": self.seconds}
        # Older studies have no word of these; `None` would be one.
        more = {"budget_until": self.until, "budget_wall": self.wall}
        return {**limits, **more, "budget_confirm": self.confirm or None}

    @property
    def is_limited(self) -> bool:
        """Whether there is an end to it."""
        limits = (self.trials, self.seconds, self.until, self.wall)
        return any(limit is not None for limit in limits)

    def deadline(self, trials: Sequence[FrozenTrial]) -> float | None:
        """Return when all is to be done, in seconds since 1970; ``None`` without such a limit."""
        ends = [] if self.until is None else [self.until]
        if self.wall is not None:
            ends.append(_began(trials) + self.wall)
        return min(ends, default=None)

    def charge(self, trial: FrozenTrial) -> float:
        """Return the seconds that a trial takes from this budget."""
        return charge(trial, self.charge_llm)

    def spent(self, trials: Sequence[FrozenTrial]) -> float:
        """Return the seconds that all trials took from it."""
        return sum(map(self.charge, trials))

    def expected_charge(self, trials: Sequence[FrozenTrial]) -> float:
        """Return the charge to expect of one more trial: the dearest success, or the planned time.

        A training ends with the step in which its time runs out, so that charges are a little
        above the plan.
        """
        return max([self.train_seconds or 0.0, *(self.charge(t) for t in trials if is_ok(t))])

    def expected_span(self, trials: Sequence[FrozenTrial]) -> float:
        """Return the real seconds to expect of one more trial, from its start to its end.

        Beside training these are start-up, evaluation and whatever else an earlier one took: that of
        the longest success and a little more, or the planned training as long as there is none.
        """
        longest = max((span(t) for t in trials if is_ok(t)), default=0.0)
        return max(self.train_seconds or 0.0, SLACK * longest)

    def kept(self, expected: float, total: float) -> float:
        """Return the seconds that are kept for trainings of the best at the end.

        Args:
            expected: Seconds of one training.
            total: Seconds of the whole run, of which the search has the larger part.
        """
        return min(self.confirm * FINAL_REPEATS * expected, total * FINAL_SHARE)

    def repetitions(
        self,
        trials: Sequence[FrozenTrial],
        best: Sequence[FrozenTrial],
        workers: int = 1,
        done: int = 0,
    ) -> int:
        """Return how many more trainings of the best configurations fit in at the end.

        At most `FINAL_REPEATS` of each, and one for every `TRIALS_A_REPETITION` trials, failed ones
        included, if it is their number that ends the study; of its time `FINAL_SHARE` was kept, and
        each may take as long as the longest of them took. ``done`` of them were made by an earlier
        command.
        """
        total = [len(best) * FINAL_REPEATS]
        if self.trials is not None:
            total.append(sum(map(is_evaluated, counted(trials))) // TRIALS_A_REPETITION)
        if self.seconds is not None and (expected := self.expected_charge(best)) > 0:
            total.append(int((self.seconds - self.spent(trials)) / expected))
        fits = [min(total) - done]
        end = self.deadline(trials)
        if end is not None and (expected := self.expected_span(best)) > 0:
            fits.append(int((end - now()) / expected) * workers)
        return max(0, min(fits))

    def allows(self, trials: Sequence[FrozenTrial], number: int) -> bool:
        """Return whether the trial with this number may start, given all trials of the study."""
        if self.trials is not None:
            if sum(t.number < number for t in counted(trials)) >= self.trials:
                return False
        if self.seconds is not None:
            expected = self.expected_charge(trials)
            running = sum(t.number < number and t.state == TrialState.RUNNING for t in trials)
            planned = self.spent(trials) + (running + 1) * expected
            # Without any idea of a trial's length, the first one is the measurement.
            if planned > self.seconds - self.kept(expected, self.seconds):
                return False
        if (end := self.deadline(trials)) is not None:
            expected = self.expected_span(trials)
            return now() + expected <= end - self.kept(expected, end - _began(trials))
        return True

    def is_used_up(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether nothing runs and no trial, new or waiting for a retry, may start."""
        if any(t.state == TrialState.RUNNING for t in trials):
            return False
        numbers = [t.number for t in trials if t.state == TrialState.WAITING] or [len(trials)]
        return not self.allows(trials, numbers[0])

    def trials_left(
        self, trials: Sequence[FrozenTrial], workers: int = 1, llm_share: float | None = None
    ) -> int | None:
        """Estimate how many trials are still to be finished; ``None`` without a basis for it.

        Args:
            trials: All of the study.
            workers: Processes that share the work.
            llm_share: Share of the coming trials for which a language model is asked: these take
                longer, and a study begins with few of them. ``None`` takes their share so far.
        """
        left = []
        if self.trials is not None:
            left.append(self.trials - sum(map(is_evaluated, counted(trials))))
        if self.seconds is not None and (expected := self.expected_charge(trials)) > 0:
            # Failures are cheaper than successes: the mean tells how many fit.
            charges = [self.charge(t) for t in trials if is_evaluated(t)]
            mean = sum(charges) / len(charges) if charges and sum(charges) > 0 else expected
            rest = self.seconds - sum(charges) - self.kept(expected, self.seconds)
            left.append(int(rest / mean) if rest >= expected else 0)
        end, mean_span = self.deadline(trials), _mean_span(trials, llm_share)
        if end is not None and mean_span > 0:
            kept = self.kept(self.expected_span(trials), end - _began(trials))
            left.append(int((end - kept - now()) / mean_span * workers))
        return max(0, min(left)) if left else None

    def seconds_left(
        self, trials: Sequence[FrozenTrial], workers: int = 1, llm_share: float | None = None
    ) -> float | None:
        """Estimate the wall-clock seconds until the study is done; ``None`` before its first trial.

        The arguments are those of `trials_left`.
        """
        left = self.trials_left(trials, workers, llm_share)
        if left is None or not any(map(is_evaluated, trials)):
            return None
        return left * _mean_span(trials, llm_share) / workers


def _mean_span(trials: Sequence[FrozenTrial], llm_share: float | None) -> float:
    """Return the real seconds to expect of a trial in the mean; 0 if nothing is known."""
    done = [t for t in trials if is_evaluated(t)]
    turns = [span(t) for t in done if t.user_attrs.get("llm_seconds")]
    others = [span(t) for t in done if not t.user_attrs.get("llm_seconds")]
    if llm_share is None or not turns or not others:
        return fmean(turns + others) if done else 0.0
    return llm_share * fmean(turns) + (1 - llm_share) * fmean(others)


def span(trial: FrozenTrial) -> float:
    """Return the real seconds that a finished trial took; 0 if nobody noted it."""
    if trial.datetime_start is None or trial.datetime_complete is None:
        return 0.0
    between = (trial.datetime_complete - trial.datetime_start).total_seconds()
    attrs = trial.user_attrs
    if "total_seconds" not in attrs:
        return max(0.0, between)
    # Clocks jump, machines sleep and databases are away for hours that the next trial won't take.
    run = float(attrs["total_seconds"])
    return max(run, min(between, run + float(attrs.get("llm_seconds", 0.0)) + _OTHER_SECONDS))


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that count: those that were not interrupted and that no other one repeats."""
    again = interrupted_trials(trials)
    return [t for t in trials if t.number not in again and not is_interrupted(t)]


def by_end(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return trials in the order in which they ended.

    Our workers begin them in the order of their numbers. That is the order, too, where their times,
    which are local ones, say otherwise: in an autumn night, or of machines in several time zones.
    """
    begun = sorted(trials, key=lambda t: t.number)
    starts = [t.datetime_start for t in begun if WORKER in t.system_attrs and t.datetime_start]
    if any(before - start > _CLOCKS for before, start in pairwise(starts)):
        return begun
    return sorted(begun, key=lambda t: t.datetime_complete or datetime.max)


def now() -> float:
    """Return the time in seconds since 1970."""
    return time.time()


def _began(trials: Sequence[FrozenTrial]) -> float:
    """Return when the first trial of a study began, in seconds since 1970."""
    noted = [t.system_attrs[BEGAN] for t in trials if BEGAN in t.system_attrs]
    # Those of older versions and of other programs have nothing but a local time.
    starts = noted or [t.datetime_start.timestamp() for t in trials if t.datetime_start]
    return min(starts, default=now())
