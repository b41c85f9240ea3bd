"""Which process runs a trial: its mark on the trial, and whether that process still exists."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
import socket
import sys
from typing import Any
import uuid

import optuna
import psutil


# System attributes of a trial: see `worker_mark`, and when a study's first began, in seconds since
# 1970. Optuna's own times are local ones: on another machine they may mean other hours.
WORKER = "autoresearch:worker"
BEGAN = "autoresearch:began"


def claim(trial: optuna.Trial) -> None:
    """Write the mark of this process on a running trial."""
    trial.storage.set_trial_system_attr(trial._trial_id, WORKER, worker_mark(trial.number))


def worker_mark(number: int) -> list[Any]:
    """Return this process's mark on a trial: machine, process, its start, the trial's number."""
    # With the number, since a queued copy of a killed trial inherits its attributes.
    return [_machine(), os.getpid(), _started(os.getpid()), number]


def worker_is_here(mark: Sequence[Any]) -> bool | None:
    """Return whether the process of a mark lives; ``None`` if it is another machine's."""
    machine, pid, started, _ = mark
    return _started(pid) == started if machine == _machine() else None


def worker_goes_on(mark: Sequence[Any]) -> bool:
    """Return whether the process of a mark lives on this machine, and nobody has paused it."""
    try:
        lives = worker_is_here(mark) is True
        return lives and psutil.Process(mark[1]).status() != psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _machine() -> str:
    """Identify the set of processes that can see each other's process ids."""
    if sys.platform != "linux":
        return f"{socket.gethostname()}/{uuid.getnode()}"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> float | None:
    """Return when a process started, which tells it from others with its number."""
    if sys.platform == "linux":
        # In ticks since the start of the machine. psutil's is by the clock, which may be set.
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        except PermissionError:
            return -1.0
        return None if fields[0] == "Z" else float(fields[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.NoSuchProcess, ValueError):
        return None
    except psutil.AccessDenied:
        return -1.0
