"""The processor time of a process and all below it, by the system's own count.

Where what a process tree used can't be seen, the rest of the machine tells how much it can have been.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
import re
import time

import psutil


_PROC = Path("/proc")


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
        self._last_look = time.monotonic()
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

    def unseen(self, since: int, started: int, most: float) -> float:
        """Return at most how many seconds of processes that have ended the last look lacks.

        Each of them may have run from one look to the next without being counted. Threads that have
        ended lack nothing if their process is there.

        Args:
            since: Id of a process in the PID namespace that those to be counted are in.
            started: Number of processes and threads that were started in it after that one.
            most: Seconds that all can have used, see `UnaccountedTime`.
        """
        there = sum(task > since for tasks in self._tasks.values() for task in tasks)
        ended = max(0, started - there)
        return max(0.0, min(ended * self._longest_gap, most - self._counted))


class UnaccountedTime:
    """Bounds the processor time of a process tree by what nobody else on the machine has used.

    Linux only. The time of processes that can't be seen from here, as those of other containers, is
    taken for the tree's: so it is a bound, and a close one where all processes are to be seen.

    Args:
        pid: The first process of the tree.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # What others use is measured within the time in which the machine is, so never too much.
        self._busy = _busy_seconds()
        self._others = max(_looks_beside(pid))
        self._started = _started()

    def most(self) -> float:
        """Return at most how many seconds the tree has used since this was made."""
        others = min(_looks_beside(self._pid)) - self._others
        return max(0.0, _busy_seconds() - self._busy - others)

    def started(self, counted: int) -> int:
        """Return how many processes and threads the tree has started, of which so many were counted.

        They are numbered in a circle. Where it may have gone round unseen, all that were started on
        the machine are taken for the tree's.
        """
        started = _started() - self._started
        try:
            around = int((_PROC / "sys/kernel/pid_max").read_text())
        except OSError:
            return counted
        return counted if started - counted < around else started


def _looks_beside(tree: int) -> list[float]:
    """Return what one look tells of the time of others, or two.

    A process that ends while it is looked for may be missed, or count twice: once in two looks.
    """
    seconds, all_there = _seconds_beside(tree)
    return [seconds] if all_there else [seconds, _seconds_beside(tree)[0]]


def _seconds_beside(tree: int) -> tuple[float, bool]:
    """Return the time of the processes that aren't below one, with that of children that have ended.

    And whether none of them ended meanwhile.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            # Behind the name, which may be anything: state, parent, ...; see proc_pid_stat(5).
            fields = stat.read_bytes().rpartition(b")")[2].split()
            pid = int(stat.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))

    def is_beside(pid: int) -> bool:
        for _ in parents:
            if pid == tree or pid not in parents:
                break
            pid = parents[pid]
        return pid == 0  # whose parent has just ended is nobody's

    seconds = sum(ticks[pid] for pid in parents if is_beside(pid)) / os.sysconf("SC_CLK_TCK")
    return seconds, all((_PROC / str(pid)).exists() for pid in parents)


def _started() -> int:
    """Return how many processes and threads this machine has started; 0 if it doesn't tell."""
    try:
        found = re.search(r"^processes (\d+)$", (_PROC / "stat").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _busy_seconds() -> float:
    """Return how long the machine's cores weren't idle, all together, from some moment on."""
    try:
        lines = (_PROC / "stat").read_text().splitlines()
        cores = sum(line.startswith("cpu") for line in lines) - 1
        idle = sum(map(int, lines[0].split()[4:6]))  # and waiting for a disk; see proc_stat(5)
    except (OSError, ValueError, IndexError):  # some containers hide it
        cores, idle = os.cpu_count() or 1, 0
    return time.monotonic() * cores - idle / os.sysconf("SC_CLK_TCK")


def _tasks(pid: int) -> set[int]:
    """Return the ids of a process's threads in its own PID namespace (Linux)."""
    ids = set()
    with contextlib.suppress(OSError):  # the process has just ended
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # the thread has just ended
                status = Path(f"/proc/{pid}/task/{task}/status").read_text(errors="replace")
                if match := re.search(r"^NSpid:.*\t(\d+)$", status, re.M):
                    ids.add(int(match[1]))
    return ids


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all below it; orphans stay below the first of their PID namespace."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
