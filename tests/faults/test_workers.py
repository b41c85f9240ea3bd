"""Workers that are killed, paused, or twice as many as somebody meant to start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
import fcntl
from pathlib import Path
import random
import sqlite3
import subprocess
import time
from typing import Any

import optuna
from optuna.trial import TrialState
import psutil
import pytest

from objective import worker
from studies.budget import Budget
from studies.errors import Failed
from studies.loop import StudyLoop
from studies.loop import Watch
from studies.methods import METHODS
from studies.methods import Setup
from studies.spec import Spec
from studies.spec import Where
from studies.storage import recovery
from studies.storage.open import claim_lock
from studies.storage.open import open_storage
from studies.storage.recovery import recover
from studies.workers.share import share_work
from tests.conftest import die
from tests.conftest import in_a_process_that_dies
from tests.faults.conftest import advances
from tests.faults.conftest import arguments
from tests.faults.conftest import held
from tests.faults.conftest import load
from tests.faults.conftest import obedient
from tests.faults.conftest import output_of
from tests.faults.conftest import states
from tests.faults.conftest import trained
from tests.faults.conftest import until
from tests.faults.conftest import workers_of
from tests.faults.invariants import check
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.studies.conftest import Cli


def _open(url: str) -> optuna.Study:
    storage = open_storage(url, heartbeat_interval=1, grace_period=2)
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def _work(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> float:
        worker.claim(trial)
        return trial.suggest_float("x", 0, 1)

    StudyLoop(
        study, objective, {"x": 0.5}, METHODS["random"], Setup(seed=0, n_trials=4), Budget(4)
    ).run()


@pytest.mark.parametrize(
    ("kind", "moment", "machine"),
    [
        ("sqlite", "before", "this"),
        ("sqlite", "after", "this"),
        ("sqlite", "after", "another"),
        ("postgres", "after", "another"),
        ("journal", "after", "this"),
    ],
)
def test_a_worker_that_dies_while_it_claims_leaves_no_zombie(
    kind: str,
    moment: str,
    machine: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    url = {"sqlite": f"sqlite:///{tmp_path}/s.db", "journal": f"journal:{tmp_path}/s.log"}.get(
        kind
    )
    url = url or request.getfixturevalue("postgres_url")

    def killed() -> None:
        if machine == "another":
            worker._machine = lambda: "another"
        study = _open(url)
        really = study._storage.set_trial_state_values

        def claim(trial_id: int, state: TrialState, values: object = None) -> bool:
            if moment == "after":
                really(trial_id, state)
            die()
            return False

        study._storage.set_trial_state_values = claim  # type: ignore[method-assign]
        _work(study)

    in_a_process_that_dies(killed)
    study = _open(url)
    [trial] = study.trials
    assert trial.state == (TrialState.RUNNING if moment == "after" else TrialState.WAITING)
    _work(study)
    done = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(done) == 4 and [t.params["x"] for t in done].count(0.5) == 1
    assert {t.state for t in study.trials} <= {TrialState.COMPLETE, TrialState.FAIL}


def test_a_worker_that_dies_between_failing_a_trial_and_queueing_it_again_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"

    def killed_in_a_trial() -> None:
        study = _open(url)
        study._storage.record_heartbeat = lambda trial_id: None  # type: ignore[attr-defined]
        monkeypatch.setattr(optuna.Trial, "suggest_float", die)
        _work(study)

    def killed_at_its_rescue() -> None:
        monkeypatch.setattr(recovery, "retry", die)
        recover(_open(url))

    in_a_process_that_dies(killed_in_a_trial)
    in_a_process_that_dies(killed_at_its_rescue)
    study = _open(url)
    assert [t.state for t in study.trials] == [TrialState.FAIL]
    _work(study)
    assert [t.state.name for t in study.trials] == ["FAIL", *["COMPLETE"] * 4]
    assert study.trials[1].params == {"x": 0.5}


def test_a_killed_worker_is_replaced_and_its_trial_repeated(
    cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    command = arguments(bed, cli.storage, 8, workers=2)
    process = cli.start(*command)
    until(lambda: trained(ledger) >= 2)
    gate.touch()  # until it has a successor
    until(lambda: held(gate) == 2)
    workers_of(process.pid)[0].kill()
    until(lambda: states(cli.storage) >= Counter(FAIL=1, RUNNING=2))
    gate.unlink()
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert "a worker is replaced: its process was killed by SIGKILL (1 of 6)" in err
    study = load(cli.storage)
    check(study, ledger, trials=8, kills=1)
    assert len({t.system_attrs[worker.WORKER][1] for t in study.trials}) == 3


def _die_at_work(spec: Spec, watch: Watch) -> None:
    die()


def test_workers_that_are_always_killed_are_not_replaced_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.workers.share.REPLACEMENTS", 1)
    url = f"sqlite:///{tmp_path}/s.db"
    lines: list[str] = []
    with pytest.raises(Failed, match="its process was killed by SIGKILL"):
        spec = Spec(Where(url), "s", "random", 0, Budget(4))
        share_work(_open(url), _die_at_work, spec, 1, lambda trials: None, lines.append)
    assert [line.rpartition("(")[2] for line in lines] == ["1 of 1)"]


@pytest.mark.parametrize(
    ("trials", "workers"),
    [(16, 2), pytest.param(45, 4, marks=[pytest.mark.faults, pytest.mark.long])],
)
def test_centaur_keeps_its_promises_while_workers_are_killed_one_after_another(
    trials: int,
    workers: int,
    postgres_url: str,
    cli: Cli,
    bed: Path,
    ledger: Path,
    model: LoopbackServer,
) -> None:
    command = arguments(
        bed,
        postgres_url,
        trials,
        workers=workers,
        method="centaur",
        llm=model.url,
        model="m",
        llm_ratio=0.5,
    )
    process = cli.start(*command)
    killed = 0
    while (killed + 1) * 10 < trials and advances(process, ledger, killed * 10 + 5):
        until(lambda: workers_of(process.pid))[0].kill()
        killed += 1
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert err.count("a worker is replaced") == killed == trials // 10
    check(load(postgres_url), ledger, trials=trials, kills=killed, llm_ratio=0.5)


def kill_workers(command: subprocess.Popen[str], ledger: Path, *, every: int) -> int:
    """Kill one of a command's workers at some moment after so many trainings; how many were."""
    chance = random.Random(0)
    kills = 0
    while advances(command, ledger, (kills + 1) * every):
        time.sleep(chance.uniform(0, 1))
        if workers := workers_of(command.pid):
            chance.choice(workers).kill()
            kills += 1
    return kills


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_workers_killed_at_random_moments_lose_nothing(
    kind: str, cli: Cli, bed: Path, ledger: Path, request: pytest.FixtureRequest
) -> None:
    url = cli.storage if kind == "sqlite" else request.getfixturevalue("postgres_url")
    process = cli.start(*arguments(bed, url, 40, workers=3, method="cma-es"))
    kills = kill_workers(process, ledger, every=4)
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert kills >= 8
    check(load(url), ledger, trials=40, kills=kills)
    assert cli(*arguments(bed, url, 42, workers=1, method="cma-es")).returncode == 0
    check(load(url), ledger, trials=42, kills=kills)


def slowly(answer: Callable[[dict[str, Any]], Answer]) -> Callable[[dict[str, Any]], Answer]:
    def wait(request: dict[str, Any]) -> Answer:
        time.sleep(1.5)
        return answer(request)

    return wait


@pytest.mark.faults
def test_workers_killed_while_a_slow_model_is_asked_lose_no_turn(
    postgres_url: str, cli: Cli, bed: Path, ledger: Path, model: LoopbackServer
) -> None:
    model.answers = slowly(obedient(random.Random(0)))
    asked = {"method": "centaur", "llm": model.url, "model": "m", "llm_ratio": 0.5}
    process = cli.start(*arguments(bed, postgres_url, 30, workers=4, **asked))
    kills = kill_workers(process, ledger, every=5)
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert kills >= 5
    check(load(postgres_url), ledger, trials=30, kills=kills, llm_ratio=0.5)


def _pause(worker: psutil.Process, url: str) -> None:
    """Pause a worker at a moment when it has no lock that the others need to go on."""
    while True:
        worker.suspend()
        for _ in range(50):
            if _is_free(url):
                return
            time.sleep(0.02)
        worker.resume()


def _is_free(url: str) -> bool:
    database = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0)
    with open(claim_lock(url), "a") as claim, closing(database):
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            database.execute("BEGIN IMMEDIATE")
        except (BlockingIOError, sqlite3.OperationalError):
            return False
    return True


@pytest.mark.faults
@pytest.mark.long
def test_a_worker_that_is_paused_for_longer_than_its_heartbeat_harms_nobody(
    cli: Cli, bed: Path, ledger: Path
) -> None:
    """Its trial is repeated by the others; what it brings when it wakes is not counted twice."""
    command = arguments(bed, cli.storage, 12, workers=2, train_seconds="0.5s")
    process = cli.start(*command)
    until(lambda: trained(ledger) >= 3)
    paused = until(lambda: workers_of(process.pid))[0]
    _pause(paused, cli.storage)
    until(lambda: states(cli.storage)["FAIL"])
    paused.resume()
    _, err = output_of(process)
    assert process.returncode == 0, err
    check(load(cli.storage), ledger, trials=12, kills=1)  # the paused training was repeated


@pytest.mark.faults
@pytest.mark.parametrize("kind", [pytest.param("sqlite", marks=pytest.mark.long), "postgres"])
def test_two_commands_started_by_mistake_share_one_study(
    kind: str, cli: Cli, bed: Path, ledger: Path, request: pytest.FixtureRequest
) -> None:
    url = cli.storage if kind == "sqlite" else request.getfixturevalue("postgres_url")
    both = [cli.start(*arguments(bed, url, 20, workers=2)) for _ in range(2)]
    until(lambda: trained(ledger) >= 4)
    until(lambda: workers_of(both[0].pid))[0].kill()
    for process in both:
        _, err = output_of(process)
        assert process.returncode == 0, err
    check(load(url), ledger, trials=20, kills=1)


def test_a_worker_with_another_search_space_is_sent_away(
    cli: Cli, bed: Path, ledger: Path
) -> None:
    first = cli.start(*arguments(bed, cli.storage, 5, train_seconds="0.4s"), "--worker")
    until(lambda: cli.trials("s"))
    space = bed / "search_space.toml"
    really = space.read_text()
    space.write_text(really.replace("high = 8", "high = 9"))
    error = cli.fails(2, *arguments(bed, cli.storage, 5, train_seconds="0.4s"))
    assert "another search space" in error
    _, err = output_of(first)
    assert first.returncode == 0, err
    check(load(cli.storage), ledger, trials=5)


@pytest.mark.faults
def test_a_budget_of_time_is_not_overrun_by_several_workers(
    cli: Cli, bed: Path, ledger: Path
) -> None:
    command = arguments(bed, cli.storage, 100, train_seconds="0.4s", budget="3s")
    assert cli(*command, "--workers", 3).returncode == 0
    trials = load(cli.storage).trials
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    spent = sum(t.user_attrs["training_seconds"] for t in trials)
    dearest = max(t.user_attrs["training_seconds"] for t in trials)
    # A trial may take longer than any before it did.
    assert 3 - 2 * dearest < spent <= 3 + 3 * (dearest - 0.4)
