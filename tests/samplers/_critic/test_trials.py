"""What of a study's trials a model is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from samplers._critic.trials import read_trials
from samplers._critic.trials import Trials
from samplers._critic.trials import unfinished
from samplers._trials.announced import announce


X = {"x": FloatDistribution(0, 1)}


def add(
    study: optuna.Study,
    value: float | None,
    *,
    state: TrialState = TrialState.COMPLETE,
    reported: dict[int, float] | None = None,
    constraint: float | None = None,
    status: str = "ok",
) -> None:
    trial = create_trial(
        state=state,
        value=value,
        params={"x": 0.5},
        distributions=dict(X),
        intermediate_values=reported or {},
        user_attrs={"status": status},
        constraints=None if constraint is None else {"c": constraint},
    )
    study.add_trial(trial)


def read(study: optuna.Study) -> Trials:
    trial = study.ask()
    return read_trials(study, study._storage.get_trial(trial._trial_id), X)


def values(study: optuna.Study) -> list[float | None]:
    return [None if math.isnan(v) else float(v) for v in read(study).values]


def test_lower_is_better_in_either_direction() -> None:
    for direction, expected in (("minimize", [2.0, -1.0]), ("maximize", [-2.0, 1.0])):
        study = optuna.create_study(direction=direction)  # type: ignore[arg-type]
        add(study, 2.0)
        add(study, -1.0)
        assert values(study) == expected


def test_a_value_is_one_that_can_be_calculated_with() -> None:
    study = optuna.create_study()
    for value in (1.7e308, 1.6e308):
        add(study, value)
    add(study, None, state=TrialState.PRUNED, reported={0: 1.0})

    assert values(study) == [1e300] * 3


def test_failures_of_every_kind_have_no_value() -> None:
    study = optuna.create_study()
    add(study, 1.0)
    add(study, 100.0, status="oom")
    add(study, math.inf)
    add(study, None, state=TrialState.FAIL)

    trials = read(study)

    assert values(study) == [1.0, None, None, None]
    assert trials.failed.tolist() == [False, True, True, True]


@pytest.mark.parametrize(("last", "expected"), [(0.5, 2.0), (7.0, 7.0)])
def test_a_pruned_trial_is_no_better_than_the_median(last: float, expected: float) -> None:
    study = optuna.create_study()
    for value in (1.0, 2.0, 3.0):
        add(study, value)
    add(study, None, state=TrialState.PRUNED, reported={0: 9.0, 1: last})

    trials = read(study)

    assert trials.values[3] == expected and not trials.failed[3]


def test_one_that_was_pruned_before_it_reported_anything_has_no_value() -> None:
    study = optuna.create_study()
    add(study, 1.0)
    add(study, None, state=TrialState.PRUNED)

    assert values(study) == [1.0, None]


def test_what_violates_a_mark_failed() -> None:
    study = optuna.create_study()
    add(study, 1.0, constraint=-1.0)
    add(study, 0.0, constraint=0.1)
    add(study, 0.0, constraint=math.inf)

    assert values(study) == [1.0, None, None]
    assert read(study).failed.tolist() == [False, True, True]


def test_constraints_that_tell_more_than_yes_or_no_are_no_failures() -> None:
    study = optuna.create_study()
    for value, constraint in ((1.0, -1.0), (0.0, 0.1), (2.0, -2.0), (0.0, math.inf)):
        add(study, value, constraint=constraint)
    add(study, 3.0)
    add(study, 9.0, constraint=1e9, status="oom")

    trials = read(study)

    assert values(study) == [1.0, 0.0, 2.0, None, 3.0, None]
    assert trials.failed.tolist() == [False, False, False, True, False, True]
    assert trials.feasible[:3].tolist() == [True, False, True]
    known = trials.constraints[:, 0]
    assert known[:3].tolist() == [-1.0, 0.1, -2.0] and np.isnan(known[3:]).all()


def test_a_trials_constraints_are_looked_up_no_more_often_if_they_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look_up = vars(FrozenTrial)["constraints"].fget
    n_looks = []
    for k in (2, 50):
        study = optuna.create_study()
        for sign in (-1.0, 1.0, -2.0, 2.0):
            constraints = {f"c{i}": sign * (i + 1) for i in range(k)}
            study.add_trial(
                create_trial(
                    value=1.0, params={"x": 0.5}, distributions=dict(X), constraints=constraints
                )
            )
        looks: list[FrozenTrial] = []

        def count(trial: FrozenTrial, looks: list[FrozenTrial] = looks) -> dict[str, float]:
            looks.append(trial)
            return dict(look_up(trial))

        monkeypatch.setattr(FrozenTrial, "constraints", property(count))
        assert read(study).constraints.shape[1] == k
        n_looks.append(len(looks))
    assert n_looks[0] == n_looks[1]


def test_constraints_may_be_integers() -> None:
    for constraints in ([2, -1, 0, -3], [1, 0, 0, 1]):
        study = optuna.create_study()
        for c in constraints:
            trial = create_trial(
                value=1.0,
                params={"x": 0.5},
                distributions=dict(X),
                system_attrs={"constraints": [c]},
            )
            study.add_trial(trial)
        trials = read(study)
        graded = len(set(constraints)) > 2
        assert trials.constraints.shape[1] == graded
        assert trials.failed.any() == (not graded)


def test_what_failed_is_not_feasible_whatever_it_lacks() -> None:
    study = optuna.create_study()
    add(study, 100.0, status="oom")
    for constraint in (3.0, 2.0, 1.0):
        add(study, 7.0, constraint=constraint)

    assert values(study) == [None, 3.0, 2.0, 1.0]


def test_a_pruned_trial_is_as_bad_as_the_median_of_what_is_feasible() -> None:
    study = optuna.create_study()
    for value, constraint in ((0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (10.0, -1.0)):
        add(study, value, constraint=constraint)
    add(study, None, state=TrialState.PRUNED, reported={1: 6.0})

    assert values(study)[-1] == 10.0


def test_a_mark_beside_a_constraint_is_one_of_a_failure() -> None:
    study = optuna.create_study()
    for x, mark in ((-1.0, 0.0), (0.5, 0.0), (-0.5, 1.0), (-2.0, 0.0)):
        trial = create_trial(
            value=x,
            params={"x": 0.5},
            distributions=dict(X),
            constraints={"mark": mark, "c": x},
        )
        study.add_trial(trial)

    trials = read(study)

    assert trials.failed.tolist() == [False, False, True, False]
    assert trials.constraints.ravel().tolist() == [-1.0, 0.5, -0.5, -2.0]


def test_while_none_is_feasible_the_violation_is_the_value() -> None:
    study = optuna.create_study()
    add(study, 1.0, constraint=3.0)
    add(study, 5.0, constraint=0.1)

    assert values(study) == [3.0, 0.1]
    assert not read(study).failed.any()


def test_what_runs_or_is_queued_comes_last_with_what_is_known_of_it() -> None:
    study = optuna.create_study()
    add(study, 1.0)
    running, announced = study.ask(), study.ask()
    running.suggest_float("x", 0, 1)
    announce(study, study._storage.get_trial(announced._trial_id), {"x": 0.25})
    study.ask()  # of which nothing is known
    asked: Any = study.ask()
    study.enqueue_trial({"x": 0.75})

    trials = read_trials(study, study._storage.get_trial(asked._trial_id), X)

    assert trials.configurations == [{"x": 0.5}, running.params, {"x": 0.25}, {"x": 0.75}]
    assert trials.running.tolist() == [False, True, True, True]
    assert np.isnan(trials.values).tolist() == [False, True, True, True]


def test_what_is_no_value_of_the_space_is_not_known_of_what_is_queued() -> None:
    study = optuna.create_study()
    for odd in ({"x": "abc", "kind": "a"}, {"x": [0.5], "kind": "none of them"}):
        study.enqueue_trial(odd)
    waiting = study.get_trials(deepcopy=False)
    sampled = create_trial(state=TrialState.RUNNING)
    sampled.number = len(waiting)
    space = {**X, "kind": CategoricalDistribution(["a", "b"])}
    assert unfinished(waiting, sampled, space) == [{"kind": "a"}, {}]


def test_an_empty_study_says_nothing() -> None:
    trials = read(optuna.create_study())

    assert trials.configurations == [] and len(trials.values) == 0
