"""The processor time of a process and all below it, by the system's own count."""

from __future__ import annotations

import psutil


class ProcessorTime:
    """Counts the processor time of a process and its descendants.

    The system adds that of a process that has ended to its parent's, unless the parent doesn't
    want to hear of it. So what was seen of each process counts too, and looking now and then
    leaves only what came and went in between.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[tuple[int, float], float] = {}

    def look(self) -> float:
        """Return the seconds so far."""
        with_ended = 0.0
        for process in process_tree(self._pid):
            try:
                times = process.cpu_times()
                own = times.user + times.system
                with_ended += own + times.children_user + times.children_system
                self._seen[process.pid, process.create_time()] = own
            except psutil.Error:  # it has just ended
                continue
        return max(with_ended, sum(self._seen.values()))


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all below it; orphans stay below the first of their PID namespace."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
