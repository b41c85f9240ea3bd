"""Workers on a Dask cluster: of this machine, of SLURM's jobs, or one that is there already.

Dask brings workers up, notices when one is lost, and gives its task to another. A task does
nothing itself but to keep a process (`supervise`), in which `studies.study.run_study` works on the
study as any other worker does, so that it can be stopped by signals, and a training that takes the
process down leaves Dask's worker alone. Process and task hold the ends of a pipe: the process ends,
and puts its trial back, when the task's end closes, however that came about.

The rules for lost workers are those of `studies.study.share_work`, whatever starts them. On our own
clusters Dask gives a task of a lost worker to another one by itself (a few times: its
``allowed-failures``); a task says when it starts, and a second start of the same one is a worker
that was lost. Elsewhere we place the tasks, since Dask may put them behind one another on a worker
that is busy until the study ends.

Tested on one machine. On several, what is shared must be within everybody's reach: the storage, the
folders of the testbed and of the artifacts, the language model. What can be told beforehand to be
out of reach is refused.
"""

# mypy: allow-untyped-calls
# Dask's own functions have no annotations.

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import logging
import multiprocessing
from multiprocessing.connection import Connection
import os
from pathlib import Path
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
import uuid

import optuna

from objective.storage import artifact_folder
from objective.storage import open_storage
from objective.storage_kinds import check_sharing
from objective.storage_kinds import journal_path
from objective.storage_kinds import parse
from samplers._llm.chat import is_loopback
from samplers._llm.chat import PRESETS
from studies.errors import Failed
from studies.errors import Misuse
from studies.loop import Watch
from studies.methods import METHODS
from studies.processes import environments
from studies.processes import Event
from studies.processes import FINISH_SIGNAL
from studies.processes import finishing
from studies.processes import Job
from studies.processes import on_stop
from studies.processes import POLL_SECONDS
from studies.processes import stop_if_told
from studies.processes import stop_now
from studies.processes import work
from studies.study import load_testbed
from studies.study import open_study
from studies.study import run_study
from studies.study import share_embedded_model
from studies.study import share_work
from studies.study import StudySpec


if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future
    from distributed.deploy.spec import SpecCluster

LOCAL = "local"
SLURM = "slurm"
# Each of our own Dask workers has one of it and each task takes one: a study's worker per machine.
RESOURCE = "study"
# Options of `dask_jobqueue.SLURMCluster` that `--cluster-option` may give, and how they are read.
# Lists grow with each time that they are given.
SLURM_OPTIONS: Mapping[str, type] = {
    "queue": str,
    "account": str,
    "walltime": str,
    "cores": int,
    "memory": str,
    "interface": str,
    "log_directory": str,
    "local_directory": str,
    "job_extra_directives": list,
    "job_script_prologue": list,
}
MARKER = "shared"  # a file in the folder of artifacts, by which workers know that it is the same

_GONE = "the Dask scheduler is gone, and with it the workers; run the same command again to go on"
_CONNECT_SECONDS = 15
_STOP_SECONDS = 60.0  # for processes that were told to stop
_KEEP_SECONDS = 15.0  # between two looks whether SLURM's jobs are still as many
_LOOK_SECONDS = 2.0  # between two looks which workers are there, and two reminders to finish


def run_cluster(
    spec: StudySpec,
    cluster: str,
    options: Mapping[str, Any],
    workers: int,
    watch: Watch = lambda trials: None,
    say: Callable[[str], None] = lambda line: None,
) -> optuna.Study:
    """Do a study's trials on a Dask cluster.

    Args:
        spec: The study.
        cluster: ``local``, ``slurm`` or a scheduler's address, such as ``tcp://10.0.0.1:8786``.
        options: For SLURM, see `slurm_options`.
        workers: How many.
        watch: Is given the study's trials whenever that may be news.
        say: Is given lines for people.

    Raises:
        Misuse: If the cluster can't be had, or can't reach what it needs.
        Misuse, Failed: What the first worker that failed said.
    """
    afar = spans_machines(cluster)
    check_sharing(spec.storage, workers=workers, machines=afar)
    spec = within_reach(spec, afar, workers)
    assert spec.artifacts is not None
    study = open_study(spec, load_testbed(spec), open_storage(spec.storage, patience=0))
    spec.artifacts.mkdir(parents=True, exist_ok=True)
    (spec.artifacts / MARKER).write_text(f"{socket.gethostname()}\n")
    with open_site(cluster, options, workers, spec.artifacts, say) as site:
        share_work(study, run_study, spec, workers, watch, say, site.run_jobs)
    return study


def spans_machines(cluster: str) -> bool:
    """Whether workers may be on other machines than this one."""
    return cluster == SLURM or (cluster != LOCAL and not is_loopback(cluster))


def within_reach(spec: StudySpec, afar: bool, workers: int) -> StudySpec:
    """The spec as workers with other folders and environments can use it.

    Raises:
        Misuse: If they could not.
    """
    host = None if journal_path(spec.storage) else urlsplit(spec.storage).hostname
    if afar and host is not None and is_loopback(f"tcp://{host}"):
        raise Misuse(
            f"--storage must be an address that the cluster's machines reach, but {host} is each"
            " machine's own"
        )
    folder = spec.artifacts or artifact_folder(spec.storage)
    spec = replace(
        spec,
        storage=_absolute(spec.storage),
        testbed=None if spec.testbed is None else spec.testbed.resolve(),
        artifacts=folder.resolve(),
    )
    if not METHODS[spec.method].uses_llm:
        return spec
    if not afar:
        return replace(spec, llm=share_embedded_model(spec.llm, spec.model, workers))
    return _with_llm_afar(spec)


def _with_llm_afar(spec: StudySpec) -> StudySpec:
    llm = spec.llm
    if llm is None:
        llm = os.environ.get("OPENAI_BASE_URL") or (
            "openai" if os.environ.get("OPENAI_API_KEY") else "local"
        )
    address = PRESETS[llm].base_url if llm in PRESETS else llm
    if not address.startswith(("http://", "https://")):
        raise Misuse(
            "--llm must be an address that the cluster's machines reach, but the embedded model"
            " is served to this machine only; serve it to all by python -m studies serve-llm"
            f" --host 0.0.0.0 and give --llm http://{socket.gethostname()}:8008/v1"
        )
    if is_loopback(address):
        raise Misuse(
            f"--llm must be an address that the cluster's machines reach, but {address} is each"
            " machine's own; give the name of the machine that serves it"
        )
    return replace(spec, llm=llm, model=spec.model or os.environ.get("OPENAI_MODEL") or None)


def _absolute(storage: str) -> str:
    journal = journal_path(storage)
    if journal is not None:
        return f"journal:{Path(journal).resolve()}"
    url = parse(storage)
    database = url.database
    if url.get_backend_name() != "sqlite" or not database or database.startswith(("file:", ":")):
        return storage
    return url.set(database=str(Path(database).resolve())).render_as_string(hide_password=False)


# SLURM ------------------------------------------------------------------------------------------


def slurm_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of `dask_jobqueue.SLURMCluster` from words like ``queue=gpu``.

    Raises:
        Misuse: If one of them is none.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        kind = SLURM_OPTIONS.get(name)
        if kind is None or not equals:
            raise Misuse(
                f"--cluster-option must be NAME=VALUE with one of {', '.join(SLURM_OPTIONS)}, but"
                f" got {word!r}"
            )
        if kind is list:
            options.setdefault(name, []).append(value)
        elif kind is int and not value.isdecimal():
            raise Misuse(f"--cluster-option {name} must be a number, but got {value!r}")
        else:
            options[name] = kind(value)
    return options


def slurm_script(options: Mapping[str, Any]) -> str:
    """The script that each of SLURM's jobs would be, as dask-jobqueue writes it.

    Only the address of the scheduler, which isn't there yet, is left open.

    Raises:
        Misuse: If it lacks something.
    """
    from dask_jobqueue.slurm import SLURMJob

    address = "tcp://<insert-scheduler-address-here>:8786"
    with _slurm_errors():
        job = SLURMJob(address, name="dummy-name", **_slurm_arguments(options))
    return str(job.job_script())


def _slurm_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    import dask
    import dask_jobqueue as dask_jobqueue  # its configuration

    # One worker of the study a job, which has all the cores of the job.
    configured = dask.config.get("jobqueue.slurm.worker-extra-args", [])
    extra = [*configured, "--resources", f"{RESOURCE}=1"]
    return {**options, "processes": 1, "worker_extra_args": extra}


@contextmanager
def _slurm_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "cores and memory" not in str(error):
            raise
        raise Misuse(
            "--cluster slurm must know what a job needs: cores and memory in"
            " ~/.config/dask/jobqueue.yaml, or --cluster-option cores=8 --cluster-option"
            " memory=16GB"
        ) from None


# The command's side -----------------------------------------------------------------------------


@dataclass
class Site:
    """A Dask cluster that can be used.

    Attributes:
        client: Of its scheduler.
        marker: A file that its workers must see.
        say: For lines to people.
        cluster: If it is ours and ends with us.
        environments: Variables for each of the study's workers.
    """

    client: Client
    marker: Path
    say: Callable[[str], None]
    cluster: SpecCluster | None = None
    environments: Sequence[Mapping[str, str]] = field(default_factory=list)

    def run_jobs(
        self,
        jobs: Sequence[Job],
        workers: int,
        watch: Callable[[Sequence[Event]], None],
        replace: Callable[[Job], bool],
    ) -> None:
        """As `studies.processes.run_jobs`, each job as a task of the cluster; all of them at once.

        Raises:
            Failed: If the scheduler is gone.
        """
        batch = _Batch(self, jobs)
        kept = time.monotonic()
        try:
            while batch.goes_on():
                stop_if_told()
                try:
                    if finishing():
                        batch.finish()
                    events = batch.news(replace)
                except OSError as error:
                    raise Failed(f"{_GONE} ({type(error).__name__})") from None
                watch(events)
                if self.cluster is not None and time.monotonic() - kept > _KEEP_SECONDS:
                    kept = time.monotonic()
                    self.cluster.scale(workers)  # submits again what SLURM has ended
        finally:
            batch.stop()


class _Batch:
    """Jobs on their way through a cluster."""

    def __init__(self, site: Site, jobs: Sequence[Job]) -> None:
        self._site = site
        self._jobs = jobs
        self._run = uuid.uuid4().hex
        self._starts: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._at: dict[int, str] = {}  # job -> the Dask worker that has it
        self._begun: set[int] = set()
        self._done = False  # whether a worker has found nothing more to do
        self._reminded = self._looked = -float("inf")
        self._waiting = list(range(len(jobs)))
        self._futures: dict[int, Future] = {}
        site.client.subscribe_topic(self._run, lambda event: self._starts.put(event[1]))

    def goes_on(self) -> bool:
        """Whether jobs run or wait."""
        return bool(self._waiting or self._futures)

    def _submit(self, number: int, where: Mapping[str, Any]) -> None:
        site = self._site
        environment = site.environments[number] if site.environments else {}
        self._futures[number] = site.client.submit(
            supervise,
            Task(self._run, number, self._jobs[number], on_stop(), environment, site.marker),
            key=f"study-worker-{self._run}-{number}-{uuid.uuid4().hex}",
            pure=False,
            **where,
        )

    def _place(self) -> list[tuple[int, str]]:
        """Give waiting jobs to Dask workers that have none; which jobs were lost with theirs.

        On a cluster of our own the scheduler does it, one to each worker.
        """
        if self._site.cluster is not None:
            while self._waiting:
                number = self._waiting.pop()
                self._at.pop(number, None)
                self._submit(number, {"resources": {RESOURCE: 1}})
            return []
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        there = dask_workers(self._site.client)
        lost = [(n, self._at[n]) for n in self._futures if self._at[n] not in there]
        free = [address for address in there if address not in map(self._at.get, self._futures)]
        while self._waiting and free:
            number = self._waiting.pop(0)
            self._at[number] = free.pop(0)
            self._submit(number, {"workers": [self._at[number]]})
        return lost

    def _give_up_places(self) -> None:
        """Cancel what has no Dask worker to run on: the study is done without it."""
        self._waiting.clear()
        there = dask_workers(self._site.client)
        for number in list(self._futures):
            if number not in self._begun or self._at[number] not in there:
                self._cancel(number)

    def news(self, replace: Callable[[Job], bool]) -> list[Event]:
        """What has happened in the last half a second."""
        time.sleep(POLL_SECONDS)
        if self._site.client.status == "connecting":  # again, after the connection was lost
            return []
        if self._site.client.status != "running":
            raise Failed(_GONE)
        events = []
        for number, address in self._place():
            self._cancel(number)
            events.append(self._verdict(number, f"Dask has lost {address}", replace))
            if events[-1].kind == "replaced":
                self._waiting.append(number)
        while not self._starts.empty():
            number, address = self._starts.get()
            self._begun.add(number)
            self._site.say(f"worker {number + 1} of {len(self._jobs)} is at {address}")
            before = self._at.get(number, address)
            self._at[number] = address
            if before != address and number in self._futures:  # Dask has placed it anew
                events.append(self._verdict(number, f"Dask has lost {before}", replace))
                if events[-1].kind == "failed":
                    self._tell(signal.SIGTERM, number)
                    self._cancel(number)
        for number, future in list(self._futures.items()):
            if future.done():
                del self._futures[number]
                event = _outcome(self._jobs[number], future)
                if event.kind == "replaced":
                    event = self._verdict(number, event.what, replace)
                if event.kind == "replaced":
                    self._waiting.append(number)
                events.append(event)
                self._done = self._done or event.kind == "done"
        if self._done and not finishing():
            self._give_up_places()
        return events

    def _verdict(self, number: int, how: str, replace: Callable[[Job], bool]) -> Event:
        """What becomes of a job whose worker was lost."""
        job = self._jobs[number]
        if finishing():
            return Event(job.name, "done")
        if not replace(job):
            return Event(job.name, "failed", how, 1)
        return Event(job.name, "replaced", how)

    def finish(self) -> None:
        """Let workers finish their trials, and begin no other."""
        self._waiting.clear()
        for number in self._futures.keys() - self._begun:
            self._cancel(number)
        if time.monotonic() - self._reminded > _LOOK_SECONDS:
            self._reminded = time.monotonic()
            self._tell(FINISH_SIGNAL)

    def stop(self) -> None:
        """Stop what still runs, wait until it has put its trials back, and forget all."""
        client = self._site.client
        deadline = time.monotonic() + _STOP_SECONDS
        try:
            while self._begun and self._tell(signal.SIGTERM) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            client.unsubscribe_topic(self._run)
            client.cancel(list(self._futures.values()))
        except Exception:  # the scheduler is gone, or going, and takes the workers along
            pass

    def _cancel(self, number: int) -> None:
        self._site.client.cancel(self._futures.pop(number))

    def _tell(self, signal_number: int, number: int | None = None) -> bool:
        """Send a signal to the processes of one job, or of all; whether there are any."""
        told = self._site.client.run(
            tell_processes, self._run, signal_number, number, on_error="ignore"
        )
        return any(told.values())


def _outcome(job: Job, future: Future) -> Event:
    """What a task came to that has ended; ``replaced`` if it should be made again."""
    from distributed import KilledWorker

    if future.status == "finished":
        event: Event = future.result()
        return event
    if future.status != "error":
        return Event(job.name, "replaced", "Dask has forgotten it")
    error = future.exception()
    if isinstance(error, KilledWorker):
        return Event(job.name, "replaced", f"Dask has lost {error.last_worker.address}")
    text = " ".join(str(error).split())
    return Event(job.name, "failed", f"on the Dask cluster: {type(error).__name__}: {text}", 1)


@contextmanager
def open_site(
    cluster: str,
    options: Mapping[str, Any],
    workers: int,
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[Site]:
    """A Dask cluster, until the context is left.

    Args:
        cluster: ``local``, ``slurm`` or the address of a scheduler.
        options: For SLURM, see `slurm_options`.
        workers: How many to start.
        folder: Of the artifacts.
        say: For lines to people.

    Raises:
        Misuse: If nobody answers at the address, or SLURM's jobs lack something.
    """
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # we tell of losses ourselves
    marker = folder / MARKER
    if cluster == LOCAL:
        from distributed import LocalCluster

        own: SpecCluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, (os.cpu_count() or 1) // workers),
            resources={RESOURCE: 1},
            memory_limit=0,  # trainings have their own
            dashboard_address="127.0.0.1:0",  # else 8787, of all interfaces
            silence_logs=logging.CRITICAL,
            preload="studies.distributed",
        )
        with own, Client(own) as client:
            yield Site(client, marker, say, own, environments=environments(workers))
    elif cluster == SLURM:
        from dask_jobqueue.slurm import SLURMCluster

        with _slurm_errors():
            own = SLURMCluster(**_slurm_arguments(options))
        with own, Client(own) as client:
            own.scale(workers)
            say(f"asked SLURM for {workers} jobs; the scheduler is at {own.scheduler_address}")
            yield Site(client, marker, say, own)
    else:
        with _connect(cluster) as client:
            yield Site(client, marker, say)


def count_workers(address: str, say: Callable[[str], None]) -> int:
    """How many Dask workers a scheduler has, at least one: it is waited for."""
    with _connect(address) as client:
        waits = False
        while not (found := dask_workers(client)):
            stop_if_told()
            if not waits:
                say(f"the Dask scheduler at {address} has no workers; waiting for the first one")
            waits = True
            time.sleep(POLL_SECONDS)
        return len(found)


def dask_workers(client: Client) -> list[str]:
    """Addresses of the Dask workers that a scheduler has.

    Raises:
        OSError: If there is no connection.
    """
    info = client.scheduler_info(n_workers=-1)
    if "workers" not in info:
        raise ConnectionError("no connection to the Dask scheduler")
    return list(info["workers"])


def _connect(address: str) -> Client:
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        return Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise Misuse(
            f"--cluster must be local, slurm or the address of a Dask scheduler, such as"
            f" tcp://HOST:8786, but none answers at {address} ({type(error).__name__})"
        ) from None


# The Dask worker's side -------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a Dask worker is given.

    Attributes:
        run: Which command's.
        number: Which of its jobs.
        job: The job.
        on_stop: See `studies.processes.stop_by_signal`.
        environment: Variables to set.
        marker: A file that must be there if folders are shared.
    """

    run: str
    number: int
    job: Job
    on_stop: str | None
    environment: Mapping[str, str]
    marker: Path


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
    """Keep a process that does a job until it ends: what it came to. A task of Dask's."""
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
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "was stopped"
    return Event(name, "replaced", f"its process at {worker.address} {how}")


def _start(
    connection: Connection, threads: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    # Dask gives its workers one thread for numerics, since it runs a task for each of their
    # threads; ours has them all. A daemonic process, as they are, may not use multiprocessing.
    fd = connection.fileno()
    return subprocess.Popen(
        [sys.executable, "-c", f"from studies.distributed import serve; serve({fd})"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[fd],
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment},
    )


def tell_processes(run: str, signal_number: int, number: int | None) -> bool:
    """Send a signal to this Dask worker's processes of a run; whether there are any."""
    with _lock:
        if number is None:
            _ended.add(run)
        found = [
            process
            for key, process in _processes.items()
            if key[0] == run and number in (None, key[1]) and process.poll() is None
        ]
        for process in found:
            if signal_number == signal.SIGTERM:
                process.send_signal(FINISH_SIGNAL)  # the second signal is the one that stops
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
