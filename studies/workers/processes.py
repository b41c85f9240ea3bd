"""Jobs side by side, each in a process of its own: how they start, what they say, how they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
import logging
import multiprocessing
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
import os
from pathlib import Path
import signal
import subprocess
import traceback
from typing import Any
import warnings

import optuna

from objective.run.outcome import signal_name
from studies.errors import explain
from studies.errors import is_full
from studies.stopping import acknowledge
from studies.stopping import FINISH_SIGNAL
from studies.stopping import finishing
from studies.stopping import on_stop as wanted_stop
from studies.stopping import stop_by_signal
from studies.stopping import STOP_SIGNAL


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
    """An event in the life of a job.

    Attributes:
        job: Its name.
        kind: ``started``, ``said``, ``done``, ``failed``, or ``replaced`` if its process was killed
            and another one takes its place.
        what: What was said; of a failure or a kill one line that says why.
        status: Exit status that the failure deserves, see `studies.errors`.
        full: Whether it failed for a full disk.
    """

    job: str
    kind: str
    what: Any = None
    status: int = 0
    full: bool = False


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    watch: Callable[[Sequence[Event]], None],
    replace: Callable[[Job], bool] = lambda job: False,
    modules: Sequence[str] = (),
) -> None:
    """Run jobs, at most ``workers`` at the same time, in their order.

    A failed one stops no other. But if that is for a full disk no other begins, which would fail, too.

    Args:
        jobs: The jobs.
        workers: Processes at the same time. The cores and the GPUs are divided among them.
        watch: Is given what is new, every half a second at the latest. What it raises stops all.
        replace: Is asked about a job whose process was killed by a signal (the system's, for lack
            of memory, say) whether it begins anew; otherwise it has failed.
        modules: That the jobs import later, beside `studies.study` and the modules of their work;
            once for all of them.

    After a signal that lets work finish (see `stop_by_signal`) no job begins, and those that run
    are told to finish too.
    """
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // min(workers, len(jobs) or 1))))
    context = _context([*dict.fromkeys(job.work.__module__ for job in jobs), *modules])
    waiting = deque(jobs)
    running: dict[Connection, tuple[Job, BaseProcess]] = {}
    free = environments(workers)
    taken: dict[BaseProcess, dict[str, str]] = {}
    try:
        while waiting or running:
            if finishing():
                waiting.clear()
                for _, process in running.values():
                    _signal(process, FINISH_SIGNAL)
            events = []
            while waiting and len(running) < workers:
                job = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                place = free.pop()
                arguments = job, theirs, wanted_stop(), {**os.environ, **place}
                process = context.Process(target=_begin, args=arguments, daemon=True)
                running[ours], taken[process] = (job, process), place
                process.start()
                theirs.close()
                events.append(Event(job.name, "started"))
            watch(events)
            events = []
            for connection in wait(list(running), POLL_SECONDS):
                job, process = running[connection]  # type: ignore[index]
                event = _receive(running, connection)  # type: ignore[arg-type]
                if event.kind != "said":
                    free.append(taken.pop(process))
                if event.kind == "failed" and (process.exitcode or 0) < 0:
                    if finishing():  # what it was at is for the next command
                        event = Event(job.name, "done")
                    elif replace(job):
                        event = Event(job.name, "replaced", event.what)
                        waiting.appendleft(job)
                if event.full:
                    waiting.clear()
                events.append(event)
            watch(events)
    finally:
        for _, process in running.values():
            _signal(process, STOP_SIGNAL)
        for _, process in running.values():
            if process.pid is not None:
                process.join()


def _context(modules: Sequence[str]) -> ForkServerContext | SpawnContext:
    """Let processes start as forks of one that has done the imports, which take seconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["studies.study", *modules])
    # It looks for modules in its own folder first, where a studies.py of the user's may be. The
    # processes that it forks go to the folder of this one.
    here = os.getcwd()
    os.chdir(Path(__file__).parents[2])
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(here)
    return context


def _receive(running: dict[Connection, tuple[Job, BaseProcess]], connection: Connection) -> Event:
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
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"exited with {code}"
        event = Event(job.name, "failed", f"its process {how}", 1)
    return event


def _signal(process: BaseProcess, number: signal.Signals) -> None:
    if process.pid is not None and process.is_alive():
        with suppress(ProcessLookupError):  # it ends just now
            os.kill(process.pid, number)


def _begin(
    job: Job, connection: Connection, on_stop: str | None, environment: Mapping[str, str]
) -> None:
    # The process that this one is a fork of may have been started when they were others.
    os.environ.clear()
    os.environ.update(environment)
    work(job, connection, on_stop)


def work(job: Job, connection: Connection, on_stop: str | None) -> None:
    """Do a job in this process, which was started for it, and say so by the connection.

    Args:
        job: The job.
        connection: Takes each `Event`.
        on_stop: See `stop_by_signal`.
    """
    quiet_optuna()
    logging.getLogger("objective").setLevel(logging.ERROR)  # who started it says it once
    stop_by_signal(on_stop, own=False)
    parent = multiprocessing.parent_process()

    def tell(message: Any) -> None:
        if parent is not None and not parent.is_alive():
            raise KeyboardInterrupt
        connection.send(Event(job.name, "said", message))

    try:
        job.work(job.spec, tell)
        connection.send(Event(job.name, "done"))
    except (KeyboardInterrupt, BrokenPipeError):
        acknowledge()
        raise SystemExit(1) from None
    except Exception as error:  # the command can tell of nothing that ends with this process
        connection.send(_failure(job, error))
        raise SystemExit(1) from None


def _failure(job: Job, error: Exception) -> Event:
    try:
        message, status = explain(error)
    except Exception:  # nobody foresaw it, says `explain`: then the traceback is what helps
        traceback.print_exc()
        message, status = f"{type(error).__name__}: {' '.join(str(error).split())}", 1
    return Event(job.name, "failed", message, status, is_full(error))


def quiet_optuna() -> None:
    """Leave the terminal to our own progress.

    Optuna would tell of every trial, and that heartbeats and metric names are experimental.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def devices() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    try:  # torch would say it too, and take seconds to load
        told = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = [line for line in told.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(gpus))]


def environments(workers: int) -> list[dict[str, str]]:
    """Return environment variables that give each worker of this machine a GPU of its own.

    Where there are fewer GPUs than workers, some share one.
    """
    own = devices()
    if not own:
        return [{} for _ in range(workers)]
    return [{"CUDA_VISIBLE_DEVICES": own[n % len(own)]} for n in range(workers)]
