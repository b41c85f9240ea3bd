"""Jobs side by side, each in a process of its own: how they start, what they say, how they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import logging
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
import os
import signal
import threading
import traceback
from types import FrameType
from typing import Any
import warnings

import optuna

from studies.errors import explain


# Seconds between two looks at what else the watcher looks at.
POLL_SECONDS = 0.5

Tell = Callable[[Any], None]


@dataclass(frozen=True)
class Job:
    """A call of ``work(spec, tell)`` in another process.

    Attributes:
        name: For whoever watches.
        work: A function of a module. What it gives to ``tell`` reaches the watcher; ``tell``
            raises KeyboardInterrupt when the process that started the job is gone.
        spec: Plain values.
    """

    name: str
    work: Callable[[Any, Tell], object]
    spec: object


@dataclass(frozen=True)
class Event:
    """News of a job.

    Attributes:
        job: Its name.
        kind: ``started``, ``said``, ``done``, ``failed``, or ``replaced`` if its process was killed
            and another one takes its place.
        what: What was said; of a failure or a kill one line that says why.
        status: Exit status that the failure deserves, see `studies.errors`.
    """

    job: str
    kind: str
    what: Any = None
    status: int = 0


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    watch: Callable[[Sequence[Event]], None],
    replace: Callable[[Job], bool] = lambda job: False,
) -> None:
    """Run jobs, at most ``workers`` at the same time, in their order. A failed one stops no other.

    Args:
        jobs: The jobs.
        workers: Processes at the same time. The cores are divided among them.
        watch: Is given what is new, every half a second at the latest. What it raises stops all.
        replace: Is asked about a job whose process was killed by a signal (the system's, for lack
            of memory, say) whether it begins anew; otherwise it has failed.
    """
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // min(workers, len(jobs) or 1))))
    context = multiprocessing.get_context("spawn")
    waiting = deque(jobs)
    running: dict[Connection, tuple[Job, SpawnProcess]] = {}
    try:
        while waiting or running:
            stop_if_told()
            events = []
            while waiting and len(running) < workers:
                job = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, theirs), daemon=True)
                running[ours] = job, process
                process.start()
                theirs.close()
                events.append(Event(job.name, "started"))
            watch(events)
            events = []
            for connection in wait(list(running), POLL_SECONDS):
                job, process = running[connection]  # type: ignore[index]
                event = _receive(running, connection)  # type: ignore[arg-type]
                if event.kind == "failed" and (process.exitcode or 0) < 0 and replace(job):
                    event = Event(job.name, "replaced", event.what)
                    waiting.appendleft(job)
                events.append(event)
            watch(events)
    finally:
        for _, process in running.values():
            if process.pid is not None:
                process.terminate()
        for _, process in running.values():
            if process.pid is not None:
                process.join()


def _receive(running: dict[Connection, tuple[Job, SpawnProcess]], connection: Connection) -> Event:
    job, process = running[connection]
    try:
        event: Event = connection.recv()
    except EOFError:  # without a last word: it was killed
        event = Event(job.name, "failed", "", 1)
    if event.kind == "said":
        return event
    process.join()
    del running[connection]
    connection.close()
    if event.kind == "failed" and not event.what:
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        event = Event(job.name, "failed", f"its process {how}", 1)
    return event


def _work(job: Job, connection: Connection) -> None:
    quiet_optuna()
    logging.getLogger("objective").setLevel(logging.ERROR)  # who started it says it once
    stop_by_signal()
    parent = multiprocessing.parent_process()

    def tell(message: Any) -> None:
        stop_if_told()
        if parent is not None and not parent.is_alive():
            raise KeyboardInterrupt
        connection.send(Event(job.name, "said", message))

    try:
        job.work(job.spec, tell)
        connection.send(Event(job.name, "done"))
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(1) from None
    except Exception as error:
        try:
            message, status = explain(error)
        except Exception:  # nobody foresaw it, says `explain`: then the traceback is what helps
            traceback.print_exc()
            message, status = f"{type(error).__name__}: {' '.join(str(error).split())}", 1
        connection.send(Event(job.name, "failed", message, status))
        raise SystemExit(1) from None


def quiet_optuna() -> None:
    """Leave the terminal to our own progress.

    Optuna would tell of every trial, and that heartbeats and metric names are experimental.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


_told_to_stop = threading.Event()


def stop_by_signal() -> None:
    """Make SIGTERM the same as Ctrl-C, and either of them count only once.

    The first ends the work with all its cleaning up; an impatient second one would leave a
    training running and a trial unfinished.
    """
    _told_to_stop.clear()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _told_to_stop.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def stop_if_told() -> None:
    """Stop if a signal said so and nobody noticed.

    Python drops what is raised while it frees an object, also the KeyboardInterrupt of a signal
    that came at that moment.
    """
    if _told_to_stop.is_set():
        raise KeyboardInterrupt
