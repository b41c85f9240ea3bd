"""Trials whose process was killed are queued again, told or given up."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
import pickle
import signal
import subprocess
import sys
import time
from typing import Any

import cmaes
import optuna
from optuna.trial import TrialState
import psutil
import pytest
import sqlalchemy

from objective import TrainScriptObjective
from objective import worker
from objective.worker import claim
from objective.worker import worker_mark
from studies.storage.heartbeat import BEAT
from studies.storage.kinds import StorageError
from studies.storage.open import open_storage
from studies.storage.recovery import abandoned
from studies.storage.recovery import alone
from studies.storage.recovery import MAX_RETRY
from studies.storage.recovery import reclaim
from studies.storage.recovery import recover
from studies.storage.recovery import take
from studies.storage.recovery import unqueued
from tests.toy_testbed import write_testbed


TRAIN = """\
import os, time
X = 1.0
Y = 1.0
Z = 1.0
runs = "RUNS-FILE"
with open(runs, "a") as file:
    print(os.getpid(), file=file)
if len(open(runs).readlines()) == 8:  # trial 7
    time.sleep(60)
print("---")
print("val_bpb:", X**2 + Y**2 + Z**2)
"""
SPACE = "".join(f"[{name}]\ntype = 'float'\nlow = -3\nhigh = 5\n" for name in "XYZ")


def work(url: str, folder: Path) -> None:
    sampler = optuna.samplers.CmaEsSampler(seed=1, n_startup_trials=1, popsize=3)
    study = optuna.create_study(
        storage=open_storage(url), sampler=sampler, study_name="s", load_if_exists=True
    )
    objective = TrainScriptObjective(folder)
    if not study.trials:
        study.enqueue_trial(objective.testbed.baseline)
    reclaim(study)
    done = len(study.get_trials(states=(TrialState.COMPLETE,)))
    study.optimize(objective, n_trials=12 - done)


def lead(*arguments: Any) -> None:
    """Work as the leader of a process group."""
    os.setsid()
    work(*arguments)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_study_killed_in_a_trial_goes_on_as_if_nothing_had_happened(
    kind: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else f"journal:{tmp_path}/s.log"
    runs = tmp_path / "runs"
    train = TRAIN.replace("RUNS-FILE", str(runs))
    folder = write_testbed(tmp_path / "bed", train, **{"search_space.toml": SPACE})
    worker = multiprocessing.get_context("fork").Process(target=lead, args=(url, folder))
    worker.start()
    assert worker.pid is not None
    while not runs.exists() or len(runs.read_text().splitlines()) < 8:
        assert worker.is_alive()
        time.sleep(0.05)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.join()
    study = optuna.load_study(study_name="s", storage=open_storage(url))
    killed = study.trials[7]
    assert killed.state == TrialState.RUNNING and len(study.trials) == 8
    before = cma_state(study)

    work(url, folder)
    trials = study.get_trials()
    assert [t.number for t in trials if t.state == TrialState.FAIL] == [7]
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 12
    assert len(trials) == 13
    assert trials[8].params == killed.params and trials[8].state == TrialState.COMPLETE
    # CMA-ES goes on from its last state: each generation is built on the one before.
    after = cma_state(study)
    assert before.generation == 2 and after.generation > before.generation
    assert after._sigma != 8 / 6, "the step size isn't the initial one"
    generations = [t.system_attrs.get("cma:generation") for t in trials[1:]]
    assert generations == sorted(generations, key=lambda g: (g is not None, g or 0))


def cma_state(study: optuna.Study) -> cmaes.CMA:
    """The optimizer that the last generation left in the storage."""
    for trial in reversed(study.trials):
        parts = sorted(
            (int(key.rpartition(":")[2]), value)
            for key, value in trial.system_attrs.items()
            if key.startswith("cma:optimizer:")
        )
        if parts:
            return pickle.loads(bytes.fromhex("".join(value for _, value in parts)))
    raise AssertionError("no state")


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_only_trials_of_dead_processes_of_this_machine_are_reclaimed(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/s.db"))
    ours, unclaimed, elsewhere, dead, reused, copy = (study.ask() for _ in range(6))
    machine, pid = worker._machine(), os.getpid()
    started = worker._started(pid)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    def note(trial: optuna.Trial, *mark: object) -> None:
        trial.suggest_float("x", 0, 1)
        value = list(mark)
        study._storage.set_trial_system_attr(
            trial._trial_id,
            worker.WORKER,
            value,  # type: ignore[arg-type]
        )

    claim(ours)
    note(elsewhere, "another", child.pid, 1.0, elsewhere.number)
    note(dead, machine, child.pid, 1.0, dead.number)
    note(reused, machine, pid, (started or 0) - 100, reused.number)
    note(copy, machine, child.pid, 1.0, dead.number)  # a retried trial, not yet claimed
    unclaimed.suggest_float("x", 0, 1)

    assert reclaim(study) == [dead.number, reused.number]
    assert reclaim(study) == []
    states = [trial.state for trial in study.trials]
    running, fail, waiting = TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING
    assert states == [running, running, running, fail, fail, running, waiting, waiting]
    assert study.trials[6].params == study.trials[3].params


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_after_a_suspend_only_workers_elsewhere_and_paused_ones_are_taken_for_dead(
    tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else f"journal:{tmp_path}/s.log"
    study = optuna.create_study(storage=open_storage(url))
    storage: Any = study._storage
    children = [subprocess.Popen(["sleep", "3600"]) for _ in range(2)]
    try:
        paused = psutil.Process(children[1].pid)
        paused.suspend()
        while paused.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        machine, pids = worker._machine(), [os.getpid(), *(child.pid for child in children)]
        marks = [(machine, pid, worker._started(pid)) for pid in pids] + [("elsewhere", 1, 1.0)]
        for number, mark in enumerate(marks):
            trial = study.ask()
            storage.record_heartbeat(trial._trial_id)
            storage.set_trial_system_attr(trial._trial_id, worker.WORKER, [*mark, number])
            if kind == "journal":
                storage.set_trial_system_attr(trial._trial_id, BEAT, time.time() - 2 * 3600)
        if kind == "sqlite":
            with storage._backend.engine.begin() as connection:
                ago = "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-2 minutes')"
                connection.execute(sqlalchemy.text(ago))
        assert abandoned(study).keys() == {2, 3}
        recover(study)
    finally:
        for child in children:
            child.kill()
            child.wait()
    running, fail, waiting = TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING
    assert [t.state for t in study.trials] == [running, running, fail, fail, waiting, waiting]


def test_a_worker_that_loses_a_claim_does_not_say_that_it_runs_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study(storage=open_storage(f"journal:{tmp_path}/s.log"))
    study.enqueue_trial({"x": 0.5})
    [waiting] = study.trials
    assert take(study, waiting)
    mark = worker_mark(waiting.number)
    monkeypatch.setattr(worker, "_machine", lambda: "elsewhere")
    assert not take(study, waiting)
    [trial] = study.trials
    assert trial.state == TrialState.RUNNING
    assert trial.system_attrs[worker.WORKER] == mark != worker_mark(trial.number)


def test_a_file_system_that_cannot_lock_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StorageError, match="claim must be on a file system that can lock files"):
        with alone(str(tmp_path / "claim")):
            pass


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_parameters_that_kill_their_process_are_given_up(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/s.db"))
    for _ in range(MAX_RETRY + 1):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        kill(trial)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * (MAX_RETRY + 1)
    assert len({trial.params["x"] for trial in study.trials}) == 1
    assert unqueued(study.trials) == []


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_script_that_kills_its_process_is_given_up(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/s.db"))
    study.enqueue_trial({}, user_attrs={"source_sha256": "0" * 64})
    for _ in range(MAX_RETRY + 1):
        kill(study.ask())
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * (MAX_RETRY + 1)
    assert {trial.user_attrs["source_sha256"] for trial in study.trials} == {"0" * 64}
    assert unqueued(study.trials) == []


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_trial_killed_before_it_has_parameters_is_never_given_up(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/s.db"))
    for _ in range(2 * MAX_RETRY):
        kill(study.ask())
    trial = study.ask()
    assert study.trials[-1].system_attrs["failed_trial"] == 0
    trial.suggest_float("x", 0, 1)
    kill(trial)
    assert study.trials[-1].state == TrialState.WAITING


def test_what_a_living_process_puts_back_is_queued_by_nobody_else() -> None:
    study = optuna.create_study()
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    [failed] = study.trials

    def is_unqueued(pid: int, started: float | None) -> bool:
        mark: Any = [worker._machine(), pid, started, 0]
        failed.system_attrs = {worker.WORKER: mark}
        return bool(unqueued([failed]))

    other = os.getppid()
    assert not is_unqueued(other, worker._started(other))
    assert is_unqueued(other, 0.0)  # which has ended since
    assert is_unqueued(os.getpid(), worker._started(os.getpid()))


def test_parameters_that_optuna_does_not_take_again_are_lost_in_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study._storage._get_trial(trial._trial_id).params["x"] = "te\nxt"  # type: ignore[attr-defined]
    kill(trial)
    assert [t.state for t in study.trials] == [TrialState.FAIL]
    [record] = caplog.records
    assert record.getMessage().startswith("the parameters of trial 0 can't be queued again: ")


def kill(trial: optuna.Trial) -> None:
    """Let a trial look like that of a process that is gone, and somebody find it."""
    mark: Any = [worker._machine(), 2**22 + 1, 0.0, trial.number]
    trial.storage.set_trial_system_attr(trial._trial_id, worker.WORKER, mark)
    reclaim(trial.study)
