"""What SMACSampler promises beyond Optuna's conformance suite."""

from __future__ import annotations

import math
import multiprocessing
import os
from pathlib import Path
import pickle
import subprocess
import sys
from typing import Any
from typing import TYPE_CHECKING

from ConfigSpace import Configuration
from ConfigSpace import ConfigurationSpace
import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
import pytest

from samplers._trials.internals import study_system_attrs
from samplers.smac import SMACSampler
from samplers.smac.maximizer import neighbourhood
from samplers.smac.maximizer import VectorizedLocalSearch
from samplers.smac.sampler import _Forest
from samplers.smac.sampler import run_history
from samplers.smac.space import from_configuration
from samplers.smac.space import to_configspace
from samplers.smac.space import to_configuration
from smac import HyperparameterOptimizationFacade
from smac import Scenario
from smac.acquisition.function import EI
from smac.runhistory import StatusType
from tests.conftest import StorageFactory


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution

BOX: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-5, 5),
    "y": FloatDistribution(-5, 5),
}
# Six configurations.
TINY: dict[str, BaseDistribution] = {
    "a": IntDistribution(1, 3),
    "b": CategoricalDistribution(["p", "q"]),
}
EVERY_TYPE: dict[str, BaseDistribution] = {
    "float": FloatDistribution(-3, 7.5),
    "float log": FloatDistribution(1e-12, 1e-9, log=True),
    "float step": FloatDistribution(-10.2, 10.2, step=0.1),
    "int": IntDistribution(-7, 4000),
    "int log": IntDistribution(65536, 2097152, log=True),
    "int step": IntDistribution(-5, 7, step=3),
    "category": CategoricalDistribution([None, True, "a", 1.5, "None"]),
}


def sampler(**kwargs: Any) -> SMACSampler:
    """A sampler with a small search of the acquisition function, so that tests are quick."""
    return SMACSampler(**{"n_challengers": 1000, "seed": 0, "n_startup_trials": 3, **kwargs})


def bowl(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", -5, 5) ** 2 + trial.suggest_float("y", -5, 5) ** 2


def run(
    study: optuna.Study,
    n_trials: int,
    space: dict[str, BaseDistribution],
    value: Callable[[Mapping[str, Any]], float | None] = lambda params: 0.0,
) -> list[dict[str, Any]]:
    """Ask for trials and tell their values, or a failure where the value is None."""
    asked = []
    for _ in range(n_trials):
        trial = study.ask(space)
        asked.append(trial.params)
        result = value(trial.params)
        if result is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, result)
    return asked


def finished(value: float | None, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> Any:
    return optuna.create_trial(
        state=state,
        value=value,
        params={"x": 0.0, "y": 0.0},
        distributions=BOX,
        user_attrs=attrs,
    )


# The search space


def test_every_proposed_value_comes_back_from_configspace_as_it_was() -> None:
    configspace = to_configspace(EVERY_TYPE)
    configspace.seed(0)
    for configuration in configspace.sample_configuration(300):
        params = from_configuration(configuration, EVERY_TYPE)
        for name, distribution in EVERY_TYPE.items():
            assert distribution._contains(distribution.to_internal_repr(params[name]))
        again = to_configuration(configspace, EVERY_TYPE, params)
        assert again is not None
        np.testing.assert_allclose(again.get_array(), configuration.get_array(), atol=1e-12)
        # Floats may differ in the last place after a logarithm, nothing else may differ.
        for name, value in from_configuration(again, EVERY_TYPE).items():
            if isinstance(value, float):
                assert math.isclose(value, params[name], rel_tol=1e-14)
            else:
                assert value is params[name] or type(value) is int and value == params[name]


@pytest.mark.parametrize("log", [False, True])
def test_every_int_comes_back_from_configspace(log: bool) -> None:
    space: dict[str, BaseDistribution] = {"n": IntDistribution(1, 3000, log=log)}
    configspace = to_configspace(space)
    for n in range(1, 3001):
        configuration = to_configuration(configspace, space, {"n": n})
        assert configuration is not None
        assert from_configuration(configuration, space) == {"n": n}


@pytest.mark.parametrize("high", [2**62 + 1, 2**63 - 2, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("log", [False, True])
def test_ints_of_any_size_are_in_their_range(high: int, log: bool) -> None:
    space = {"seed": IntDistribution(1, high, log=log)}
    configspace = to_configspace(space)
    for unit in (0.0, 0.3, 0.7, 1.0):
        value = from_configuration(Configuration(configspace, vector=np.array([unit])), space)
        assert isinstance(value["seed"], int) and 1 <= value["seed"] <= high
    assert to_configuration(configspace, space, {"seed": 12345}) is not None


def test_a_range_is_sampled_that_is_longer_than_either_of_its_ends() -> None:
    space: dict[str, BaseDistribution] = {"n": IntDistribution(-(2**62), 2**62)}
    configuration = to_configspace(space).sample_configuration()
    assert -(2**62) <= from_configuration(configuration, space)["n"] <= 2**62


def test_log_ints_are_sampled_on_a_log_scale() -> None:
    space: dict[str, BaseDistribution] = {"n": IntDistribution(2**16, 2**21, log=True)}
    configspace = to_configspace(space)
    configspace.seed(0)
    values = [from_configuration(c, space)["n"] for c in configspace.sample_configuration(1000)]
    assert 2**18 < np.median(values) < 2**19  # On a linear scale: 2**20.


def test_choices_are_the_very_objects_of_the_distribution() -> None:
    study = optuna.create_study(sampler=sampler(search_space=EVERY_TYPE))
    choices = [params["category"] for params in run(study, 12, EVERY_TYPE)]
    assert {type(choice) for choice in choices} == {type(None), bool, str, float}


@pytest.mark.parametrize("params", [{}, {"x": 0.0}, {"x": 0.0, "y": 5.5}, {"x": 0.0, "y": "a"}])
def test_params_that_the_search_space_cannot_hold_have_no_configuration(
    params: dict[str, Any],
) -> None:
    assert to_configuration(to_configspace(BOX), BOX, params) is None


def test_categories_and_ints_are_relative_and_single_values_are_left_out() -> None:
    space = {**EVERY_TYPE, "only": IntDistribution(4, 4)}
    study = optuna.create_study(sampler=sampler())
    run(study, 1, space)
    trial = study._storage.get_trial(study.ask()._trial_id)
    assert set(study.sampler.infer_relative_search_space(study, trial)) == set(EVERY_TYPE)


# The history that SMAC is told


def history(trials: list[Any], sign: float = 1.0) -> list[tuple[float, StatusType]]:
    """Costs and statuses of trials with a configuration each, in their order."""
    configspace = ConfigurationSpace({"i": (0, len(trials))})
    configspace.seed(0)
    configurations = configspace.sample_configuration(50)
    distinct = list(dict.fromkeys(configurations))[: len(trials)]
    return [row[1:] for row in run_history(list(zip(trials, distinct)), sign)]


def test_failures_are_crashed_runs_that_cost_more_than_every_success() -> None:
    told = history(
        [
            finished(-1e6),
            finished(None, TrialState.FAIL),
            finished(7.0),
            finished(3.0, status="oom"),
            finished(math.inf),
        ]
    )
    crashed = (2.0, StatusType.CRASHED)
    assert told[0] == (0.0, StatusType.SUCCESS)
    assert told[2] == (1.0, StatusType.SUCCESS)
    assert told[1] == told[3] == told[4] == crashed


def test_a_trial_that_was_pruned_for_a_nan_is_a_crashed_run() -> None:
    diverged = finished(None, TrialState.PRUNED)
    diverged.intermediate_values = {3: math.nan}
    assert history([finished(1.0), diverged])[1] == (2.0, StatusType.CRASHED)


def test_costs_are_finite_whatever_failed_and_whatever_was_measured() -> None:
    for trials in (
        [finished(None, TrialState.FAIL), finished(None, TrialState.PRUNED)],
        [finished(1.7e308), finished(-1.7e308), finished(math.inf)],
        [finished(1e7), finished(1e7)],
    ):
        assert all(math.isfinite(cost) for cost, _ in history(trials))


def test_a_pruned_trial_costs_no_less_than_the_median_success() -> None:
    successes = [finished(v) for v in (0.0, 2.0, 10.0)]
    pruned = [finished(v, TrialState.PRUNED) for v in (-99.0, 5.0, 99.0, None, math.nan)]
    costs = [cost for cost, _ in history(successes + pruned)]
    assert costs == [0.0, 0.2, 1.0, 0.2, 0.5, 1.0, 1.0, 1.0]


def test_maximizing_is_the_mirror_image_of_minimizing() -> None:
    values = [3.0, 1.0, 2.0]
    minimized = history([finished(v) for v in values], 1.0)
    assert history([finished(-v) for v in values], -1.0) == minimized


def test_a_success_of_a_configuration_counts_before_its_failure() -> None:
    """A run that a machine's restart killed and that was repeated is no failure of its values."""
    configspace = to_configspace(BOX)
    configuration = to_configuration(configspace, BOX, {"x": 0.0, "y": 0.0})
    assert configuration is not None
    trials = [finished(None, TrialState.FAIL), finished(5.0), finished(7.0)]
    told = run_history([(trial, configuration) for trial in trials], 1.0)
    assert told == [(configuration, 0.5, StatusType.SUCCESS)]


# The model is SMAC's


def test_the_forest_predicts_what_smacs_own_forest_predicts() -> None:
    configspace = ConfigurationSpace({f"x{i}": (0.0, 1.0) for i in range(4)})
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 4)), np.log(rng.random((60, 1)))
    theirs = HyperparameterOptimizationFacade.get_model(Scenario(configspace, seed=3))
    ours = _Forest(
        configspace,
        log_y=True,
        ratio_features=1.0,
        min_samples_split=2,
        min_samples_leaf=1,
        max_leaf_nodes=60,
        n_jobs=1,
        seed=3,
    )
    grid = rng.random((500, 4))
    for expected, actual in zip(
        theirs.train(x, y).predict_marginalized(grid), ours.train(x, y).predict_marginalized(grid)
    ):
        np.testing.assert_allclose(actual, expected)


def fitted(space: dict[str, BaseDistribution], seed: int) -> VectorizedLocalSearch:
    """The maximizer of a forest that knows a bowl's value at 40 random configurations."""
    configspace = to_configspace(space)
    configspace.seed(seed)
    x = np.array([c.get_array() for c in configspace.sample_configuration(40)])
    y = np.log(0.1 + np.sum((x / x.max(axis=0) - 0.4) ** 2, axis=1, keepdims=True))
    forest = HyperparameterOptimizationFacade.get_model(Scenario(configspace, seed=seed))
    acquisition = EI(log=True)
    acquisition.update(model=forest.train(x, y), eta=float(y.min()))
    return VectorizedLocalSearch(configspace, acquisition, challengers=200, seed=seed)


def test_the_maximizer_climbs_above_its_start_points_and_lists_the_highest_first() -> None:
    maximizer = fitted(EVERY_TYPE, seed=0)
    configspace, acquisition = maximizer._configspace, maximizer.acquisition_function
    assert acquisition is not None
    previous = configspace.sample_configuration(15)
    found = maximizer._maximize(previous, 200)
    values = [value for value, _ in found]
    assert values == sorted(values, reverse=True)
    for value, configuration in found:
        configuration.check_valid_configuration()
        np.testing.assert_allclose(acquisition([configuration]), value)
    assert values[0] > acquisition(configspace.sample_configuration(200)).max()


def test_neighbours_differ_from_their_point_in_one_parameter() -> None:
    configspace = to_configspace(EVERY_TYPE)
    configspace.seed(0)
    hyperparameters = list(configspace.values())
    points = np.array([c.get_array() for c in configspace.sample_configuration(20)])
    points[0] = 0.0  # A corner.
    rng = np.random.RandomState(0)
    neighbours = neighbourhood(points, np.full(20, 0.05), hyperparameters, rng)
    changed = neighbours != points[:, None]
    assert changed.sum(axis=2).max() == 1
    # Every other choice, every other value of an int that has few, and eight of each other number.
    of_parameter = changed.sum(axis=1)
    for column, hyperparameter in enumerate(hyperparameters):
        n_expected = {"category": 4, "int step": 4}.get(hyperparameter.name, 8)
        if hyperparameter.name in ("category", "int step", "float", "float log"):
            assert (of_parameter[:, column] == n_expected).all()
            values = [
                set(row[mask])
                for row, mask in zip(neighbours[:, :, column], changed[:, :, column])
            ]
            assert all(len(v) == n_expected for v in values)
    for point in neighbours.reshape(-1, neighbours.shape[2]):
        Configuration(configspace, vector=point).check_valid_configuration()


def test_the_model_finds_a_better_region_than_the_initial_design() -> None:
    study = optuna.create_study(sampler=sampler(seed=1, n_startup_trials=10))
    study.optimize(bowl, n_trials=25)
    values = [t.values[0] for t in study.trials]
    assert min(values[10:]) < 0.2 * min(values[:10])


def test_maximizing_climbs() -> None:
    study = optuna.create_study(sampler=sampler(seed=1, n_startup_trials=10), direction="maximize")
    study.optimize(lambda trial: -bowl(trial), n_trials=25)
    values = [t.values[0] for t in study.trials]
    assert max(values[10:]) > 0.2 * max(values[:10])


def test_proposals_leave_a_region_where_everything_fails() -> None:
    study = optuna.create_study(sampler=sampler(n_startup_trials=10))
    params = run(study, 30, BOX, lambda p: None if p["x"] > 0 else p["y"] ** 2)
    failed = [p["x"] > 0 for p in params]
    assert sum(failed[:10]) >= 4
    assert sum(failed[15:]) <= 5


# The initial design


def test_the_design_begins_with_the_first_trial_if_the_search_space_is_given() -> None:
    study = optuna.create_study(sampler=sampler(search_space=BOX))
    run(study, 5, BOX)
    indices = [t.system_attrs.get("smac:design_index") for t in study.trials]
    assert indices == [0, 1, 2, None, None]


def test_the_first_trial_of_an_inferred_search_space_is_independent() -> None:
    study = optuna.create_study(sampler=sampler())
    run(study, 4, BOX)
    indices = [t.system_attrs.get("smac:design_index") for t in study.trials]
    assert indices == [None, 1, 2, None]


def test_by_default_the_design_is_that_of_a_smac_run_of_100_trials() -> None:
    study = optuna.create_study(sampler=sampler(search_space=TINY, n_startup_trials=None))
    box = optuna.create_study(sampler=sampler(search_space=BOX, n_startup_trials=None))
    run(study, 7, TINY)
    run(box, 22, BOX)
    designed = ["smac:design_index" in t.system_attrs for t in box.trials]
    assert designed == [True] * 20 + [False] * 2  # Ten for each parameter.
    # A discrete space has no more points than configurations.
    assert sum("smac:design_index" in t.system_attrs for t in study.trials) == 6


def test_running_trials_hold_their_points_of_the_design() -> None:
    study = optuna.create_study(sampler=sampler(search_space=TINY, n_startup_trials=6))
    trials = [study.ask(TINY) for _ in range(6)]  # None of them is told.
    assert len({str(trial.params) for trial in trials}) == 6


def test_stored_trials_count_as_start_up_trials() -> None:
    study = optuna.create_study(sampler=sampler(search_space=BOX))
    study.add_trials([finished(1.0)] * 2)
    study.enqueue_trial({"x": 1.0, "y": 1.0})
    run(study, 2, BOX)
    assert not any("smac:design_index" in t.system_attrs for t in study.trials)


# No configuration twice


def test_every_configuration_of_a_small_space_is_tried_once_before_one_is_repeated() -> None:
    study = optuna.create_study(sampler=sampler(search_space=TINY))
    params = [str(p) for p in run(study, 8, TINY, lambda p: p["a"])]
    assert len(set(params[:6])) == 6


def test_running_and_waiting_trials_are_not_proposed_again() -> None:
    study = optuna.create_study(sampler=sampler(seed=1, search_space=TINY, n_startup_trials=0))
    run(study, 1, TINY)
    running = [study.ask(TINY).params for _ in range(3)]
    study.enqueue_trial({"a": 1, "b": "p"})
    study.enqueue_trial({"a": 3, "b": "q"})
    storage, study_id = study._storage, study._study_id
    trial = storage.get_trial(storage.create_new_trial(study_id))
    proposed = study.sampler.sample_relative(study, trial, TINY)
    assert proposed not in [*running, study.trials[0].params]
    assert proposed not in [{"a": 1, "b": "p"}, {"a": 3, "b": "q"}]


def test_what_is_queued_with_an_integer_of_hundreds_of_digits_is_passed_over() -> None:
    study = optuna.create_study(sampler=sampler(search_space=BOX))
    running = study.ask()
    study.enqueue_trial({"x": 10**400})
    assert running.suggest_float("x", -5, 5) == running.relative_params["x"]


@pytest.mark.parametrize("n_startup_trials", [0, 20])
def test_what_is_proposed_beside_enqueued_values_repeats_no_trial(n_startup_trials: int) -> None:
    space: dict[str, BaseDistribution] = {
        "a": CategoricalDistribution(["x", "y", "z"]),
        "b": IntDistribution(0, 3),
    }
    study = optuna.create_study(sampler=sampler(n_startup_trials=n_startup_trials))
    run(study, 3, space, lambda p: p["b"])
    for _ in range(4):
        study.enqueue_trial({"a": "x"})
    with_x = {t.params["b"] for t in study.trials[:3] if t.params["a"] == "x"}
    proposed = [p["b"] for p in run(study, 4, space, lambda p: p["b"])]
    n_new = 4 - len(with_x)
    assert len({*with_x, *proposed[:n_new]}) == 4


@pytest.mark.parametrize("odd", ["[", 5, None, [1], {"x": "abc", "y": None}, {"x": 10**400}])
def test_a_proposal_that_is_none_is_passed_over(odd: Any) -> None:
    study = optuna.create_study(sampler=sampler(search_space=BOX))
    for state in (TrialState.RUNNING, TrialState.WAITING):
        study.add_trial(optuna.create_trial(state=state, system_attrs={"smac:proposal": odd}))
    run(study, 2, BOX)


def test_a_proposal_that_another_worker_makes_at_the_same_moment_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study(sampler=sampler(search_space=TINY, n_startup_trials=0))
    run(study, 1, TINY)
    study.ask()  # The other worker's trial, which has asked for nothing yet.
    other = study.trials[-1]
    propose = SMACSampler._propose
    stolen: list[dict[str, Any]] = []

    def propose_while_the_other_worker_does(self: SMACSampler, *args: Any) -> Any:
        result = propose(self, *args)
        if not stolen:
            params = from_configuration(result[0], TINY)
            stolen.append(params)
            internal = {name: d.to_internal_repr(params[name]) for name, d in TINY.items()}
            study._storage.set_trial_system_attr(other._trial_id, "smac:proposal", internal)
        return result

    monkeypatch.setattr(SMACSampler, "_propose", propose_while_the_other_worker_does)
    assert study.ask(TINY).params != stolen[0]


# What is stored decides


def test_a_resumed_study_proposes_what_an_uninterrupted_one_does(
    own_storage: StorageFactory,
) -> None:
    uninterrupted = optuna.create_study(sampler=sampler())
    uninterrupted.optimize(bowl, n_trials=8)
    for n_trials in (2, 3, 3):  # In the design, at its end, and after it.
        optuna.create_study(
            study_name="resumed", storage=own_storage(), sampler=sampler(), load_if_exists=True
        ).optimize(bowl, n_trials=n_trials)
    resumed = optuna.create_study(study_name="resumed", storage=own_storage(), load_if_exists=True)
    assert [t.params for t in resumed.trials] == [t.params for t in uninterrupted.trials]


@pytest.mark.parametrize("suggested", [0, 1, 2])
def test_a_study_of_which_a_trial_was_killed_goes_on_as_one_of_which_none_was(
    suggested: int,
) -> None:
    uninterrupted, killed = (optuna.create_study(sampler=sampler()) for _ in range(2))
    uninterrupted.optimize(bowl, n_trials=10)
    for n_before in (3, 3):  # in the design, and after it
        killed.optimize(bowl, n_trials=n_before)
        trial = killed.ask()
        for name in ("x", "y")[:suggested]:
            trial.suggest_float(name, -5, 5)
        killed.tell(trial, state=TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback()(killed, killed.trials[-1])
    killed.optimize(bowl, n_trials=4)
    succeeded = [t.params for t in killed.trials if t.state == TrialState.COMPLETE]
    assert succeeded == [t.params for t in uninterrupted.trials]


def test_seed_zero_is_a_seed_and_seeds_differ() -> None:
    def params(seed: int | None) -> list[dict[str, Any]]:
        return run(optuna.create_study(sampler=sampler(seed=seed)), 5, BOX, lambda p: p["x"])

    assert params(0) == params(0)
    for zero, one, drawn in zip(params(0), params(1), params(None)):
        assert zero != one
        assert zero != drawn


def test_workers_without_a_seed_share_the_one_of_the_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/seed.db"
    points = []
    for _ in range(2):
        study = optuna.create_study(
            study_name="s",
            storage=url,
            load_if_exists=True,
            sampler=sampler(seed=None, search_space=TINY, n_startup_trials=6),
        )
        points += run(study, 3, TINY)
    assert len({str(p) for p in points}) == 6  # One design, not the beginnings of two.


def test_workers_that_begin_together_have_one_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/seed.db"
    unseen: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "samplers.smac.sampler.study_system_attrs",
        lambda study: unseen.pop() if unseen else study_system_attrs(study),
    )
    seeds = []
    for _ in range(2):
        unseen.append({})  # as if the other had not stored a seed yet
        study = optuna.create_study(
            study_name="s", storage=url, load_if_exists=True, sampler=sampler(seed=None)
        )
        study.ask(BOX)
        seeds.append(study_system_attrs(study)["smac:seed"])
    assert seeds[0] == seeds[1]


@pytest.mark.parametrize("odd", ["[", None, [1]])
def test_a_seed_that_is_none_is_made_anew(odd: Any) -> None:
    study = optuna.create_study(sampler=sampler(seed=None, search_space=TINY))
    study._storage.set_study_system_attr(study._study_id, "smac:seed", odd)
    run(study, 2, TINY)
    assert isinstance(study._storage.get_study_system_attrs(study._study_id)["smac:seed"], int)


def test_the_same_study_in_another_process_with_another_hash_seed() -> None:
    code = (
        "import optuna; from samplers.smac import SMACSampler;"
        "from tests.samplers.test_smac import EVERY_TYPE, run, sampler;"
        "study = optuna.create_study(sampler=sampler());"
        "print(run(study, 6, EVERY_TYPE, lambda p: p['float']))"
    )
    # Whatever this process's hash seed is, one of them is another.
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": other, "PATH": ""},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    study = optuna.create_study(sampler=sampler())
    here = run(study, 6, EVERY_TYPE, lambda p: p["float"])
    assert there.stdout == f"{here}\n"


def test_a_history_of_all_kinds_of_trials_is_told() -> None:
    study = optuna.create_study(sampler=sampler(n_startup_trials=0))
    study.enqueue_trial({"x": 1.0, "y": 2.0})
    study.enqueue_trial({"x": 50.0})  # Out of range, which Optuna permits.
    values = iter([1.0, 2.0, None, 3.0, math.nan, math.inf])

    def objective(trial: optuna.Trial) -> float:
        bowl(trial)
        value = next(values, 0.5)
        if value is None:
            raise RuntimeError
        trial.report(value, 0)
        if value == 3.0:
            raise optuna.TrialPruned
        return value

    study.optimize(objective, n_trials=8, catch=(RuntimeError,))
    study.add_trial(finished(0.1))
    study.add_trial(optuna.create_trial(value=0.2))  # It has no parameters at all.
    study.sampler = sampler(n_startup_trials=0, search_space=BOX)
    states = [t.state for t in study.trials]
    assert {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED} == set(states)
    assert len(run(study, 2, BOX, lambda p: p["x"])) == 2


def test_a_study_whose_every_trial_failed_goes_on() -> None:
    study = optuna.create_study(sampler=sampler(search_space=BOX))
    params = run(study, 6, BOX, lambda p: None)
    assert len({str(p) for p in params}) == 6


# Threads and processes


def test_four_threads_never_propose_the_same_configuration() -> None:
    space: dict[str, BaseDistribution] = {"n": IntDistribution(1, 40)}
    study = optuna.create_study(sampler=sampler(search_space=space))
    study.optimize(lambda trial: trial.suggest_int("n", 1, 40), n_trials=24, n_jobs=4)
    assert len({t.params["n"] for t in study.trials}) == 24
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def _work(url: str, n_trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, BaseDistribution] = {"n": IntDistribution(1, 40)}
    study = optuna.load_study(
        study_name="s", storage=url, sampler=sampler(seed=None, search_space=space)
    )
    study.optimize(lambda trial: trial.suggest_int("n", 1, 40), n_trials=n_trials)


@pytest.mark.postgres
def test_two_processes_on_postgresql_never_propose_the_same_configuration(
    postgres_url: str,
) -> None:
    optuna.create_study(study_name="s", storage=postgres_url)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_work, args=(postgres_url, 8)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    trials = optuna.load_study(study_name="s", storage=postgres_url).trials
    assert len({t.params["n"] for t in trials}) == len(trials) == 16


def test_a_proposal_uses_the_results_of_another_worker(tmp_path: Path) -> None:
    def proposal(best_at: float) -> list[dict[str, Any]]:
        url = f"sqlite:///{tmp_path}/{best_at}.db"
        mine = optuna.create_study(study_name="s", storage=url, sampler=sampler())
        run(mine, 1, BOX)
        other = optuna.load_study(
            study_name="s", storage=url, sampler=optuna.samplers.RandomSampler(seed=1)
        )
        run(other, 40, BOX, lambda p: (p["x"] - best_at) ** 2)
        return run(mine, 3, BOX, lambda p: (p["x"] - best_at) ** 2)

    assert np.median([p["x"] for p in proposal(-4.0)]) < 0
    assert np.median([p["x"] for p in proposal(4.0)]) > 0


# A good guest


def test_nothing_is_written_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    run(optuna.create_study(sampler=sampler()), 6, BOX, lambda p: p["x"])
    assert list(work.iterdir()) == []
    assert list(temporary.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_sampler_can_be_pickled() -> None:
    study = optuna.create_study(sampler=pickle.loads(pickle.dumps(sampler())))
    assert len(run(study, 5, BOX)) == 5


@pytest.mark.parametrize(
    "argument", [{"n_startup_trials": -1}, {"n_challengers": 0}, {"seed": -1}]
)
def test_arguments_out_of_range_are_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="or more"):
        SMACSampler(**argument)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Messages of warnings; a record may come by two ways."""
    said = {id(r): r.getMessage() for r in caplog.records if r.levelname == "WARNING"}
    return list(said.values())


def test_a_conditional_space_is_not_said_to_be_used_up(caplog: pytest.LogCaptureFixture) -> None:
    def conditional(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            return trial.suggest_float("x", 0, 1)
        return trial.suggest_float("y", 0, 1)

    study = optuna.create_study(sampler=SMACSampler(seed=0, n_startup_trials=2))
    optuna.logging.enable_propagation()
    try:
        study.optimize(conditional, n_trials=10)
    finally:
        optuna.logging.disable_propagation()

    said = warnings_of(caplog)
    (message,) = [text for text in said if not text.startswith("Drawn at random: ")]
    assert any(text.startswith("Drawn at random: x, y. ") for text in said)
    assert (
        "Every combination of kind was proposed" in message and "x, y are not chosen by" in message
    )


def test_a_range_that_was_narrowed_is_not_passed_over_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    narrow = {**BOX, "x": FloatDistribution(-1, 1)}
    before = {"x": 3.0, "y": 3.0}
    after = {"x": 0.0, "y": 0.0}
    for space in (None, narrow):
        study = optuna.create_study(sampler=sampler(search_space=space))
        study.add_trial(optuna.create_trial(value=1.0, params=before, distributions=BOX))
        study.add_trial(optuna.create_trial(value=0.0, params=after, distributions=narrow))
        optuna.logging.enable_propagation()
        try:
            run(study, 2, narrow)
        finally:
            optuna.logging.disable_propagation()
    inferred, given = warnings_of(caplog)
    assert inferred.startswith("Drawn at random: x. SMAC is asked only for parameters that all ")
    assert "does not learn from trials with values outside of the search space" in given


def test_it_says_once_that_it_ignores_constraints(caplog: pytest.LogCaptureFixture) -> None:
    def constrained(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("c", x - 0.1)
        return x

    study = optuna.create_study(sampler=SMACSampler(seed=0, n_startup_trials=3))
    optuna.logging.enable_propagation()
    try:
        study.optimize(constrained, n_trials=8)
    finally:
        optuna.logging.disable_propagation()

    warnings = [r for r in caplog.records if "ignores constraints" in r.getMessage()]
    assert len({id(r) for r in warnings}) == 1
