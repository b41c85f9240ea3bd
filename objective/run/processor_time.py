"""The processor time of a process and all below it, by the system's own count."""

from __future__ import annotations

import os
from pathlib import Path
import re
import time

import psutil


class ProcessorTime:
    """Counts the processor time of a process and its descendants.

    The system adds that of a process that has ended to its parent's, unless the parent doesn't
    want to hear of it (SIGCHLD is ignored). So what was seen of each process counts too, and
    looking now and then leaves only what came and went in between: see :meth:`unseen`.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[tuple[int, float], float] = {}
        # Of each living process the ids of the threads that were seen, in its own PID namespace.
        self._tasks: dict[tuple[int, float], set[int]] = {}
        self._begun = self._last_look = time.monotonic()
        self._longest_gap = self._counted = 0.0

    def look(self) -> float:
        """Return the seconds so far."""
        with_ended = 0.0
        living: dict[tuple[int, float], set[int]] = {}
        for process in process_tree(self._pid):
            try:
                times = process.cpu_times()
                own = times.user + times.system
                key = process.pid, process.create_time()
            except psutil.Error:  # it has just ended
                continue
            with_ended += own + times.children_user + times.children_system
            self._seen[key] = own
            living[key] = self._tasks.get(key, set()) | _tasks(process.pid)
        self._tasks = living
        now = time.monotonic()
        self._longest_gap = max(self._longest_gap, now - self._last_look)
        self._last_look = now
        self._counted = max(with_ended, sum(self._seen.values()))
        return self._counted

    def unseen(self, since: int, started: int) -> float:
        """Return at most how many seconds of processes that have ended the last look lacks.

        Each of them may have run from one look to the next without being counted, and all together
        on all cores. Threads that have ended lack nothing if their process is there.

        Args:
            since: Id of a process in the PID namespace that those to be counted are in.
            started: Number of processes and threads that were started in it after that one.
        """
        there = sum(task > since for tasks in self._tasks.values() for task in tasks)
        ended = max(0, started - there)
        cores = os.cpu_count() or 1
        left = (self._last_look - self._begun) * cores - self._counted
        return max(0.0, min(ended * self._longest_gap, left))


def _tasks(pid: int) -> set[int]:
    """Return the ids of a process's threads in its own PID namespace (Linux)."""
    ids = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            match = re.search(r"^NSpid:.*\t(\d+)$", status.read_text(errors="replace"), re.M)
        except OSError:  # it has just ended
            continue
        if match:
            ids.add(int(match[1]))
    return ids


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all below it; orphans stay below the first of their PID namespace."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
