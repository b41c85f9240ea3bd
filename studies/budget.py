"""The budget of a study: a number of trials, a sum of training seconds, or both.

Everything is computed from the stored trials, so that a resumed run and several processes on one
storage agree. Trials are claimed in the order of their numbers, hence whether trial ``n`` may
start depends on the trials before it and on nothing else:

- *trials*: fewer than ``trials`` of them count. A trial that was killed or interrupted does not
  count; the one that repeats it does.
- *seconds*: what the finished ones were charged, what the running ones are expected to
  cost, and what ``n`` itself is expected to cost, together fit. Trials are never shortened to
  fill the rest of a budget: they would not be comparable.

A successful trial is charged its training seconds (start-up, compilation and evaluation are free,
as in the paper) and a failed one its whole run. Asking a language model is free, unless the study
charges for it (its user attribute ``charge_llm``): then the seconds that its requests took are
added. A killed trial left no record of its time and is charged nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState


def is_evaluated(trial: FrozenTrial) -> bool:
    """Return whether the objective came to a verdict: a value, or a failure that it classified."""
    return trial.state.is_finished() and not is_interrupted(trial)


def is_interrupted(trial: FrozenTrial) -> bool:
    """Return whether the trial was stopped from outside: killed, or interrupted by the user.

    A moment before its end a trial may have been recorded as ok and yet not be COMPLETE.
    """
    return trial.state == TrialState.FAIL and trial.user_attrs.get("status", "ok") == "ok"


def is_ok(trial: FrozenTrial) -> bool:
    """Return whether the trial ended with a measured value."""
    return is_evaluated(trial) and trial.user_attrs.get("status") == "ok"


def charge(trial: FrozenTrial, llm: bool = False) -> float:
    """Return a trial's seconds of the budget, with those of the language model if ``llm``."""
    if not is_evaluated(trial):
        return 0.0
    attrs = trial.user_attrs
    seconds = float(attrs.get("training_seconds" if is_ok(trial) else "total_seconds", 0.0))
    return seconds + float(attrs.get("llm_seconds", 0.0)) if llm else seconds


@dataclass(frozen=True)
class Budget:
    """The limits of a study; ``None`` is without limit.

    Attributes:
        trials: Evaluated trials in total, failures and earlier runs included.
        seconds: Training time of all trials together, the sum of their charges.
        train_seconds: Training time of a single trial, as far as it is known beforehand.
        charge_llm: Whether the language model's time is charged as well.
    """

    trials: int | None = None
    seconds: float | None = None
    train_seconds: float | None = None
    charge_llm: bool = False

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Budget:
        """Read the budget from a study's user attributes; without limits if they have none."""
        return cls(
            metadata.get("budget_trials"),
            metadata.get("budget_seconds"),
            metadata.get("train_seconds"),
            bool(metadata.get("charge_llm")),
        )

    def metadata(self) -> dict[str, Any]:
        """Return the budget as user attributes of the study; a later command may extend it."""
        return {"budget_trials": self.trials, "budget_seconds": self.seconds}

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

    def allows(self, trials: Sequence[FrozenTrial], number: int) -> bool:
        """Return whether the trial with this number may start, given all trials of the study."""
        if self.trials is not None:
            before = sum(t.number < number and not is_interrupted(t) for t in trials)
            if before >= self.trials:
                return False
        if self.seconds is not None:
            expected = self.expected_charge(trials)
            running = sum(t.number < number and t.state == TrialState.RUNNING for t in trials)
            planned = self.spent(trials) + (running + 1) * expected
            # Without any idea of a trial's length, the first one is the measurement.
            return planned <= self.seconds
        return True

    def is_used_up(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether nothing runs and no trial, new or waiting for a retry, may start."""
        if any(t.state == TrialState.RUNNING for t in trials):
            return False
        numbers = [t.number for t in trials if t.state == TrialState.WAITING] or [len(trials)]
        return not self.allows(trials, numbers[0])

    def trials_left(self, trials: Sequence[FrozenTrial]) -> int | None:
        """Estimate how many trials are still to be finished; ``None`` without a basis for it."""
        left = []
        if self.trials is not None:
            left.append(self.trials - sum(map(is_evaluated, trials)))
        if self.seconds is not None and (expected := self.expected_charge(trials)) > 0:
            # Failures are cheaper than successes: the mean tells how many fit.
            charges = [self.charge(t) for t in trials if is_evaluated(t)]
            mean = sum(charges) / len(charges) if charges and sum(charges) > 0 else expected
            rest = self.seconds - sum(charges)
            left.append(int(rest / mean) if rest >= expected else 0)
        return max(0, min(left)) if left else None

    def seconds_left(self, trials: Sequence[FrozenTrial], workers: int = 1) -> float | None:
        """Estimated wall-clock seconds until the study is done; ``None`` before the first trial."""
        spans = [
            (t.datetime_complete - t.datetime_start).total_seconds()
            for t in trials
            if is_evaluated(t) and t.datetime_start and t.datetime_complete
        ]
        left = self.trials_left(trials)
        if not spans or left is None:
            return None
        return left * sum(spans) / len(spans) / workers
