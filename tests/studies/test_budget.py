"""When a study has had its share."""

from __future__ import annotations

import random
from typing import Any

from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from studies.budget import Budget
from studies.budget import charge


def trial(state: TrialState, number: int = 0, **attrs: Any) -> FrozenTrial:
    value = 1.0 if state == TrialState.COMPLETE else None
    made = create_trial(state=state, value=value, user_attrs=attrs)
    made.number = number
    return made


def ok(number: int, seconds: float) -> FrozenTrial:
    return trial(
        TrialState.COMPLETE,
        number,
        status="ok",
        training_seconds=seconds,
        total_seconds=seconds + 3,
    )


def test_a_success_is_charged_its_training_and_a_failure_its_whole_run() -> None:
    failed = trial(TrialState.COMPLETE, status="oom", training_seconds=1.0, total_seconds=2.5)
    raised = trial(TrialState.FAIL, status="crash", total_seconds=4.0)
    killed = trial(TrialState.FAIL)
    running = trial(TrialState.RUNNING)
    assert [charge(t) for t in (ok(0, 5.0), failed, raised, killed, running)] == [5, 2.5, 4, 0, 0]


def test_a_killed_trial_does_not_count_but_what_repeats_it_does() -> None:
    trials = [
        ok(0, 1.0),
        trial(TrialState.FAIL, 1),
        trial(TrialState.FAIL, 2, status="crash"),
        trial(TrialState.FAIL, 3, status="ok"),  # killed between its record and its end
        trial(TrialState.WAITING, 4),
    ]
    assert Budget(trials=3).allows(trials, 4)
    assert not Budget(trials=2).allows(trials, 4)


def test_whether_a_trial_may_start_does_not_depend_on_later_ones() -> None:
    trials = [ok(0, 1.0), trial(TrialState.WAITING, 1), *(ok(n, 1.0) for n in range(2, 9))]
    assert Budget(trials=2).allows(trials, 1)


def test_running_trials_are_charged_what_they_are_planned_to_take() -> None:
    budget = Budget(seconds=20, train_seconds=5)
    trials = [ok(0, 5.0), trial(TrialState.RUNNING, 1), trial(TrialState.RUNNING, 2)]
    assert budget.allows(trials, 3)
    assert not budget.allows([*trials, trial(TrialState.RUNNING, 3)], 4)


@pytest.mark.parametrize("seed", range(20))
def test_a_time_budget_is_used_up_but_never_overrun(seed: int) -> None:
    rng = random.Random(seed)
    budget = Budget(seconds=60, train_seconds=5)
    trials: list[FrozenTrial] = []
    while budget.allows(trials, len(trials)):
        if rng.random() < 0.3:
            number, seconds = len(trials), rng.uniform(0.5, 2.0)
            trials.append(trial(TrialState.COMPLETE, number, status="oom", total_seconds=seconds))
        else:
            # The last step takes a little longer than the plan; the first trial tells how much.
            trials.append(ok(len(trials), 5.05 if not trials else rng.uniform(5.0, 5.05)))
    assert 54.95 < sum(map(charge, trials)) <= 60


def test_twelve_trials_of_five_seconds_and_a_bit_are_eleven_in_a_minute() -> None:
    budget = Budget(seconds=60, train_seconds=5)
    trials: list[FrozenTrial] = []
    while budget.allows(trials, len(trials)):
        trials.append(ok(len(trials), 5.05))
    assert len(trials) == 11


def test_a_trial_of_unknown_length_measures_it() -> None:
    budget = Budget(seconds=60)
    assert budget.allows([], 0)
    assert not budget.allows([ok(0, 40.0)], 1)


def test_what_is_left_is_the_scarcer_of_trials_and_time() -> None:
    trials = [ok(0, 5.0), ok(1, 5.0)]
    assert Budget(trials=20, seconds=30, train_seconds=5).trials_left(trials) == 4
    assert Budget(trials=3, seconds=30, train_seconds=5).trials_left(trials) == 1
    assert Budget(trials=2).trials_left(trials) == 0
