"""Claiming and evaluating trials, without a command line and without a training."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
import math
import os
from pathlib import Path
import re
import signal
import sys
import threading
import time
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest
import sqlalchemy

from objective.results import Results
from objective.run.script import DiskFull
from objective.worker import claim
from objective.worker import WORKER
from studies.budget import Budget
from studies.loop import StudyLoop
from studies.loop import StudyStopped
from studies.methods import METHODS
from studies.methods import Setup
from studies.stopping import acknowledge
from studies.stopping import FINISH_SIGNAL
from studies.stopping import REQUEUE
from studies.stopping import stop_by_signal
from studies.stopping import STOP_SIGNAL
from studies.storage.open import open_storage
from studies.storage.recovery import MAX_RETRY
from studies.storage.recovery import take
from tests.conftest import StorageFactory


BASELINE = {"x": 3.0, "k": 2, "c": "b"}


def suggest(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0, 10)
    k = trial.suggest_int("k", 1, 9)
    c = trial.suggest_categorical("c", ["a", "b"])
    return (x - 2) ** 2 + k + (c == "a")


def record(trial: optuna.Trial, status: str = "ok") -> None:
    trial.set_user_attr("status", status)
    trial.set_user_attr("training_seconds", 1.0)


def objective(trial: optuna.Trial) -> float:
    value = suggest(trial)
    record(trial)
    trial.set_user_attr("val_bpb", value)
    return value


def open_study(storage: str | optuna.storages.BaseStorage | None) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def loop(
    study: optuna.Study,
    function: Callable[[optuna.Trial], float] = objective,
    *,
    trials: int,
    method: str = "random",
    seed: int = 0,
    lock_file: str | None = None,
) -> StudyLoop:
    setup = Setup(seed=seed, n_trials=trials)
    budget = Budget(trials=trials)
    return StudyLoop(study, function, BASELINE, METHODS[method], setup, budget, lock_file)


def test_trial_0_is_the_baseline_and_the_number_of_trials_is_that_of_all_runs(
    storage: StorageFactory,
) -> None:
    for trials in (2, 4, 4):
        loop(open_study(storage()), trials=trials).run()
    study = open_study(storage())
    assert [t.number for t in study.trials if t.params == BASELINE] == [0]
    assert len(study.trials) == 4


@pytest.mark.parametrize("method", ["random", "tpe", "cma-es"])
def test_a_resumed_study_is_the_one_that_was_not_interrupted(method: str, tmp_path: Path) -> None:
    whole = optuna.create_study()
    loop(whole, trials=20, method=method, seed=7).run()
    url = f"sqlite:///{tmp_path}/s.db"
    for trials in (4, 11, 20):
        loop(open_study(open_storage(url)), trials=trials, method=method, seed=7).run()
    resumed = open_study(url)
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]
    assert len({tuple(t.params.values()) for t in whole.trials}) == 20


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_study_of_which_a_trial_was_killed_goes_on_as_one_of_which_none_was(method: str) -> None:
    whole, killed = optuna.create_study(), optuna.create_study()
    loop(whole, trials=14, method=method).run()
    loop(killed, trials=6, method=method).run()
    killed.tell(killed.ask(), state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback()(killed, killed.trials[-1])
    loop(killed, trials=14, method=method).run()
    succeeded = [t.params for t in killed.trials if t.state == TrialState.COMPLETE]
    assert succeeded == [t.params for t in whole.trials]


@pytest.mark.parametrize("method", ["random", "tpe", "cma-es"])
def test_another_seed_is_another_study_and_0_is_a_seed(method: str) -> None:
    seen = []
    for seed in (0, 1, 0):
        study = optuna.create_study()
        loop(study, trials=15, method=method, seed=seed).run()
        seen.append([t.params for t in study.trials])
    assert seen[0] == seen[2] != seen[1]


def test_a_trial_asks_the_database_at_most_1_3_times_as_often_as_optuna_does(
    tmp_path: Path,
) -> None:
    """With 14 parameters, as in the paper; each takes two statements of a trial's 59."""

    def function(trial: optuna.Trial) -> float:
        return sum(trial.suggest_float(f"x{i}", 0, 1) for i in range(14))

    def statements(name: str, run: Callable[[optuna.Study, int], object]) -> int:
        storage = open_storage(f"sqlite:///{tmp_path}/{name}.db")
        assert isinstance(storage, RDBStorage)
        study = open_study(storage)
        said: list[str] = []
        run(study, 2)
        sqlalchemy.event.listen(
            storage.engine, "before_cursor_execute", lambda c, cursor, text, *_: said.append(text)
        )
        run(study, 8)
        assert len(study.trials) == 8
        return len(said)

    baseline = {f"x{i}": 0.5 for i in range(14)}

    def ours(study: optuna.Study, trials: int) -> None:
        replace(loop(study, function, trials=trials), baseline=baseline).run()

    def optunas(study: optuna.Study, trials: int) -> None:
        study.sampler = optuna.samplers.RandomSampler(seed=0)
        study.optimize(function, n_trials=trials - len(study.trials))

    assert statements("ours", ours) <= 1.3 * statements("optuna", optunas)


def test_many_workers_on_one_sqlite_file_do_each_trial_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    open_study(open_storage(url))
    runs: list[int] = []

    def slow(trial: optuna.Trial) -> float:
        runs.append(trial.number)
        time.sleep(0.02)
        return objective(trial)

    def work() -> None:
        study = open_study(open_storage(url))
        loop(study, slow, trials=16, lock_file=f"{tmp_path}/lock").run()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = open_study(open_storage(url))
    assert sorted(runs) == list(range(16))
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 16
    assert [t.number for t in study.trials if t.params == BASELINE] == [0]
    assert len({tuple(t.params.values()) for t in study.trials}) == 16


def test_without_a_lock_a_server_still_runs_no_more_trials_than_asked_for(
    postgres_url: str,
) -> None:
    open_study(open_storage(postgres_url))
    runs: list[int] = []

    def count(trial: optuna.Trial) -> float:
        runs.append(trial.number)
        return objective(trial)

    def work() -> None:
        loop(open_study(open_storage(postgres_url)), count, trials=20).run()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == len(set(runs)) == 20
    states = [t.state for t in open_study(postgres_url).trials]
    assert states.count(TrialState.COMPLETE) == 20
    assert set(states) <= {TrialState.COMPLETE, TrialState.WAITING}


def test_a_baseline_that_another_process_was_faster_with_is_not_an_error() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(state=TrialState.WAITING))
    seen = study.trials
    loop(study, trials=1).run()
    claimed, _ = loop(study, trials=2)._claim(seen)
    assert claimed is not None and claimed.number == 1


@pytest.mark.parametrize("number", [0, 2])
def test_an_interrupted_trial_is_tried_again_with_its_parameters(
    number: int, storage: StorageFactory
) -> None:
    def interrupted(trial: optuna.Trial) -> float:
        if trial.number == number:
            suggest(trial)
            raise KeyboardInterrupt
        return objective(trial)

    with pytest.raises(KeyboardInterrupt):
        loop(open_study(storage()), interrupted, trials=5, method="cma-es").run()
    loop(open_study(storage()), trials=5, method="cma-es").run()
    trials = open_study(storage()).trials
    assert [t.number for t in trials if t.state != TrialState.COMPLETE] == [number]
    again = trials[number + 1]
    assert again.system_attrs["failed_trial"] == number
    assert again.params == trials[number].params
    assert len(trials) == 6


def test_an_interruption_while_a_trial_is_taken_leaves_none_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()

    def interrupted(*taken: Any) -> bool:
        take(*taken)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("studies.loop.take", interrupted)
        loop(study, trials=2).run()
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]
    loop(study, trials=2).run()
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_an_interruption_before_the_first_suggestion_keeps_the_baseline(
    storage: StorageFactory,
) -> None:
    def interrupted(trial: optuna.Trial) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(open_study(storage()), interrupted, trials=2).run()
    loop(open_study(storage()), trials=2).run()
    finished = [t for t in open_study(storage()).trials if t.state == TrialState.COMPLETE]
    assert len(finished) == 2
    assert finished[0].params == BASELINE


def test_an_error_that_is_no_verdict_on_the_trial_is_raised_and_the_trial_kept() -> None:
    study = optuna.create_study()

    def broken(trial: optuna.Trial) -> float:
        suggest(trial)
        raise OSError("no such device")

    with pytest.raises(OSError, match="no such device"):
        loop(study, broken, trials=2).run()
    loop(study, trials=2).run()
    assert [t.state for t in study.trials[1:]] == [TrialState.COMPLETE] * 2


def test_parameters_that_fill_the_disk_are_given_up() -> None:
    study = optuna.create_study()

    def large(trial: optuna.Trial) -> float:
        if (depth := suggest(trial)) is not None and trial.number > 0:
            raise DiskFull(f"The disk is full at {depth}.")
        record(trial)
        return depth

    for _ in range(MAX_RETRY + 1):
        with pytest.raises(DiskFull):
            loop(study, large, trials=3).run()
    assert len({str(t.params) for t in study.trials[1:]}) == 1
    loop(study, trials=2).run()
    assert study.trials[-1].state == TrialState.COMPLETE
    assert study.trials[-1].params != study.trials[1].params


def test_a_baseline_is_tried_again_however_often_the_disk_was_full() -> None:
    study = optuna.create_study()

    def full(trial: optuna.Trial) -> float:
        suggest(trial)
        raise DiskFull("The disk is full.")

    for _ in range(MAX_RETRY + 2):
        with pytest.raises(DiskFull):
            loop(study, full, trials=2).run()
    loop(study, trials=2).run()
    assert [t.params for t in study.trials if t.state == TrialState.COMPLETE][0] == BASELINE


def test_a_trial_that_another_process_gave_up_on_does_not_end_the_study() -> None:
    study = optuna.create_study()

    def taken_away(trial: optuna.Trial) -> float:
        value = suggest(trial)
        if trial.number == 1:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        record(trial)
        return value

    loop(study, taken_away, trials=3).run()
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def die_elsewhere(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> optuna.Trial:
    """A trial of another machine's worker, which died after the training."""
    monkeypatch.setattr("objective.worker._machine", lambda: "another")
    trial = study.ask()
    suggest(trial)
    claim(trial)
    storage: Any = study._storage
    storage.record_heartbeat(trial._trial_id)
    return trial


def test_a_result_kept_by_a_worker_that_died_elsewhere_is_told_and_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/s.db", heartbeat_interval=1, grace_period=1)
    study = open_study(storage)
    results = Results(tmp_path / "results")
    with monkeypatch.context() as elsewhere:
        trial = die_elsewhere(study, elsewhere)
        results.keep(trial, {"status": "ok", "training_seconds": 1.0}, 2.345)
    time.sleep(2.5)
    replace(loop(study, trials=2), results=results).run()
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].value == 2.345 and study.trials[1].params == study.trials[0].params


def test_a_failure_that_a_worker_died_with_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/s.db", heartbeat_interval=1, grace_period=1)
    study = open_study(storage)
    with monkeypatch.context() as elsewhere:
        record(die_elsewhere(study, elsewhere), "oom")
    time.sleep(2.5)
    loop(study, trials=2).run()
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]


def test_failures_that_raise_count_as_trials() -> None:
    from objective import TrialFailed

    study = optuna.create_study()

    def fails(trial: optuna.Trial) -> float:
        if trial.number == 1:
            record(trial, "oom")
            raise TrialFailed("oom", "too big")
        return objective(trial)

    loop(study, fails, trials=3).run()
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


IMPORT = "ImportError: no module named mamba"
MISSING = "FileNotFoundError: [Errno 2] No such file or directory: 'data/a.csv'"


@pytest.mark.parametrize(
    "status, reason, advice",
    [
        ("crash", IMPORT, "; see its log .* mend the script or its environment"),
        ("crash", MISSING, "; a file .* --copy PATH .*; else see its log .* mend the script"),
        ("no-metric", IMPORT, "; if .*--metric-file FILE.* mend the script or its environment"),
        ("timeout", MISSING, "; run the command again with a larger --wall-seconds"),
    ],
)
def test_a_script_that_has_never_worked_is_not_tried_all_night(
    status: str, reason: str, advice: str
) -> None:
    study = optuna.create_study()

    def crashes(trial: optuna.Trial) -> float:
        record(trial, status)
        trial.set_user_attr("reason", reason)
        return 100.0

    with pytest.raises(StudyStopped, match=f"{re.escape(reason)}.*has worked yet{advice}"):
        loop(study, crashes, trials=50).run()
    assert len(study.trials) == 1


def test_a_failure_that_nothing_stands_for_is_a_failed_trial() -> None:
    study = optuna.create_study()

    def runs_out_of_memory_first(trial: optuna.Trial) -> float:
        suggest(trial)
        record(trial, "ok" if trial.number else "oom")
        return 1.0 if trial.number else math.nan

    loop(study, runs_out_of_memory_first, trials=2).run()
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_crashes_after_a_success_are_the_hyperparameters_fault() -> None:
    study = optuna.create_study()

    def crashes_later(trial: optuna.Trial) -> float:
        suggest(trial)
        record(trial, "crash" if trial.number else "ok")
        return 100.0

    loop(study, crashes_later, trials=4).run()
    assert len(study.trials) == 4


def test_what_is_watched_ends_with_the_whole_study() -> None:
    seen: list[list[Any]] = []
    loop(optuna.create_study(), trials=3).run(lambda trials: seen.append(list(trials)))
    assert [t.state for t in seen[-1]] == [TrialState.COMPLETE] * 3


@pytest.fixture
def signals() -> Iterator[None]:
    """What a signal does is again what it did."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, STOP_SIGNAL, FINISH_SIGNAL)
    before = {number: signal.getsignal(number) for number in numbers}
    hook = sys.unraisablehook
    yield
    acknowledge()
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("moment", ["set_trial_state_values", "set_trial_system_attr"])
def test_a_stop_in_the_middle_of_a_claim_leaves_nothing_running(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_by_signal(REQUEUE, own=False)
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    really = getattr(storage, moment)
    told = (TrialState.RUNNING, WORKER)

    def told_meanwhile(*arguments: Any, **named: Any) -> Any:
        done = really(*arguments, **named)
        if any(argument in told for argument in (*arguments, *named.values())):
            os.kill(os.getpid(), STOP_SIGNAL)
        return done

    monkeypatch.setattr(storage, moment, told_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        loop(open_study(storage), trials=2).run()
    acknowledge()
    monkeypatch.undo()
    study = open_study(open_storage(f"sqlite:///{tmp_path}/s.db"))
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    loop(study, trials=2).run()
    assert [t.state for t in study.trials if t.state != TrialState.FAIL] == (
        2 * [TrialState.COMPLETE]
    )


@pytest.mark.usefixtures("signals")
def test_a_stop_leaves_no_lock_on_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For which everybody would wait until it is old, this process first."""
    study = open_study(open_storage(f"journal:{tmp_path}/s.log"))
    really = JournalFileSymlinkLock.acquire

    def told_meanwhile(lock: JournalFileSymlinkLock) -> bool:
        acquired = really(lock)
        os.kill(os.getpid(), STOP_SIGNAL)
        return acquired

    stop_by_signal(REQUEUE, own=False)
    monkeypatch.setattr(JournalFileSymlinkLock, "acquire", told_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        loop(study, trials=1).run()
    acknowledge()
    assert [path.name for path in tmp_path.iterdir()] == ["s.log"]
    loop(study, trials=1).run()
    assert study.trials[-1].state == TrialState.COMPLETE


def test_a_stop_between_a_claim_and_its_training_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = open_study(optuna.storages.InMemoryStorage())

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.loop.evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        loop(study, trials=1).run()
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
