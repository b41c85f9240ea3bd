"""Report the progress of a training to its trial, without waiting for the storage."""

from __future__ import annotations

import math
import threading

import optuna
from sqlalchemy.pool import SingletonThreadPool


_EVERY = 5  # percent of the time budget between two intermediate values of a trial
_WAIT_SECONDS = 1.0  # for a report, and for what the pruner says of it
_LAST_STEP = 2**31 - 1  # that databases hold


class Reporter:
    """Progress of a training -> intermediate values of its trial, a few dozen at most.

    A storage may let a report wait for minutes, and who calls this has pipes to read and a
    deadline to watch. So a report has a thread of its own, which is waited for just long enough
    to hear the pruner's verdict where nothing is amiss. What comes meanwhile isn't reported.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._next = 0.0
        self._thread: threading.Thread | None = None
        self._prune = False
        self._error: Exception | None = None

    def __call__(self, step: float, value: float, is_share: bool) -> bool:
        """Return whether the training should be pruned, by the reports judged so far.

        Args:
            step: Percentage of the time budget, or number of the training's step.
            value: Loss or metric.
            is_share: Whether it is a percentage.
        """
        busy = self._thread is not None and self._thread.is_alive()
        if busy or self._error is not None:
            return self._prune
        if self._next <= step <= (100 if is_share else _LAST_STEP) and math.isfinite(value):
            # Nobody knows how many steps there will be: their distance grows with their number.
            every = _EVERY if is_share else max(1, step // 5)
            self._next = (step // every + 1) * every if is_share else step + every
            if _is_of_one_thread(self._trial):
                self._report(value, int(step))
            else:
                # A daemon, so that no process waits for a storage before it ends.
                self._thread = threading.Thread(
                    target=self._report, args=(value, int(step)), daemon=True
                )
                self._thread.start()
                self._thread.join(_WAIT_SECONDS)
        return self._prune

    def finish(self) -> None:
        """Wait for the last report. There must be none after it.

        Raises:
            Exception: What went wrong with a report; there was none after that.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _report(self, value: float, step: int) -> None:
        try:
            self._trial.report(value, step=step)
            self._prune = self._trial.should_prune()
        except Exception as error:  # `finish` raises it, when the training's result is safe
            self._error = error


def _is_of_one_thread(trial: optuna.Trial) -> bool:
    """Return whether the storage is SQLite in memory, which is another database in each thread."""
    storage = getattr(trial, "storage", None)
    engine = getattr(getattr(storage, "_backend", storage), "engine", None)
    return engine is not None and isinstance(engine.pool, SingletonThreadPool)
