"""Several workers in one process, on a clock that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import heapq

import optuna


def work(
    open_study: Callable[[], optuna.Study],
    objective: Callable[[optuna.Trial], float],
    durations: Sequence[float],
    workers: int,
) -> None:
    """Run a trial per duration, asked and told in the order in which so many workers would.

    Args:
        open_study: Gives the study to a worker that asks or tells; a new object each time is as
            good as a new process.
        objective: Called when a trial starts. One that sets a user attribute ``status`` other than
            ``ok`` has failed, and ends after a tenth of its duration.
        durations: Of the trials in the order in which they start, in any unit.
        workers: How many there are; each starts a trial when its last one has ended.
    """
    running: list[tuple[float, int, float]] = []  # end, number, value
    now = 0.0
    for duration in durations:
        if len(running) == workers:
            now = _tell_next(open_study(), running)
        trial = open_study().ask()
        value = objective(trial)
        failed = trial.user_attrs.get("status", "ok") != "ok"
        heapq.heappush(running, (now + duration * (0.1 if failed else 1.0), trial.number, value))
    while running:
        _tell_next(open_study(), running)


def _tell_next(study: optuna.Study, running: list[tuple[float, int, float]]) -> float:
    end, number, value = heapq.heappop(running)
    study.tell(number, value)
    return end
