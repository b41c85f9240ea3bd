"""Costs of a study's trials for the database and the processor, and their growth.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.scale [--workers 1,4,16,64] [--stored 100,20000]

Everything runs against a PostgreSQL server of its own on this machine, started as the tests start
theirs (without fsync). The objective costs nothing and has the 14 hyperparameters of the
autoresearch study; language models are scripted. Four tables:

- *Round trips.* Statements and transactions a trial, counted by SQLAlchemy's events, of Optuna's
  own samplers under `Study.optimize` and of ours, and of both under `studies.loop.StudyLoop`; the
  mean of ``--trials`` trials after a warm-up, so that CMA-ES is in its stride.
- *Workers.* Processes that share a study, claiming trials freely, as workers on several machines
  do, or in turns, as those of one machine; directly or by `serve-storage`. Trials a second are from
  the first start to the last end, of a machine that may have other work; so the processor's time is
  told too, of the workers and of the server, and what the server's connections were waiting for,
  looked at every 50 ms.
- *Heartbeats.* The processor's time of one.
- *Stored trials.* The processor's time of one more trial in a study that has many. The last 200 of
  them are CMA-ES's own, with its state; the others are random. SMAC is measured to 1,000.

Takes about ten minutes on two cores. Writes ``results/scale_trips.md``, ``scale_beats.md``,
``scale_workers.md`` and ``scale_stored.md``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
import multiprocessing
import os
from pathlib import Path
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any
from typing import NamedTuple
import uuid
import warnings

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
import psutil
import psycopg
import sqlalchemy

from samplers import CentaurSampler
from samplers import SMACSampler
from samplers._llm.schema_chat import SchemaChat
from studies.budget import Budget
from studies.loop import StudyLoop
from studies.methods import METHODS
from studies.methods import Setup
from studies.storage.bulk import add_trials
from studies.storage.open import open_storage
from tests.conftest import free_port
from tests.conftest import PostgresServer
from tests.conftest import serve_storage

from .smac_cost import cost
from .smac_cost import SPACE


RESULTS = Path(__file__).parent / "results"
_TAGGED = 200
_PROXY = "by gRPC"
_TURNS = "in turns"  # claiming, by a lock file, as the workers of one machine do
_CONNECTIONS = 300  # a worker takes two, and PostgreSQL's default is 100
_BEATS = 300
_FURTHER = 8  # trials of a process in a study that has many
_MOST_SMAC = 1000  # stored trials; its forest is made anew for each trial
_WARM_UP = 15  # trials until CMA-ES and Centaur are past their random start
_LOOK_SECONDS = 0.05
_START_SECONDS = 300  # within which all workers are ready, or one has died
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def objective(trial: optuna.Trial) -> float:
    return cost({name: trial._suggest(name, d) for name, d in SPACE.items()})


BASELINE = {
    name: d.choices[0] if isinstance(d, optuna.distributions.CategoricalDistribution) else d.low  # type: ignore[attr-defined]
    for name, d in SPACE.items()
}

SAMPLERS: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "tpe": lambda: optuna.samplers.TPESampler(seed=0),
    "cma-es": lambda: optuna.samplers.CmaEsSampler(seed=0, warn_independent_sampling=False),
    "centaur": lambda: CentaurSampler(chat=SchemaChat(), seed=0),
    "smac": lambda: SMACSampler(seed=0),
}


def loop(study: optuna.Study, method: str, trials: int) -> StudyLoop:
    setup = Setup(seed=0, n_trials=trials, chat=SchemaChat())
    return StudyLoop(study, objective, BASELINE, METHODS[method], setup, Budget(trials))


class Server(PostgresServer):
    """The tests' server, with room for many workers and a look inside."""

    def database(self, template: str | None = None) -> str:
        """The URL of a new database, empty or a copy of the one at another URL."""
        name = f"s{uuid.uuid4().hex}"
        like = f" TEMPLATE {template.rpartition('/')[2]}" if template else ""
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}{like}")  # type: ignore[call-overload]
        return f"{self.url}/{name}"

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(f"{self.url.replace('+psycopg', '')}/postgres", autocommit=True)

    def cpu_seconds(self) -> float:
        """Return the processor time of all its processes so far."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        main = psutil.Process(pid)
        times = main.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in main.children():
            try:
                of_child = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += of_child.user + of_child.system
        return float(total)


@contextmanager
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    running = Server(_POSTGRES[-1], folder)
    running.start(f"max_connections={_CONNECTIONS}")
    try:
        yield running
    finally:
        running.stop("immediate")
        shutil.rmtree(folder)


# --- Round trips --------------------------------------------------------------------------------


class RoundTrips:
    """Counts what is said to a database: statements, and ends of transactions."""

    def __init__(self, storage: RDBStorage) -> None:
        self.statements = self.transactions = 0
        sqlalchemy.event.listen(storage.engine, "before_cursor_execute", self._statement)
        for end in ("commit", "rollback"):
            sqlalchemy.event.listen(storage.engine, end, self._transaction)

    def _statement(self, *_: object) -> None:
        self.statements += 1

    def _transaction(self, *_: object) -> None:
        self.transactions += 1


def round_trips(url: str, name: str, in_loop: bool, trials: int) -> tuple[float, float]:
    """Statements and transactions a trial."""
    storage = open_storage(url)
    assert isinstance(storage, RDBStorage)
    study = optuna.create_study(storage=storage, sampler=SAMPLERS[name]())
    if in_loop:
        loop(study, name, _WARM_UP).run()
    else:
        study.optimize(objective, n_trials=_WARM_UP)
    count = RoundTrips(storage)
    if in_loop:
        loop(study, name, _WARM_UP + trials).run()
    else:
        study.optimize(objective, n_trials=trials)
    assert len(study.trials) == _WARM_UP + trials
    return count.statements / trials, count.transactions / trials


def round_trip_table(pg: Server, trials: int) -> list[str]:
    lines = [
        "| sampler | `Study.optimize`: statements | transactions | `StudyLoop`: statements"
        " | transactions | statements against Optuna's own |",
        "|---|---|---|---|---|---|",
    ]
    own: dict[str, float] = {}
    for name in SAMPLERS:
        plain = round_trips(pg.database(), name, False, trials)
        looped = round_trips(pg.database(), name, True, trials)
        own[name] = plain[0]
        base = own[{"centaur": "cma-es", "smac": "tpe"}.get(name, name)]
        lines.append(
            f"| {name} | {plain[0]:.1f} | {plain[1]:.1f} | {looped[0]:.1f} | {looped[1]:.1f}"
            f" | {plain[0] / base:.2f}, in the loop {looped[0] / base:.2f} |"
        )
        print(lines[-1], flush=True)
    return lines


# --- Workers ------------------------------------------------------------------------------------


class Shared(NamedTuple):
    """The result of some workers on one study.

    Attributes:
        per_second: Trials, from the first start to the last end.
        client_ms, server_ms, proxy_ms: Processor time a trial.
        statements: A trial, the last look included, which finds that the budget is used up; 0 of
            workers that speak to the proxy.
        busy: How often a connection was seen at what.
        connections: The most at a moment.
    """

    per_second: float
    client_ms: float
    server_ms: float
    proxy_ms: float
    statements: float
    busy: Counter[str]
    connections: int


def _work(url: str, method: str, trials: int, lock: str | None, start: Any, spent: Any) -> None:
    warnings.simplefilter("ignore")
    storage = open_storage(url)
    study = optuna.load_study(study_name="s", storage=storage)
    ready = replace(loop(study, method, trials), lock_file=lock)
    study.get_trials(deepcopy=False)
    count = RoundTrips(storage) if isinstance(storage, RDBStorage) else None
    start.wait()
    before = time.process_time()
    ready.run()
    spent.put((time.process_time() - before, count.statements if count else 0))


def share(pg: Server, method: str, workers: int, trials: int, way: str) -> Shared:
    """Let processes do so many trials between them, after a start that is not counted."""
    url = pg.database()
    lock = (
        str(Path(tempfile.gettempdir()) / f"scale-{uuid.uuid4().hex}") if way == _TURNS else None
    )
    study = optuna.create_study(storage=open_storage(url), study_name="s")
    loop(study, method, _WARM_UP).run()
    where, gate = _serve(url) if way == _PROXY else (url, None)
    context = multiprocessing.get_context("fork")  # which spares each worker its imports
    start, spent = context.Barrier(workers + 1), context.Queue()
    jobs = [
        context.Process(target=_work, args=(where, method, _WARM_UP + trials, lock, start, spent))
        for _ in range(workers)
    ]
    study._storage.remove_session()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    for job in jobs:
        job.start()
    start.wait(_START_SECONDS)
    before = pg.cpu_seconds()
    gate_before = _cpu(gate)
    busy: Counter[str] = Counter()
    client, connections, statements = 0.0, 0, 0
    with pg.connect() as connection:
        for _ in jobs:
            while spent.empty():
                assert not any(job.exitcode for job in jobs), "a worker died"
                seen = _busy(connection)
                busy.update(seen)
                connections = max(connections, len(seen))
                time.sleep(_LOOK_SECONDS)
            seconds, said = spent.get()
            client += seconds
            statements += said
    for job in jobs:
        job.join()
    if lock is not None:
        Path(lock).unlink()
    time.sleep(1)  # for the server to count the processes of their connections, which end now
    server_seconds = pg.cpu_seconds() - before
    proxy_seconds = _cpu(gate) - gate_before
    _end(gate)
    done = optuna.load_study(study_name="s", storage=open_storage(url)).trials[_WARM_UP:]
    assert len([t for t in done if t.state == TrialState.COMPLETE]) == trials
    ends = [t.datetime_complete for t in done if t.datetime_complete]
    starts = [t.datetime_start for t in done if t.datetime_start]
    span = (max(ends) - min(starts)).total_seconds()
    ms = 1000 / trials
    spent_ms = client * ms, server_seconds * ms, proxy_seconds * ms
    return Shared(trials / span, *spent_ms, statements / trials, busy, connections)


def _serve(url: str) -> tuple[str, subprocess.Popen[str]]:
    port = free_port()
    return f"grpc://127.0.0.1:{port}", serve_storage(url, port)


def _cpu(process: subprocess.Popen[str] | None) -> float:
    if process is None:
        return 0.0
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def _end(process: subprocess.Popen[str] | None) -> None:
    if process is not None:
        process.terminate()
        process.communicate()


def _busy(connection: psycopg.Connection[Any]) -> list[str]:
    """Return what each connection waits for at this moment; "runs" if for nothing."""
    rows = connection.execute(
        "SELECT state, coalesce(wait_event_type, '') FROM pg_stat_activity"
        " WHERE datname LIKE 's%' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ).fetchall()
    names = {"": "runs", "Lock": "waits for another's row", "Client": "its worker computes"}
    return [names.get(wait, f"waits ({wait})") for _, wait in rows]


def worker_table(
    pg: Server, methods: list[str], workers: list[int], others: list[int], least: int
) -> list[str]:
    lines = [
        "| method | workers | trials | trials a second | ms of the processor a trial: workers"
        " | PostgreSQL | proxy | statements a trial | connections | what they did, over time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        name, _, way = method.partition(" ")
        for n in workers if method == methods[0] else others:
            trials = max(least, n)
            got = share(pg, name, n, trials, way)
            total = sum(got.busy.values())
            told = ", ".join(f"{what} {k / total:.0%}" for what, k in got.busy.most_common(3))
            statements = "-" if way == _PROXY else f"{got.statements:.0f}"
            lines.append(
                f"| {method} | {n} | {trials} | {got.per_second:.2f} | {got.client_ms:.0f}"
                f" | {got.server_ms:.0f} | {got.proxy_ms:.0f}"
                f" | {statements} | {got.connections} | {told} |"
            )
            print(lines[-1], flush=True)
    return lines


# --- Heartbeats ---------------------------------------------------------------------------------


def beat_table(pg: Server) -> list[str]:
    """Measure the cost of a heartbeat."""
    lines = [
        "| way | ms of the processor a heartbeat: worker | PostgreSQL | proxy |",
        "|---|---|---|---|",
    ]
    for way in ("direct", _PROXY):
        url = pg.database()
        optuna.create_study(storage=open_storage(url), study_name="s").ask()
        where, gate = _serve(url) if way == _PROXY else (url, None)
        study = optuna.load_study(study_name="s", storage=open_storage(where))
        storage: Any = study._storage
        trial_id = study.get_trials(deepcopy=False)[0]._trial_id
        storage.record_heartbeat(trial_id)
        before = time.process_time(), pg.cpu_seconds(), _cpu(gate)
        for _ in range(_BEATS):
            storage.record_heartbeat(trial_id)
        after = time.process_time(), pg.cpu_seconds(), _cpu(gate)
        told = (f"{1000 * (b - a) / _BEATS:.1f}" for a, b in zip(before, after))
        lines.append(f"| {way} | {' | '.join(told)} |")
        print(lines[-1], flush=True)
        _end(gate)
    return lines


# --- Stored trials ------------------------------------------------------------------------------


class Stored(NamedTuple):
    """Seconds of the processor for a study's first trial in a process, and each after it."""

    first: float
    further: float


def tagged(n: int) -> list[optuna.trial.FrozenTrial]:
    """Trials that CMA-ES proposed and was told."""
    study = optuna.create_study(sampler=SAMPLERS["cma-es"]())
    study.optimize(objective, n_trials=n)
    return study.trials


def random_trials(n: int) -> list[optuna.trial.FrozenTrial]:
    """At most 1,000 different ones, over and over."""
    study = optuna.create_study(sampler=SAMPLERS["random"]())
    study.optimize(objective, n_trials=min(n, 1000))
    trials = study.trials
    return [trials[i % 1000] for i in range(n)]


def one_more(url: str, method: str, stored: int, trials: int) -> Stored:
    """Measure the cost for a process of going on with a study."""
    begun: list[float] = []

    def timed(trial: optuna.Trial) -> float:
        value = objective(trial)
        begun.append(time.process_time())
        return value

    start = time.process_time()
    study = optuna.load_study(study_name="s", storage=open_storage(url))
    replace(loop(study, method, stored + trials), objective=timed).run()
    further = [after - before for before, after in zip(begun, begun[1:])]
    return Stored(begun[0] - start, statistics.median(further))


def stored_table(pg: Server, methods: list[str], stored: list[int], trials: int) -> list[str]:
    lines = [
        "| stored trials | method | ms of the processor: first trial of a process | each further one"
        " | PostgreSQL, mean | proxy, mean |",
        "|---|---|---|---|---|---|",
    ]
    last = tagged(min(_TAGGED, max(stored)))
    for n in stored:
        filled = pg.database()
        storage = open_storage(filled)
        assert isinstance(storage, RDBStorage)
        study = optuna.create_study(storage=storage, study_name="s")
        add_trials(study, storage, [*random_trials(max(0, n - len(last))), *last][-n:])
        storage.remove_session()
        storage.engine.dispose()
        for method in methods:
            if method == "smac" and n > _MOST_SMAC:
                continue
            url = pg.database(filled)
            name, _, way = method.partition(" ")
            where, gate = _serve(url) if way else (url, None)
            before, gate_before = pg.cpu_seconds(), _cpu(gate)
            got = one_more(where, name, n, trials)
            server_ms = 1000 * (pg.cpu_seconds() - before) / trials
            gate_ms = 1000 * (_cpu(gate) - gate_before) / trials
            _end(gate)
            lines.append(
                f"| {n:,} | {method} | {1000 * got.first:.0f} | {1000 * got.further:.0f}"
                f" | {server_ms:.0f} | {gate_ms:.0f} |"
            )
            print(lines[-1], flush=True)
    return lines


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20, help="of a count of round trips")
    several = (
        "random,random in turns,random by gRPC,cma-es in turns,centaur in turns,smac in turns"
    )
    parser.add_argument("--methods", default=several)
    parser.add_argument(
        "--workers",
        type=_integers,
        default=[1, 2, 4, 8, 16, 32, 64],
        help="of the first method",
    )
    parser.add_argument("--others", type=_integers, default=[1, 16], help="of the other methods")
    parser.add_argument("--least", type=int, default=32, help="trials of some workers, at least")
    parser.add_argument("--stored", type=_integers, default=[100, 1000, 5000, 20000])
    parser.add_argument("--only", default="trips,beats,workers,stored", help="of the tables")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    methods = arguments.methods.split(",")
    words = " ".join(sys.argv[1:])
    lines = [
        f"Made by `python -m tests.benchmarks.scale {words}`".rstrip(" `") + "` on"
        f" {os.cpu_count()} cores with a load of {os.getloadavg()[1]:.1f} from other work;"
        f" PostgreSQL {_POSTGRES[-1].parent.name} on the same machine, without fsync;"
        f" {len(SPACE)} parameters.",
    ]
    with server() as pg:
        tables: dict[str, tuple[str, Callable[[], list[str]]]] = {
            "trips": ("Round trips a trial", lambda: round_trip_table(pg, arguments.trials)),
            "workers": (
                "Workers that share a study",
                lambda: worker_table(
                    pg, methods, arguments.workers, arguments.others, arguments.least
                ),
            ),
            "beats": ("Heartbeats", lambda: beat_table(pg)),
            "stored": (
                "One more trial among many",
                lambda: stored_table(
                    pg,
                    ["random", f"random {_PROXY}", "cma-es", "centaur", "smac"],
                    arguments.stored,
                    _FURTHER,
                ),
            ),
        }
        for name in arguments.only.split(","):
            title, table = tables[name]
            print(title, flush=True)
            path = RESULTS / f"scale_{name}.md"
            path.write_text("\n".join([*lines, "", *table()]) + "\n")


if __name__ == "__main__":
    main()
