"""The task of a Dask worker: to keep the process in which a worker of the study runs.

A task itself does nothing else (`supervise`), so that the work can be stopped by signals, and a
training that takes its process down leaves Dask's worker alone. Process and task hold the ends of a
pipe: the process ends, and puts its trial back, when the task's end closes, however that came
about.
"""

# mypy: allow-untyped-calls
# Dask's own functions have no annotations.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import multiprocessing
from multiprocessing.connection import Connection
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

from objective.run.outcome import signal_name
from studies.stopping import stop_now
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import work


# Each of our own Dask workers has one of it and each task takes one: a study's worker per machine.
RESOURCE = "study"


@dataclass(frozen=True)
class Task:
    """The argument of a Dask task.

    Attributes:
        run: Which command's.
        number: Which of its jobs.
        job: The job.
        on_stop: See `studies.stopping.stop_by_signal`.
        environment: Variables to set.
        marker: A file that must be there if folders are shared.
    """

    run: str
    number: int
    job: Job
    on_stop: str | None
    environment: Mapping[str, str]
    marker: Path


# `python -c` looks for modules in its own folder first, where a studies.py of the user's may be.
_PROGRAM = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
from studies.workers.dask_worker import serve
serve(int(sys.argv[1]))
"""
# Of this Dask worker: (run, number) -> the process.
_processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
_ended: set[str] = set()  # runs whose tasks shall not begin any more
_lock = threading.Lock()


def dask_setup(worker: object) -> None:
    """Dask calls it in each worker of ``local``, which signals to the command are not for.

    A terminal's Ctrl-C, or a kill of the whole group, reaches all processes of a command; the
    command tells its workers itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def supervise(task: Task) -> Event:
    """Start a process that does a job, wait for it, and return its outcome. A task of Dask's."""
    from distributed import get_worker

    name = task.job.name
    worker = get_worker()
    worker.log_event(task.run, (task.number, worker.address))
    if not task.marker.is_file():
        what = (
            f"{task.marker.parent} must be the same folder on all machines, but {worker.address}"
            " has another; give --artifacts a folder that all of them share"
        )
        return Event(name, "failed", what, 2)
    ours, theirs = multiprocessing.Pipe()
    with ours:
        with theirs, _lock:
            if task.run in _ended:
                return Event(name, "done")
            process = _start(theirs, worker.state.nthreads, task.environment)
            _processes[task.run, task.number] = process
        try:
            ours.send((task.job, task.on_stop))
            while (event := ours.recv()).kind == "said":
                pass
            process.wait()
            return event  # type: ignore[no-any-return]
        except (EOFError, OSError):  # without a last word
            code = process.wait()
        finally:
            with _lock:
                del _processes[task.run, task.number]
    how = f"was killed by {signal_name(-code)}" if code < 0 else "was stopped"
    return Event(name, "replaced", f"its process at {worker.address} {how}")


def _start(
    connection: Connection, threads: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    # Dask gives its workers one thread for numerics, since it runs a task for each of their
    # threads; ours has them all. A daemonic process, as they are, may not use multiprocessing.
    fd = connection.fileno()
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(fd)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[fd],
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment},
    )


def tell_processes(run: str, signal_number: int, number: int | None) -> bool:
    """Send a signal to this Dask worker's processes of a run; return whether there are any."""
    with _lock:
        if number is None:
            _ended.add(run)
        found = [
            process
            for key, process in _processes.items()
            if key[0] == run and number in (None, key[1]) and process.poll() is None
        ]
        for process in found:
            process.send_signal(signal_number)
    return bool(found)


def serve(fd: int) -> None:
    """Do the job that comes through a pipe, and stop when its other end closes."""
    connection = Connection(fd)
    job, stop = connection.recv()

    def hold() -> None:
        try:
            connection.recv()
        except (EOFError, OSError):
            stop_now()

    threading.Thread(target=hold, daemon=True).start()
    work(job, connection, stop)
