"""When a study has had its share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
import random
import time
from typing import Any

import optuna
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from objective.worker import WORKER
from studies.budget import Budget
from studies.budget import by_end
from studies.budget import charge
from studies.budget import is_ok
from studies.storage.recovery import take_any


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


def timed(number: int, start: float, seconds: float, **attrs: float) -> FrozenTrial:
    """A success of 10 s of training that began and took so long."""
    made = ok(number, 10.0)
    made.user_attrs = {**made.user_attrs, **attrs}
    made.datetime_start = datetime.fromtimestamp(start)
    made.datetime_complete = datetime.fromtimestamp(start + seconds)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda now: monkeypatch.setattr("studies.budget.now", lambda: now)


def test_no_trial_starts_that_would_not_end_in_time(clock: Callable[[float], None]) -> None:
    budget = Budget(until=1100.0, train_seconds=10.0)
    clock(1000.0)
    assert budget.allows([], 0)
    trials = [timed(0, 1000.0, 30.0), timed(1, 1030.0, 25.0)]
    clock(1066.9)
    assert budget.allows(trials, 2), "a trial takes 30 s with start-up and evaluation, or 33"
    clock(1067.1)
    assert not budget.allows(trials, 2)
    assert budget.is_used_up(trials)


def test_a_jump_of_the_clock_is_nothing_that_another_trial_takes() -> None:
    trials = [timed(n, 1000.0 * n, 310.0, total_seconds=300.0) for n in range(3)]
    budget = Budget(until=1e6)
    assert budget.expected_span(trials) == pytest.approx(1.1 * 310)
    trials.append(timed(3, 3000.0, 65 * 60.0, total_seconds=300.0))
    assert budget.expected_span(trials) == pytest.approx(1.1 * 360)
    trials.append(timed(4, 9000.0, 65 * 60.0, total_seconds=300.0, llm_seconds=3000.0))
    assert budget.expected_span(trials) == pytest.approx(1.1 * 3360)
    back = timed(5, 9000.0, -3300.0, total_seconds=300.0)
    assert budget.expected_span([back]) == pytest.approx(1.1 * 300)


def test_wall_time_counts_from_the_first_trial_on(clock: Callable[[float], None]) -> None:
    trials = [timed(0, 1000.0, 30.0)]
    budget = Budget(wall=100.0)
    clock(5000.0)
    assert budget.allows([], 0)
    assert not budget.allows(trials, 1)
    assert budget.deadline(trials) == 1100.0
    clock(1040.0)
    assert budget.trials_left(trials) == 2
    assert budget.trials_left(trials, workers=2) == 4
    assert budget.seconds_left(trials) == 60.0


def test_wall_time_ends_at_the_same_moment_in_all_time_zones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()
    study.enqueue_trial({})
    assert take_any(study)
    ends = []
    try:
        for zone in ("UTC0", "EST5", "JST-9"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            ends.append(Budget(wall=100.0).deadline(study.trials))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert ends == [pytest.approx(time.time() + 100.0, abs=60.0)] * 3
    assert len(set(ends)) == 1


def test_trials_are_in_the_order_of_their_ends_or_of_their_numbers_if_clocks_disagree() -> None:
    def order(*starts: float, own: bool = True) -> list[int]:
        trials = [timed(n, start, 300.0 - 100 * n) for n, start in enumerate(starts)]
        for trial in trials if own else []:
            trial.system_attrs[WORKER] = ["machine", 1, 1.0, trial.number]
        return [trial.number for trial in by_end(reversed(trials))]

    assert order(10_000.0, 10_001.0, 11_000.0) == [1, 0, 2]
    assert order(10_001.0, 10_000.0, 11_000.0) == [1, 0, 2], "two that began at the same time"
    assert order(10_000.0, 6500.0, 6700.0) == [0, 1, 2], "the clock was set back by an hour"
    assert order(10_000.0, 40_000.0, 10_500.0) == [0, 1, 2], "a worker in another time zone"
    assert order(10_000.0, 6500.0, 6700.0, own=False) == [1, 2, 0], "another program's"


def test_the_time_left_counts_the_coming_turns_of_a_language_model() -> None:
    trials = [timed(n, 100.0 * n, 20.0) for n in range(3)]
    trials.append(timed(3, 300.0, 50.0, llm_seconds=30.0))
    budget = Budget(trials=14)
    assert budget.seconds_left(trials) == 10 * 27.5
    assert budget.seconds_left(trials, workers=2) == 10 * 27.5 / 2
    assert budget.seconds_left(trials, llm_share=0.5) == 10 * 35.0
    assert budget.seconds_left(trials[:3], llm_share=0.5) == 11 * 20.0, "none is known yet"
    assert budget.seconds_left([], llm_share=0.5) is None


def test_time_is_kept_for_the_best_to_be_trained_again(clock: Callable[[float], None]) -> None:
    trials = [timed(0, 0.0, 20.0), *(timed(n, 20.0 * n, 20.0) for n in range(1, 8))]
    clock(160.0)
    by_clock = Budget(until=300.0, confirm=3)
    assert by_clock.allows(trials, 8)
    clock(206.0)
    assert not by_clock.allows(trials, 8), "75 s of 300 are kept"
    best = trials[:3]
    assert by_clock.repetitions(trials, best) == 4, "of 94 s, 22 for each"
    assert by_clock.repetitions(trials, best, workers=2) == 6, "two of each of the best"
    assert by_clock.repetitions(trials[:2], best[:2]) == 4, "however few trials there are"
    by_number = Budget(trials=20, until=300.0, confirm=3)
    assert by_number.repetitions(trials, best) == 2, "of 8 trials"
    assert by_number.repetitions(trials, best, done=1) == 1
    assert by_clock.repetitions(trials, best, done=1) == 4, "those took time that has passed"
    by_training = Budget(seconds=100.0, confirm=3)
    assert not by_training.allows(trials, 8)
    assert by_training.repetitions(trials, best) == 2
    dear = ok(8, 40.0)
    longer = Budget(seconds=140.0, confirm=3)
    assert longer.repetitions([*trials, dear], best) == 2, "a dear one isn't repeated"
    assert longer.repetitions([*trials, dear], [dear, *best]) == 0
    assert Budget(trials=8, confirm=3).repetitions(trials, best) == 2
    assert Budget(trials=2, confirm=3).repetitions(trials[:2], best) == 0
    failed = [trial(TrialState.FAIL, n, status="crash") for n in range(3, 20)]
    assert Budget(trials=20, confirm=3).repetitions([*trials[:3], *failed], best) == 6
    assert Budget(trials=8).repetitions(trials, []) == 0


def test_a_failure_that_another_trial_repeats_does_not_count() -> None:
    broken = trial(TrialState.FAIL, 0, status="crash")
    again = trial(TrialState.WAITING, 1)
    again.system_attrs["retry_history"] = [0]
    assert Budget(trials=1).allows([broken, again], 1)
    assert not Budget(trials=1).allows([broken], 1)


def test_a_budget_is_what_its_study_says() -> None:
    budget = Budget(3, 60.0, 5.0, True, until=1e9, wall=90.0, confirm=2)
    stored = {**budget.metadata(), "train_seconds": 5.0, "charge_llm": True}
    assert Budget.of(stored) == budget


def test_what_has_no_value_was_not_measured_whatever_it_says_of_itself() -> None:
    assert is_ok(ok(0, 1.0))
    assert not is_ok(trial(TrialState.PRUNED, status="ok"))
