"""The critic on studies: what it refuses, what it prefers, and that it is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from samplers._critic import constraints
from samplers._critic import failures
from samplers._critic import gp
from samplers._critic.critic import _fitted
from samplers._critic.critic import _labelled
from samplers._critic.critic import _model_of_constraints
from samplers._critic.critic import _model_of_failures
from samplers._critic.critic import _model_of_values
from samplers._critic.critic import _subset
from samplers._critic.critic import Critic
from samplers._critic.critic import Judge
from samplers._critic.trials import Trials


SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-5, 5),
    "lr": FloatDistribution(1e-5, 1, log=True),
    "share": FloatDistribution(0, 1, step=0.1),
    "k": IntDistribution(1, 9),
    "width": IntDistribution(1, 1000, log=True),
    "c": CategoricalDistribution(("a", "b", None)),
    "one": IntDistribution(3, 3),
}


def bowl(params: Mapping[str, Any]) -> float:
    return (
        (params["x"] - 2) ** 2
        + math.log10(params["lr"] * 1e3) ** 2
        + (params["share"] - 0.3) ** 2
        + abs(params["k"] - 4)
        + math.log10(params["width"] / 30) ** 2
        + (params["c"] != "b")
    )


def run(
    evaluate: Callable[[dict[str, Any]], float | None],
    n: int,
    *,
    space: dict[str, BaseDistribution] = SPACE,
    study: optuna.Study | None = None,
    critic: Critic | None = None,
    n_random: int = 6,
) -> optuna.Study:
    """A study of ``n`` trials whose configurations a critic chose; None is a failure."""
    study = study or optuna.create_study()
    critic = critic or Critic()
    while len(study.get_trials(deepcopy=False)) < n:
        number = len(study.get_trials(deepcopy=False))
        judge = critic.judge(fresh(study), running(number), space)
        rng = np.random.default_rng(number)
        candidates = judge.random(20, rng) if number < n_random else judge.steps(100, rng)
        chosen = judge.choose(candidates)
        params = candidates[0 if chosen is None else chosen]
        add(study, params, evaluate(params), space=space)
    return study


def running(number: int) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = number
    return trial


def add(
    study: optuna.Study,
    params: Mapping[str, Any],
    value: float | None,
    *,
    space: Mapping[str, BaseDistribution] = SPACE,
    **kwargs: Any,
) -> None:
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    if value is not None and math.isnan(value):
        state, value = TrialState.FAIL, None
    study.add_trial(
        create_trial(
            state=state,
            value=value,
            params=dict(params),
            distributions={name: space[name] for name in params},
            **kwargs,
        )
    )


def judge_of(study: optuna.Study, space: Mapping[str, BaseDistribution] = SPACE) -> Judge:
    return Critic().judge(fresh(study), running(len(study.get_trials(deepcopy=False))), space)


def fresh(study: optuna.Study) -> optuna.Study:
    """The study without the trials that were read for its last trial."""
    study._thread_local.cached_all_trials = None
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_finds_the_best_of_a_bowl(direction: str) -> None:
    sign = -1 if direction == "maximize" else 1
    study = optuna.create_study(direction=direction)  # type: ignore[arg-type]

    run(lambda params: sign * bowl(params), 60, study=study)

    assert abs(study.best_value) < 0.1


def test_the_direction_changes_nothing_but_the_sign() -> None:
    low = run(bowl, 25)
    high = run(lambda p: -bowl(p), 25, study=optuna.create_study(direction="maximize"))

    assert [t.params for t in low.trials] == [t.params for t in high.trials]


def test_one_of_another_process_says_the_same() -> None:
    study = run(bowl, 40)
    again = run(bowl, 17)
    gp._fit.cache_clear()

    run(bowl, 40, study=again, critic=Critic())

    assert [t.params for t in again.trials] == [t.params for t in study.trials]


def test_what_was_run_or_runs_is_not_chosen() -> None:
    study = run(bowl, 12)
    running_one = study.ask(SPACE)
    candidates = [study.trials[3].params, running_one.params, study.trials[7].params]

    judge = judge_of(study)

    assert judge.choose(candidates) is None
    assert judge.choose([]) is None
    assert judge.choose([*candidates, {**study.best_params, "x": 0.125}]) == 3


def test_the_rule_says_what_was_run() -> None:
    space: dict[str, BaseDistribution] = {"batch": IntDistribution(1, 64)}
    study = optuna.create_study()
    add(study, {"batch": 33}, 1.0, space=space)

    critic = Critic(rule=lambda params: {"batch": 2 ** round(math.log2(params["batch"]))})

    judge = critic.judge(fresh(study), running(1), space)
    assert judge.choose([{"batch": 30}, {"batch": 32}]) is None
    assert judge.choose([{"batch": 30}, {"batch": 60}]) == 1


def test_running_trials_count_as_evaluated() -> None:
    study = run(bowl, 15)
    judge = judge_of(study)
    candidates = judge.steps(200, np.random.default_rng(0))
    first = judge.choose(candidates)
    assert first is not None
    trial = study.ask()
    for name, distribution in SPACE.items():
        if name in candidates[first]:
            value = distribution.to_internal_repr(candidates[first][name])
            study._storage.set_trial_param(trial._trial_id, name, value, distribution)

    near = {**candidates[first], "x": candidates[first]["x"] + 1e-4}
    second = judge_of(study).choose([near, *candidates])

    assert second is not None and second not in (0, first + 1)


def test_failures_are_avoided_and_their_values_are_no_target() -> None:
    def evaluate(params: dict[str, Any]) -> float | None:
        return None if params["x"] > 1.5 else bowl(params)

    study = run(evaluate, 60)

    # The best that does not fail lies at the border, so that half of the trials near it fail.
    assert sum(t.state == TrialState.FAIL for t in study.trials) < 30
    assert study.best_value < 0.6


def test_a_failure_value_is_no_target() -> None:
    study = optuna.create_study()
    for x, value, status in ((1.0, 0.0, "oom"), (-1.0, 1.0, "ok"), (-2.0, 2.0, "ok")):
        add(study, {"x": x}, value, space=SPACE, user_attrs={"status": status})
    space = {"x": SPACE["x"]}

    assert judge_of(study, space).choose([{"x": 1.05}, {"x": -0.9}]) == 1


def test_a_rule_is_not_given_a_text_that_somebody_enqueued_for_a_number() -> None:
    study = optuna.create_study()
    add(study, {"x": 1.0}, 1.0, space=SPACE)
    study.enqueue_trial({"x": "abc"})
    critic = Critic(rule=lambda params: {name: value + 1.0 for name, value in params.items()})
    judge = critic.judge(fresh(study), running(2), {"x": SPACE["x"]})
    assert judge.is_new({"x": 0.5})


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [(lambda x: x > 0, -0.9), (lambda x: x - 0.6, 0.5)],
    ids=["a mark", "a distance"],
)
def test_what_is_known_of_a_constraint_tells_where_it_is_violated(
    constraint: Callable[[float], float], expected: float
) -> None:
    """Of a mark the border is between -1 and 1, of a distance it is at 0.6."""
    study = optuna.create_study()
    space = {"x": SPACE["x"]}
    for x in (-2.0, -1.0, 1.0, 2.0):
        trial = study.ask(space)
        trial.set_constraint("c", float(constraint(x)))
        study._storage.set_trial_param(trial._trial_id, "y", x, SPACE["x"])
        study.tell(trial, -x)
    fixed = optuna.create_study()
    for t in study.trials:
        add(fixed, {"x": t.params["y"]}, t.value, system_attrs=t.system_attrs)

    candidates = [{"x": 1.5}, {"x": 0.5}, {"x": -0.9}]
    chosen = judge_of(fixed, space).choose(candidates)
    assert chosen is not None and candidates[chosen] == {"x": expected}


def test_what_violates_a_constraint_is_learned_from_and_not_to_be_improved_on() -> None:
    study = optuna.create_study()
    for x in (-2.0, -1.0, 0.0, 1.0, 2.0):
        add(study, {"x": x}, -x, constraints={"c": x - 0.2})

    judge = judge_of(study, {"x": SPACE["x"]})

    assert judge.choose([{"x": 0.1}, {"x": 0.3}, {"x": -0.5}]) == 0
    assert judge._bases.shape == (3, 1), "the feasible ones"
    assert judge._values is not None
    beyond = judge._values.predict(judge._encoder.inputs([{"x": 2.0}, {"x": 0.0}]))[0]
    assert beyond[0] < beyond[1]
    study.enqueue_trial({"x": 2.5})
    assert judge_of(study, {"x": SPACE["x"]})._best == pytest.approx(judge._best, abs=0.3)


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda p: 1.0,
        lambda p: None,
        lambda p: 1e30 * bowl(p),
        lambda p: 1e308 if p["k"] > 4 else -1e308,
        lambda p: math.inf if p["k"] > 4 else bowl(p),
        lambda p: None if p["k"] > 1 else bowl(p),
    ],
    ids=["equal", "failures only", "huge", "extreme", "infinite", "few successes"],
)
def test_it_goes_on_whatever_comes(evaluate: Callable[[dict[str, Any]], float | None]) -> None:
    study = run(evaluate, 25)

    assert len({tuple(t.params.items()) for t in study.trials}) == 25


@pytest.mark.parametrize("n_parameters", [1, 100])
def test_one_parameter_and_a_hundred(n_parameters: int) -> None:
    space: dict[str, BaseDistribution] = {
        f"x{i}": FloatDistribution(-1, 1) for i in range(n_parameters)
    }

    study = run(lambda p: sum((v - 0.3) ** 2 for v in p.values()), 30, space=space)

    assert study.best_trial.number >= 6


def test_a_third_of_the_steps_begin_between_two_of_the_best() -> None:
    space: dict[str, BaseDistribution] = {f"x{i}": FloatDistribution(0, 1) for i in range(12)}
    study = optuna.create_study()
    for value in (0.4, 0.6):
        add(study, dict.fromkeys(space, value), value, space=space)

    steps = judge_of(study, space).steps(90, np.random.default_rng(0))

    # A step from one changes 8 parameters at most.
    kept = [sum(min(abs(v - 0.4), abs(v - 0.6)) < 1e-12 for v in s.values()) for s in steps]
    assert [n >= 4 for n in kept] == [True] * 60 + [False] * 30


def test_the_first_safe_candidate_is_not_the_most_promising_one() -> None:
    study = optuna.create_study()
    space = {"x": SPACE["x"]}
    for x in (4.0, 4.5, 3.5, 5.0):
        add(study, {"x": x}, None, space=space)
    for x in (-1.0, 0.0):
        add(study, {"x": x}, 1.0, space=space)

    judge = judge_of(study, space)

    assert judge.first_safe([{"x": 4.4}, {"x": 0.0}, {"x": -0.5}, {"x": -5.0}]) == 2
    assert judge.first_safe([{"x": 4.4}, {"x": 3.0}]) == 1
    assert judge.first_safe([{"x": 0.0}]) is None
    assert judge.first_safe([]) is None


def test_a_used_up_space_is_said_to_be() -> None:
    space: dict[str, BaseDistribution] = {"c": CategoricalDistribution((True, False))}
    study = optuna.create_study()
    for c in (True, False):
        add(study, {"c": c}, float(c), space=space)

    judge = judge_of(study, space)

    assert judge.choose(judge.random(50, np.random.default_rng(0))) is None


def test_what_a_trial_lacks_is_no_value() -> None:
    space: dict[str, BaseDistribution] = {
        "kind": CategoricalDistribution(("plain", "deep")),
        "depth": FloatDistribution(0, 1),
    }
    study = optuna.create_study()
    for i in range(6):
        add(study, {"kind": "plain"}, 1.0 + 0.01 * i, space=space)
        add(study, {"kind": "deep", "depth": i / 5}, i / 5, space=space)

    judge = judge_of(study, space)

    assert judge.choose([{"kind": "deep", "depth": 0.9}, {"kind": "deep", "depth": 0.02}]) == 1


def test_the_parameter_that_the_value_depends_on_is_the_most_sensitive() -> None:
    space = {"x": FloatDistribution(-5, 5), "y": FloatDistribution(-5, 5), "c": SPACE["c"]}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda t: (
            10 * t.suggest_float("x", -5, 5) ** 2
            + t.suggest_float("y", -5, 5) ** 2
            + (t.suggest_categorical("c", ("a", "b", None)) == "z")
        ),
        n_trials=30,
    )
    sensitivities = judge_of(study, space).sensitivities({"x": 0.0, "y": 0.0, "c": "a"})
    assert list(sensitivities)[:2] == ["x", "y"]
    assert sum(sensitivities.values()) == pytest.approx(1.0)
    assert judge_of(optuna.create_study(), space).sensitivities(study.best_params) == {}


def test_a_model_is_of_the_best_and_of_the_latest_others() -> None:
    values = np.array([3.0, 9.0, 0.0, 8.0, 7.0, 2.0, 6.0, 5.0, 4.0, 1.0])
    assert _subset(values, 4).tolist() == [2, 7, 8, 9]
    assert _subset(values, 10).tolist() == [*range(10)]

    failed = np.isin(np.arange(10), [0, 1, 3, 5])
    nothing = np.empty((10, 0))
    known = np.where(failed, math.nan, values)
    trials = Trials([{}] * 10, known, failed, np.zeros(10, bool), nothing)
    assert _labelled(trials, np.arange(10), 4).tolist() == [2, 3, 5, 9]
    assert _labelled(trials, np.arange(3), 4).tolist() == [0, 1, 2]

    assert [_fitted(n) for n in (3, 7, 257)] == [1, 5, 250]


def test_a_suggestion_costs_the_same_after_300_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    def fit(X: np.ndarray, y: np.ndarray) -> np.ndarray:
        fitted.append(len(X))
        return gp._prior(X.shape[1], gp._LOG_LENGTHS[0])[0]

    monkeypatch.setattr(gp, "fit", fit)
    monkeypatch.setattr(failures, "fit", fit)
    monkeypatch.setattr(constraints, "fit", fit)
    X = np.random.default_rng(0).random((700, 1))
    failed = np.arange(700) % 2 == 0
    values = np.where(failed, math.nan, X[:, 0])
    trials = Trials([{}] * 700, values, failed, np.zeros(700, bool), X - 0.5)
    of_values, _ = _model_of_values(trials, X)
    of_failures = _model_of_failures(trials, X)
    of_constraints = _model_of_constraints(trials, X)
    assert of_values is not None and of_failures is not None and of_constraints is not None
    assert fitted == [150, 150, 150]
    sizes = {len(p._Z) for p in (of_values, of_failures._process, of_constraints._process)}
    assert sizes == {300}
