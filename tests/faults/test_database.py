"""A database server that is really stopped, or killed, and started again."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import json
import multiprocessing
from multiprocessing.synchronize import Event
from operator import methodcaller
import os
from pathlib import Path
import random
import signal
import threading
import time
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
import psycopg
import pytest
import sqlalchemy

from objective import Testbed
from objective import TrainScriptObjective
from objective.results import Results
from objective.worker import claim
from studies.budget import Budget
from studies.loop import StudyLoop
from studies.methods import METHODS
from studies.methods import Setup
from studies.stopping import acknowledge
from studies.stopping import stop_by_signal
from studies.storage.open import open_storage
from studies.storage.recovery import set_patience
from studies.storage.recovery import tell_kept
from tests.conftest import die
from tests.conftest import free_port
from tests.conftest import in_a_process_that_dies
from tests.conftest import PostgresServer
from tests.conftest import Serve
from tests.faults.conftest import advances
from tests.faults.conftest import arguments
from tests.faults.conftest import load
from tests.faults.conftest import output_of
from tests.faults.conftest import states
from tests.faults.conftest import trained
from tests.faults.conftest import until
from tests.faults.invariants import check
from tests.studies.conftest import Cli
from tests.studies.conftest import SECONDS


@pytest.fixture
def server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    yield postgres_server
    if not postgres_server.is_up():
        postgres_server.start()


def _loop(url: str, bed: Path, folder: Path, trials: int, patience: float = 60) -> StudyLoop:
    storage = open_storage(url, patience=patience)
    study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    results = Results(folder / "results")
    testbed = Testbed.load(bed)
    return StudyLoop(
        study,
        TrainScriptObjective(testbed, results=results),
        testbed.baseline,
        METHODS["random"],
        Setup(seed=0, n_trials=trials),
        Budget(trials),
        lock_file=str(folder / "lock"),
        results=results,
    )


def _finish_training(loop: StudyLoop, number: int, then: Callable[[], None]) -> StudyLoop:
    """The loop, with something that happens when the training of a trial has just ended."""
    results = loop.results
    assert results is not None
    keep = results.keep

    def kept(trial: optuna.Trial, *result: object) -> None:
        keep(trial, *result)  # type: ignore[arg-type]
        if trial.number == number:
            then()

    results.keep = kept  # type: ignore[assignment, method-assign]
    return loop


def test_a_database_that_is_away_for_a_while_costs_only_waiting(
    server: PostgresServer, postgres_url: str, bed: Path, ledger: Path, tmp_path: Path
) -> None:
    loop = _loop(postgres_url, bed, tmp_path, 6)
    worker = threading.Thread(target=loop.run)
    worker.start()
    until(lambda: trained(ledger) >= 2)
    server.stop()
    time.sleep(2)
    server.start()
    worker.join()
    check(load(postgres_url), ledger, trials=6)
    assert len(load(postgres_url).trials) == 6, "and no trial was begun twice"


def test_a_proxy_can_be_ended_while_its_database_is_away(
    serve: Serve, server: PostgresServer, postgres_url: str
) -> None:
    port = free_port()
    proxy = serve(postgres_url, port)
    storage = open_storage(f"grpc://127.0.0.1:{port}")
    study = optuna.create_study(storage=storage, study_name="s")
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        try:
            asked = pool.submit(study.get_trials)
            time.sleep(2)
            assert not asked.done()
            proxy.terminate()
            assert proxy.wait(SECONDS) == 0
        finally:
            set_patience(storage, 0.0)
            proxy.kill()
        with pytest.raises(optuna.exceptions.StorageInternalError):
            asked.result()


def test_a_result_outlasts_the_patience_with_the_database(
    server: PostgresServer, postgres_url: str, bed: Path, ledger: Path, tmp_path: Path
) -> None:
    first = _loop(postgres_url, bed, tmp_path, 4, patience=1)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        _finish_training(first, 2, server.stop).run()
    server.start()
    assert load(postgres_url).trials[2].state == TrialState.RUNNING
    [result] = first.results.of("s")  # type: ignore[union-attr]
    _loop(postgres_url, bed, tmp_path, 4).run()
    study = load(postgres_url)
    assert study.trials[2].value == result.value
    check(study, ledger, trials=4)
    assert len(study.trials) == trained(ledger) == 4, "it was told, not repeated"
    assert list((tmp_path / "results").iterdir()) == []


def test_a_result_of_a_trial_that_was_given_up_goes_to_the_copy_that_waits(
    bed: Path, ledger: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    loop = _loop(url, bed, tmp_path, 3)

    def give_up() -> None:  # as another machine does with a worker that slept
        storage = open_storage(url, heartbeat_interval=1, grace_period=1)
        study = optuna.load_study(study_name="s", storage=storage)
        while study.trials[1].state == TrialState.RUNNING:  # until it has been silent for a second
            time.sleep(0.2)
            optuna.storages.fail_stale_trials(study)

    _finish_training(loop, 1, give_up).run()
    study = load(url)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[2].params == study.trials[1].params
    check(study, ledger, trials=3)
    assert trained(ledger) == 3


def test_a_result_of_another_database_is_told_to_nobody(
    bed: Path, ledger: Path, tmp_path: Path
) -> None:
    """A database that was deleted, and its artifacts not."""
    old = _loop(f"sqlite:///{tmp_path}/old.db", bed, tmp_path, 2)
    in_a_process_that_dies(_finish_training(old, 0, die).run)
    results = Results(tmp_path / "results")
    [result] = results.of("s")
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/new.db", study_name="s")
    study.enqueue_trial(result.params)
    trial = study.ask(Testbed.load(bed).space)
    claim(trial)
    assert trial.params == result.params
    assert tell_kept(study, results) == []
    assert study.trials[0].state == TrialState.RUNNING
    assert tell_kept(load(f"sqlite:///{tmp_path}/old.db"), results) == [0], "it is told to its own"


def test_a_trial_whose_end_was_stored_but_not_confirmed_is_ended_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = RDBStorage.set_trial_state_values
    calls = 0

    def cut_after(storage: RDBStorage, *arguments: Any) -> bool:
        nonlocal calls
        calls += 1
        done = really(storage, *arguments)
        if calls == 1:
            with storage.engine.connect() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))
                _cut_all(postgres_url)
                connection.execute(sqlalchemy.text("SELECT 1"))
        return done

    study = optuna.create_study(storage=open_storage(postgres_url), study_name="s")
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    monkeypatch.setattr(RDBStorage, "set_trial_state_values", cut_after)
    study.tell(trial, 0.25)
    assert calls == 1 and [t.value for t in load(postgres_url).trials] == [0.25]


def _cut_all(url: str) -> None:
    """End every other connection to a database, as a restart does."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


_POSTGRES, _MARIADB = ("server", "postgres_url"), ("mariadb_server", "mariadb_url")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fixtures", "stop"),
    [
        pytest.param(_POSTGRES, methodcaller("stop", "fast"), id="fast", marks=pytest.mark.long),
        pytest.param(_POSTGRES, methodcaller("stop", "immediate"), id="immediate"),
        pytest.param(_MARIADB, methodcaller("kill"), id="kill -9"),
    ],
)
def test_a_database_that_restarts_again_and_again_loses_nothing(
    fixtures: tuple[str, str],
    stop: Callable[[object], None],
    request: pytest.FixtureRequest,
    cli: Cli,
    bed: Path,
    ledger: Path,
) -> None:
    server, url = map(request.getfixturevalue, fixtures)
    process = cli.start(*arguments(bed, url, 32, workers=3, method="cma-es"))
    chance = random.Random(0)
    restarts = 0
    while advances(process, ledger, 1 + 3 * restarts):
        time.sleep(chance.uniform(0, 1))
        stop(server)
        time.sleep(chance.uniform(0, 2))
        server.start()
        restarts += 1
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert restarts >= 8
    check(load(url), ledger, trials=32)


def test_a_signal_in_the_middle_of_a_call_is_no_error_of_the_database(postgres_url: str) -> None:
    storage = open_storage(postgres_url)
    assert isinstance(storage, RDBStorage)

    def interrupted(*query: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:  # as SQLAlchemy's own `do_ping` does
            raise psycopg.ProgrammingError("can't change 'autocommit' now")

    sqlalchemy.event.listen(storage.engine, "do_execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.get_all_studies()


def _work_until_stopped(url: str, ready: Event) -> None:
    study = optuna.load_study(study_name="s", storage=open_storage(url, patience=0))
    trial = study.ask()
    stop_by_signal()
    try:
        ready.set()
        while True:
            study.get_trials(deepcopy=False)
            trial.set_user_attr("turn", time.monotonic())
    except KeyboardInterrupt:
        acknowledge()


@pytest.mark.faults
def test_a_signal_at_any_moment_of_a_call_stops(postgres_url: str) -> None:
    """Drivers and SQLAlchemy put errors in its place, or drop it: one in two hundred, before."""
    optuna.create_study(storage=postgres_url, study_name="s")
    context = multiprocessing.get_context("fork")
    chance = random.Random(0)
    for _ in range(150):
        ready = context.Event()
        process = context.Process(target=_work_until_stopped, args=(postgres_url, ready))
        process.start()
        assert ready.wait(SECONDS)
        time.sleep(chance.uniform(0, 0.03))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        process.join(SECONDS)
        stopped = process.exitcode
        process.kill()
        assert stopped == 0


@pytest.mark.faults
@pytest.mark.long
def test_a_database_that_is_away_for_half_a_minute_loses_nothing(
    server: PostgresServer, postgres_url: str, cli: Cli, bed: Path, ledger: Path
) -> None:
    process = cli.start(*arguments(bed, postgres_url, 30, workers=3, method="cma-es"))
    until(lambda: trained(ledger) >= 5)
    server.stop()
    time.sleep(30)
    server.start()
    _, err = output_of(process)
    assert process.returncode == 0, err
    check(load(postgres_url), ledger, trials=30)
    assert trained(ledger) == 30, "and nothing was trained twice"


@pytest.mark.faults
def test_a_proxy_that_is_killed_again_and_again_loses_nothing(
    serve: Serve, postgres_url: str, cli: Cli, bed: Path, ledger: Path
) -> None:
    port = free_port()
    proxy = serve(postgres_url, port)
    address = f"grpc://127.0.0.1:{port}"
    process = cli.start(*arguments(bed, address, 16, workers=3, method="cma-es"))
    chance = random.Random(0)
    kills = 0
    while advances(process, ledger, 1 + 3 * kills):
        time.sleep(chance.uniform(0, 0.5))
        proxy.kill()
        proxy.wait()
        time.sleep(chance.uniform(0, 2))
        proxy = serve(postgres_url, port)
        kills += 1
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert kills >= 3
    check(load(postgres_url), ledger, trials=16)


@pytest.mark.faults
@pytest.mark.long
def test_an_outage_longer_than_the_grace_period_lets_no_living_worker_be_taken_for_dead(
    server: PostgresServer, postgres_url: str, cli: Cli, bed: Path, ledger: Path
) -> None:
    command = arguments(bed, postgres_url, 8, workers=2, train_seconds="70s")
    # The check of a script that is to train for so long would write a line of its own.
    process = cli.start(*command, "--no-check")
    until(lambda: states(postgres_url)["RUNNING"] == 2)
    server.stop()
    time.sleep(64)
    server.start()
    # Told, not only trained: Ctrl-C stops a script that has just written its line.
    until(lambda: states(postgres_url)["COMPLETE"] == 2)
    process.send_signal(signal.SIGINT)
    _, err = output_of(process)
    assert "the workers wait for the database" in err and "the database is back" in err
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    told = [t.value for t in load(postgres_url).trials if t.state == TrialState.COMPLETE]
    assert sorted(told) == sorted(line["value"] for line in lines)  # type: ignore[type-var]
