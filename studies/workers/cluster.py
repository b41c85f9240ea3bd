"""Workers on a Dask cluster: of this machine, of SLURM's jobs, or one that is there already.

Dask brings workers up, notices when one is lost, and gives its task to another
(`studies.workers.dask_worker` is that task).

The rules for lost workers are those of `studies.workers.share.share_work`, whatever starts them. On our own
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
from dataclasses import replace
import logging
from pathlib import Path
import queue
import socket
import time
from typing import Any
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
import uuid

import optuna

from samplers._llm.address import is_loopback
from samplers._llm.presets import preset_of
from studies import random_steps
from studies.errors import Failed
from studies.errors import Misuse
from studies.llm import llm_named
from studies.llm import share_embedded_model
from studies.loop import Watch
from studies.spec import load_testbed
from studies.spec import Model
from studies.spec import Spec
from studies.stopping import FINISH_SIGNAL
from studies.stopping import finishing
from studies.stopping import on_stop
from studies.stopping import STOP_SIGNAL
from studies.storage.kinds import check_sharing
from studies.storage.kinds import journal_path
from studies.storage.kinds import parse
from studies.storage.open import open_storage
from studies.study import open_study
from studies.workers.dask_worker import RESOURCE
from studies.workers.dask_worker import supervise
from studies.workers.dask_worker import Task
from studies.workers.dask_worker import tell_processes
from studies.workers.own_cluster import local_cluster
from studies.workers.processes import environments
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import POLL_SECONDS
from studies.workers.share import share_work
from studies.workers.share import work_on
from studies.workers.slurm import slurm_cluster


if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future
    from distributed.deploy.spec import SpecCluster

LOCAL = "local"
SLURM = "slurm"
MARKER = "shared"  # a file in the folder of artifacts, by which workers know that it is the same

_GONE = "the Dask scheduler is gone, and with it the workers; run the same command again to go on"
_CONNECT_SECONDS = 15
_STOP_SECONDS = 60.0  # for processes that were told to stop
_KEEP_SECONDS = 15.0  # between two looks whether SLURM's jobs are still as many
_LOOK_SECONDS = 2.0  # between two looks which workers are there, and two reminders to finish


def run_cluster(
    spec: Spec,
    cluster: str,
    options: Mapping[str, Any],
    workers: int,
    watch: Watch = lambda trials: None,
    say: Callable[[str], None] = lambda line: None,
) -> optuna.Study:
    """Do a study's trials on a Dask cluster.

    Args:
        spec: The study.
        cluster, options, workers, say: See `open_site`.
        watch: See `studies.loop.Watch`.

    Raises:
        Misuse: If the cluster can't be had, or can't reach what it needs.
        Misuse, Failed: What the first worker that failed said.
    """
    afar = spans_machines(cluster)
    check_sharing(spec.where.storage, workers=workers, machines=afar)
    spec = within_reach(spec, afar, workers)
    study = open_study(spec, load_testbed(spec), open_storage(spec.where.storage, patience=0))
    folder = spec.where.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(f"{socket.gethostname()}\n")
    with open_site(cluster, options, workers, folder, say) as site:
        share_work(study, work_on, spec, workers, watch, say, site.run_jobs)
    return study


def spans_machines(cluster: str) -> bool:
    """Return whether workers may be on other machines than this one."""
    return cluster == SLURM or (cluster != LOCAL and not is_loopback(cluster))


def within_reach(spec: Spec, afar: bool, workers: int) -> Spec:
    """Return the spec in a form that workers in other folders and environments can use.

    Raises:
        Misuse: If they could not.
    """
    where = spec.where
    if afar and journal_path(where.storage) is None and is_loopback(where.storage):
        raise Misuse(
            "--storage must be an address that the cluster's machines reach, but"
            f" {urlsplit(where.storage).hostname} is each machine's own"
        )
    where = replace(
        where,
        storage=_absolute(where.storage),
        testbed=None if where.testbed is None else where.testbed.resolve(),
        artifacts=where.folder.resolve(),
    )
    model = spec.model
    if spec.row.uses_llm:
        model = _model_afar(model) if afar else share_embedded_model(model, workers)
    return replace(spec, where=where, model=model)


def _model_afar(model: Model) -> Model:
    llm = llm_named(model)
    if llm == random_steps.LLM:
        return model
    preset = preset_of(llm)
    if preset is None:
        raise Misuse(
            "--llm must be an address that the cluster's machines reach, but the embedded model"
            " is served to this machine only; serve it to all by optuna-autoresearch serve-llm"
            f" --host 0.0.0.0 and give --llm http://{socket.gethostname()}:8008/v1"
        )
    if is_loopback(preset.base_url):
        raise Misuse(
            "--llm must be an address that the cluster's machines reach, but"
            f" {preset.base_url} is each machine's own; give the name of the machine that serves it"
        )
    return replace(model, llm=llm, name=model.name or preset.model)


def _absolute(storage: str) -> str:
    journal = journal_path(storage)
    if journal is not None:
        return f"journal:{Path(journal).resolve()}"
    url = parse(storage)
    database = url.database
    if url.get_backend_name() != "sqlite" or not database or database.startswith(("file:", ":")):
        return storage
    return url.set(database=str(Path(database).resolve())).render_as_string(hide_password=False)


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
    environments: Sequence[Mapping[str, str]] = ()

    def run_jobs(
        self,
        jobs: Sequence[Job],
        workers: int,
        watch: Callable[[Sequence[Event]], None],
        replace: Callable[[Job], bool],
    ) -> None:
        """Run all jobs at once, each as a task of the cluster; see `processes.run_jobs`.

        Raises:
            Failed: If the scheduler is gone.
        """
        batch = _Batch(self, jobs)
        kept = time.monotonic()
        try:
            while batch.waiting or batch.placed:
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


@dataclass
class _Placed:
    """A job that was given to Dask.

    Attributes:
        future: Its task.
        at: The Dask worker that has it; None until the scheduler of our own cluster has chosen one.
        begun: Whether it has said so.
    """

    future: Future
    at: str | None
    begun: bool = False


class _Batch:
    """Jobs on their way through a cluster."""

    def __init__(self, site: Site, jobs: Sequence[Job]) -> None:
        self._site = site
        self._jobs = jobs
        self._run = uuid.uuid4().hex
        self._starts: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._done = False  # whether a worker has found nothing more to do
        self._reminded = self._looked = -float("inf")
        self.waiting = list(range(len(jobs)))
        self.placed: dict[int, _Placed] = {}
        site.client.subscribe_topic(self._run, lambda event: self._starts.put(event[1]))

    def _submit(self, number: int, at: str | None = None) -> None:
        site = self._site
        environment = site.environments[number] if site.environments else {}
        future = site.client.submit(
            supervise,
            Task(self._run, number, self._jobs[number], on_stop(), environment, site.marker),
            key=f"study-worker-{self._run}-{number}-{uuid.uuid4().hex}",
            pure=False,
            workers=None if at is None else [at],
            resources={RESOURCE: 1} if at is None else None,
        )
        self.placed[number] = _Placed(future, at)

    def _place(self) -> list[tuple[int, str | None]]:
        """Give waiting jobs to Dask workers that have none; return jobs that lost theirs.

        On a cluster of our own the scheduler does it, one to each worker.
        """
        if self._site.cluster is not None:
            for number in self.waiting:
                self._submit(number)
            self.waiting.clear()
            return []
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        there = dask_workers(self._site.client)
        lost = [(n, placed.at) for n, placed in self.placed.items() if placed.at not in there]
        taken = {placed.at for placed in self.placed.values()}
        free = [address for address in there if address not in taken]
        while self.waiting and free:
            self._submit(self.waiting.pop(0), free.pop(0))
        return lost

    def _give_up_places(self) -> None:
        """Cancel what has no Dask worker to run on: the study is done without it."""
        self.waiting.clear()
        there = dask_workers(self._site.client)
        for number, placed in list(self.placed.items()):
            if not placed.begun or placed.at not in there:
                self._cancel(number)

    def news(self, replace: Callable[[Job], bool]) -> list[Event]:
        """Return the events of the last half second."""
        time.sleep(POLL_SECONDS)
        if self._site.client.status == "connecting":  # again, after the connection was lost
            return []
        if self._site.client.status != "running":
            raise Failed(_GONE)
        events = []
        for number, address in self._place():
            self._cancel(number)
            events.append(self._verdict(number, f"Dask has lost {address}", replace))
        while not self._starts.empty():
            number, address = self._starts.get()
            self._site.say(f"worker {number + 1} of {len(self._jobs)} is at {address}")
            if number not in self.placed:
                continue
            placed = self.placed[number]
            before, placed.at, placed.begun = placed.at, address, True
            if before not in (None, address):  # Dask has placed it anew
                events.append(self._verdict(number, f"Dask has lost {before}", replace))
                if events[-1].kind == "failed":
                    self._tell(STOP_SIGNAL, number)
                    self._cancel(number)
        for number, placed in list(self.placed.items()):
            if placed.future.done():
                del self.placed[number]
                event = _outcome(self._jobs[number], placed.future)
                if event.kind == "replaced":
                    event = self._verdict(number, event.what, replace)
                events.append(event)
                self._done = self._done or event.kind == "done"
        if self._done and not finishing():
            self._give_up_places()
        return events

    def _verdict(self, number: int, how: str, replace: Callable[[Job], bool]) -> Event:
        """Decide what becomes of a job whose worker was lost."""
        job = self._jobs[number]
        if finishing():
            return Event(job.name, "done")
        if not replace(job):
            return Event(job.name, "failed", how, 1)
        if number not in self.placed:  # else Dask itself has placed it anew
            self.waiting.append(number)
        return Event(job.name, "replaced", how)

    def finish(self) -> None:
        """Let workers finish their trials, and begin no other."""
        self.waiting.clear()
        for number, placed in list(self.placed.items()):
            if not placed.begun:
                self._cancel(number)
        if time.monotonic() - self._reminded > _LOOK_SECONDS:
            self._reminded = time.monotonic()
            self._tell(FINISH_SIGNAL)

    def stop(self) -> None:
        """Stop what still runs, wait until it has put its trials back, and forget all."""
        client = self._site.client
        deadline = time.monotonic() + _STOP_SECONDS
        try:
            while self._tell(STOP_SIGNAL) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            client.unsubscribe_topic(self._run)
            client.cancel([placed.future for placed in self.placed.values()])
        except Exception:  # the scheduler is gone, or going, and takes the workers along
            pass

    def _cancel(self, number: int) -> None:
        self._site.client.cancel(self.placed.pop(number).future)

    def _tell(self, signal_number: int, number: int | None = None) -> bool:
        """Send a signal to the processes of one job, or of all; return whether there are any."""
        told = self._site.client.run(
            tell_processes, self._run, signal_number, number, on_error="ignore"
        )
        return any(told.values())


def _outcome(job: Job, future: Future) -> Event:
    """Return the outcome of a task that has ended; ``replaced`` if it should be made again."""
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
    """Open a Dask cluster, until the context is left.

    Args:
        cluster: ``local``, ``slurm`` or a scheduler's address, such as ``tcp://10.0.0.1:8786``.
        options: For SLURM, see `studies.workers.slurm.slurm_options`.
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
        own: SpecCluster
        with local_cluster(workers) as own, Client(own) as client:
            yield Site(client, marker, say, own, environments=environments(workers))
    elif cluster == SLURM:
        with slurm_cluster(options, folder) as own, Client(own) as client:
            own.scale(workers)
            say(f"asked SLURM for {workers} jobs; the scheduler is at {own.scheduler_address}")
            yield Site(client, marker, say, own)
    else:
        with _connect(cluster) as client:
            yield Site(client, marker, say)


def count_workers(address: str, say: Callable[[str], None]) -> int:
    """Count a scheduler's Dask workers, waiting for the first one."""
    with _connect(address) as client:
        waits = False
        while not (found := dask_workers(client)):
            if not waits:
                say(f"the Dask scheduler at {address} has no workers; waiting for the first one")
            waits = True
            time.sleep(POLL_SECONDS)
        return len(found)


def dask_workers(client: Client) -> list[str]:
    """Return the addresses of the Dask workers that a scheduler has.

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
