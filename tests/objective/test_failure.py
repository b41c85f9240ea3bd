from __future__ import annotations

from collections.abc import Callable
import math
import sys

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState
import pytest

from objective.failure import behind
from objective.failure import score
from objective.failure import store_constraint
from objective.failure import TrialFailed
from objective.failure import violation
from objective.failure import WORST
from objective.testbed.metric import Direction
from samplers import CentaurSampler
from studies.methods import METHODS
from studies.methods import Setup
from studies.random_steps import RandomSteps


MINIMIZE, MAXIMIZE = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


@pytest.mark.parametrize(
    ("successes", "direction", "expected"),
    [
        ([2600.0, 2500.0], MINIMIZE, 2700.0),
        ([0.9, 0.6], MAXIMIZE, 0.3),
        ([0.5, 0.2], MAXIMIZE, -0.1),
        ([-3.0, -5.0], MINIMIZE, -1.0),
        ([1.2], MINIMIZE, 2.4),
        ([0.9, 0.9], MAXIMIZE, 0.0),
        ([-4.0], MAXIMIZE, -8.0),
        ([0.0], MINIMIZE, 1.0),
        ([math.inf, 1.0, math.nan], MINIMIZE, 2.0),
        ([-1.7e308, 1.7e308], MINIMIZE, sys.float_info.max),
        ([-1.7e308, 1.7e308], MAXIMIZE, -sys.float_info.max),
    ],
)
def test_a_failure_is_behind_every_success_by_their_spread(
    successes: list[float], direction: StudyDirection, expected: float
) -> None:
    assert behind(successes, direction) == pytest.approx(expected)


def test_without_a_success_there_is_no_scale() -> None:
    assert behind([], MINIMIZE) is None
    assert behind([math.nan], MAXIMIZE) is None


def study_with(direction: Direction, *outcomes: tuple[str, float | None]) -> optuna.Study:
    """A study whose objective came to these, scored one after the other."""
    study = optuna.create_study(direction=direction)
    left = iter(outcomes)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        status, value = next(left)
        trial.set_user_attr("status", status)
        store_constraint(trial.storage, trial._trial_id, violation(status, WORST))
        return score(trial, status, "a reason", value, WORST)

    study.optimize(objective, n_trials=len(outcomes))
    return study


@pytest.mark.parametrize(
    ("direction", "values", "expected"),
    [("minimize", (2600.0, 2500.0), 2700.0), ("maximize", (0.7, 0.9), 0.5)],
)
def test_failures_count_by_the_successes_before_them(
    direction: Direction, values: tuple[float, float], expected: float
) -> None:
    a, b = values
    study = study_with(
        direction, ("oom", None), ("ok", a), ("ok", b), ("nan", None), ("crash", None)
    )
    first, _, _, *failed = study.trials
    assert first.state == TrialState.FAIL
    assert [t.value for t in failed] == [pytest.approx(expected)] * 2, "failures are no scale"
    assert study.best_trial.value == (min if direction == "minimize" else max)(values)


def test_what_failed_is_infeasible_even_if_later_successes_are_worse() -> None:
    study = study_with("minimize", ("ok", 1.0), ("crash", None), ("ok", 50.0))
    assert [t.value for t in study.trials] == [1.0, 2.0, 50.0]
    feasible = [all(c <= 0 for c in t.constraints.values()) for t in study.trials]
    assert feasible == [True, False, True]


def test_a_number_is_that_number_and_leaves_no_mark() -> None:
    trial = optuna.create_study().ask()
    assert score(trial, "oom", "", None, 100.0) == 100.0
    assert violation("oom", 100.0) is None
    store_constraint(trial.storage, trial._trial_id, None)
    assert trial.constraints == {}


def test_none_raises() -> None:
    with pytest.raises(TrialFailed, match="oom: no memory"):
        score(optuna.create_study().ask(), "oom", "no memory", None, None)


def test_without_a_study_nothing_stands_for_a_failure() -> None:
    assert math.isnan(score(optuna.trial.FixedTrial({}), "oom", "", None, WORST))


def test_optunas_dashboard_knows_what_is_infeasible() -> None:
    from optuna_dashboard._serializer import serialize_frozen_trial

    study = study_with("minimize", ("ok", 1.0), ("oom", None))
    study_id = study._study_id
    shown = [serialize_frozen_trial(study_id, t, {}) for t in study.trials]
    assert [all(c <= 0 for c in t["constraints"]) for t in shown] == [True, False]


# In the left half trials succeed, the better the further left: RMSE to minimize and accuracy to
# maximize, of which 100.0 and 0.0 would be the best, or as good as any.
SCALES: dict[Direction, Callable[[float], float]] = {
    "minimize": lambda x: 2600 + 100 * x,
    "maximize": lambda x: 0.9 - 0.1 * x,
}


# Method -> trials: enough for it to begin with what it learned, of which the last eight are looked at.
LENGTHS = {
    "tpe": 20,
    "cma-es": 20,
    "gp": 16,
    "smac": 30,
    "llambo-paper": 20,
    "centaur-no-llm": 16,
    "centaur": 16,
    "published": 20,
}


@pytest.mark.parametrize("direction", list(SCALES))
@pytest.mark.parametrize("method", list(LENGTHS))
def test_no_method_seeks_failures(method: str, direction: Direction) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.suggest_float("y", 0, 1)
        status = "ok" if x < 0.5 else "oom"
        trial.set_user_attr("status", status)
        store_constraint(trial.storage, trial._trial_id, violation(status, WORST))
        return score(trial, status, "", SCALES[direction](x), WORST)

    setup = Setup(seed=0, chat=RandomSteps())

    def sampler(number: int) -> BaseSampler:
        if method != "published":
            return METHODS[method].sampler(setup, number)
        return CentaurSampler(
            chat=RandomSteps(), critic=None, learn_from_llm="all", reply="menu", seed=0
        )

    study = optuna.create_study(direction=direction, sampler=sampler(0))
    study.enqueue_trial({"x": 0.4, "y": 0.5})
    for number in range(LENGTHS[method]):
        if method != "published" and METHODS[method].seeded_by_trial:
            study.sampler = sampler(number)
        study.optimize(objective, n_trials=1)
    late = [t.user_attrs["status"] for t in study.trials[-8:]]
    assert late.count("oom") <= 4
