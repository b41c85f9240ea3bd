"""What CMA-ES learns when several workers share a generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import itertools
import math
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import CmaEsSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
import pytest

from samplers.centaur import CentaurSampler
from samplers.centaur.population import LATE_KEY
from samplers.centaur.state import read_state
from samplers.centaur.state import UnitCube

from ..conftest import StorageFactory
from .simulated import work


SIZE = 6  # of a population
SPACE = {f"x{i}": FloatDistribution(-5, 5) for i in range(3)}
GENERATION = "cma:generation"


def objective(trial: optuna.Trial) -> float:
    return sum((trial._suggest(name, d) - 1) ** 2 for name, d in SPACE.items())


def sometimes_fails(trial: optuna.Trial) -> float:
    value = objective(trial)
    if trial.params["x0"] < -1:
        trial.set_user_attr("status", "oom")
        return 100.0
    return value


def durations(n: int) -> list[float]:
    return list(np.exp(0.7 * np.random.default_rng(0).standard_normal(n)))


def sampler(**options: Any) -> CentaurSampler:
    return CentaurSampler(critic=None, llm_ratio=0, seed=0, popsize=SIZE, **options)


@pytest.fixture(autouse=True)
def learned(monkeypatch: pytest.MonkeyPatch) -> Callable[[optuna.Study], list[float]]:
    """Values that the newest optimizer of a study has learned, in all its generations."""
    tell = cmaes.CMA.tell
    # By the state that it led to, since an optimizer is stored with nothing of ours. Two that were
    # told the same parents have one mean, and by what else they were told two covariances.
    values: dict[bytes, list[float]] = {}

    def state(cma: Any) -> bytes:
        return bytes(cma.mean.tobytes() + np.triu(cma._C).tobytes())

    def remember(cma: Any, solutions: list[tuple[np.ndarray, float]]) -> None:
        before = values.get(state(cma), [])
        tell(cma, solutions)
        values[state(cma)] = before + [value for _, value in solutions]

    monkeypatch.setattr(cmaes.CMA, "tell", remember)
    return lambda study: values[state(newest_optimizer(study))]


def newest_optimizer(study: optuna.Study) -> Any:
    carriers = [t for t in study.trials if "cma:optimizer:0" in t.system_attrs]
    return CmaEsSampler()._restore_optimizer(
        [max(carriers, key=lambda t: (t.system_attrs[GENERATION], t.number))]
    )


def assert_that_nothing_is_lost(study: optuna.Study, learned: list[float]) -> None:
    """Every success until the last update was learned once, or may still be by the next one."""
    assert max(Counter(value for value in learned if value < 100).values()) == 1
    number = newest_optimizer(study).generation
    (carrier,) = (
        t
        for t in study.trials
        if t.system_attrs.get(GENERATION) == number and "cma:optimizer:0" in t.system_attrs
    )
    unlearned = {
        t.number
        for t in study.trials[: carrier.number]
        if GENERATION in t.system_attrs
        and t.user_attrs.get("status", "ok") == "ok"
        and t.values[0] not in learned
    }
    assert unlearned <= set(carrier.system_attrs.get(LATE_KEY, ()))
    assert number >= 3


@pytest.mark.parametrize("workers", [2, 4, 12])
@pytest.mark.parametrize("function", [objective, sometimes_fails])
def test_no_success_is_lost_or_learned_twice(workers: int, function: Any, learned: Any) -> None:
    study = optuna.create_study(sampler=sampler())
    work(lambda: study, function, durations(60), workers)
    assert_that_nothing_is_lost(study, learned(study))


def test_workers_that_share_nothing_but_the_storage_lose_nothing(
    storage: StorageFactory, learned: Any
) -> None:
    optuna.create_study(storage=storage(), study_name="shared")
    studies = [
        optuna.load_study(
            study_name="shared",
            storage=storage(),  # type: ignore[arg-type]
            sampler=sampler(),
        )
        for _ in range(4)
    ]
    turns = itertools.cycle(studies)
    work(lambda: next(turns), objective, durations(26), workers=4)
    assert_that_nothing_is_lost(studies[0], learned(studies[0]))


def test_threads_learn_nothing_twice(learned: Any) -> None:
    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=60, n_jobs=4)
    # Threads that close a generation at the same moment each store an optimizer of their own; one
    # of these leads on.
    assert max(Counter(learned(study)).values()) == 1
    assert newest_optimizer(study).generation >= 5


def test_a_single_worker_is_late_with_nothing() -> None:
    def rarely_succeeds(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number % 12 != 5:
            trial.set_user_attr("status", "oom")
        return value

    for function in (objective, rarely_succeeds):
        study = optuna.create_study(sampler=sampler())
        study.optimize(function, n_trials=60)
        assert newest_optimizer(study).generation >= 3
        assert not any(LATE_KEY in t.system_attrs for t in study.trials)


def test_a_trial_that_is_being_sampled_while_its_generation_is_closed_is_late_not_lost(
    monkeypatch: pytest.MonkeyPatch, learned: Any
) -> None:
    storage = optuna.storages.InMemoryStorage()
    slow = optuna.create_study(storage=storage, study_name="shared", sampler=sampler())
    fast = optuna.load_study(storage=storage, study_name="shared", sampler=sampler())
    slow.optimize(objective, n_trials=SIZE)  # the first is random: one is missing
    trial = slow.ask()
    write = storage.set_trial_system_attr

    def overtaken(trial_id: int, key: str, value: Any) -> None:
        if (trial_id, key) == (trial._trial_id, GENERATION):
            fast.optimize(objective, n_trials=2)
        write(trial_id, key, value)

    monkeypatch.setattr(storage, "set_trial_system_attr", overtaken)
    value = objective(trial)
    slow.tell(trial, value)
    fast.optimize(objective, n_trials=2 * SIZE)
    generations = [t.system_attrs.get(GENERATION) for t in slow.trials]
    assert generations[SIZE : SIZE + 3] == [0, 0, 1]
    assert learned(slow).count(value) == 1


def test_a_very_late_result_is_learned_within_hansens_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[Any, np.ndarray]] = []
    tell = cmaes.CMA.tell

    def spy(cma: Any, solutions: list[tuple[np.ndarray, float]]) -> None:
        told.extend((read_state(cma), x) for x, value in solutions if value == -1.0)
        tell(cma, solutions)

    monkeypatch.setattr(cmaes.CMA, "tell", spy)
    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=3)
    slow = study.ask()
    objective(slow)
    study.optimize(objective, n_trials=150)
    study.tell(slow, -1.0)  # the best of all, where nobody samples any more
    study.optimize(objective, n_trials=2 * SIZE)
    ((state, x),) = told
    n = len(SPACE)

    def norm(point: np.ndarray) -> float:
        step = (point - state.mean) / state.sigma
        return float(np.linalg.norm(state.whiten(step[None])))

    (sampled,) = UnitCube(SPACE, with_margin=False).points([slow.params])
    assert norm(sampled) > 20
    assert norm(x) <= math.sqrt(n) + 2 * n / (n + 2) + 1e-6


def _kill(study: optuna.Study, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    study.tell(trial, state=TrialState.FAIL)
    return study._storage.get_trial(trial._trial_id)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_trial_that_was_queued_again_counts_when_it_has_finished(learned: Any) -> None:
    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=3)
    lost = study.ask()
    value = objective(lost)
    study.optimize(objective, n_trials=2 * SIZE)
    RetryHeartbeatStaleTrialCallback()(study, _kill(study, lost))
    study.optimize(objective, n_trials=2 * SIZE)
    again = study.trials[-2 * SIZE]
    assert again.params == study.trials[lost.number].params
    assert learned(study).count(value) == 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_killed_trial_that_is_queued_again_does_not_bring_its_old_optimizer_back() -> None:
    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=1 + SIZE)
    killed = study.ask()
    killed.relative_params  # noqa: B018 (it is sampled, and no value is suggested yet)
    old = _kill(study, killed)
    assert "cma:optimizer:0" in old.system_attrs
    study.optimize(objective, n_trials=4 * SIZE + 2)
    RetryHeartbeatStaleTrialCallback()(study, old)
    study.optimize(objective, n_trials=4 * SIZE)
    generations = [t.system_attrs[GENERATION] for t in study.trials[1:]]
    assert generations == sorted(generations)
    assert generations[-1] >= 8


def test_cmaessampler_writes_a_trials_generation_after_its_optimizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `carriers` relies on to read running trials; fails if Optuna changes the order."""
    written: dict[int, list[str]] = {}
    storage = optuna.storages.InMemoryStorage()
    write = storage.set_trial_system_attr

    def spy(trial_id: int, key: str, value: Any) -> None:
        written.setdefault(trial_id, []).append(key)
        write(trial_id, key, value)

    monkeypatch.setattr(storage, "set_trial_system_attr", spy)
    study = optuna.create_study(storage=storage, sampler=CmaEsSampler(seed=0, popsize=SIZE))
    study.optimize(objective, n_trials=3 * SIZE)
    carriers = [keys for keys in written.values() if "cma:optimizer:0" in keys]
    assert carriers and all(keys[-1] == GENERATION for keys in carriers)
