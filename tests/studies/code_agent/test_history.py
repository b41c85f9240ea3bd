"""Which changes count as gains."""

from __future__ import annotations

from datetime import datetime

from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from samplers._trials.internals import repeating
from studies.code_agent.history import best_of
from studies.code_agent.history import crashed_at_once
from studies.code_agent.history import kept_first
from studies.code_agent.history import read_history
from studies.facts import REPEATS
from studies.revalidation import finalists
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import BETTER_RATE
from tests.studies.code_agent.conftest import finished
from tests.studies.code_agent.conftest import outcomes
from tests.studies.scripted import ScriptedChat


def test_a_gain_within_min_gain_is_reverted(bench: Bench) -> None:
    history = bench.run(ScriptedChat([BETTER_RATE]), trials=2, min_gain=0.5)
    assert read_history(bench.trials(), 0.5).steps[-1].outcome == "reverted"
    assert history.steps[-1].outcome == "kept"


def test_the_noise_of_repeated_baselines_sets_the_gain_that_counts() -> None:
    trials = [finished(i, "startup", value) for i, value in enumerate((2.0, 2.1, 2.2))]
    trials += [finished(3, "llm", 1.95), finished(4, "llm", 1.85)]
    history = read_history(trials)
    assert history.noise == pytest.approx(0.1)
    assert history.min_gain == pytest.approx(0.2)
    assert outcomes(history)[3:] == ["reverted", "kept"]
    trials = [finished(t.number, t.user_attrs["source"], -t.values[0]) for t in trials]
    history = read_history(trials, metric=Metric("accuracy", "maximize"))
    assert outcomes(history)[3:] == ["reverted", "kept"]


def test_edits_are_compared_with_the_baseline_that_has_their_seed() -> None:
    trials = [finished(i, "startup", value) for i, value in enumerate((2.0, 2.2, 2.4))]
    for trial in trials[1:]:
        trial.user_attrs["train_seed"] = 1000 - trial.number
    history = read_history([*trials, finished(3, "llm", 2.05)])
    assert (history.baseline, history.best_value) == (2.0, 2.0)
    assert history.noise == pytest.approx(0.2) and outcomes(history)[-1] == "reverted"
    trials[0] = finished(0, "startup", 2.0)
    trials[0].user_attrs["status"] = "crash"
    assert read_history(trials).baseline == pytest.approx(2.3), "there is no better one"


def test_a_change_without_effect_gains_nothing_on_the_mean_of_baselines() -> None:
    history = read_history([finished(i, "startup" if i < 3 else "llm", 0.3699) for i in range(4)])
    assert history.baseline == 0.3699 and history.noise == 0
    assert outcomes(history)[-1] == "reverted"


def test_a_baseline_is_not_the_best_by_the_luck_of_another_seed() -> None:
    own, lucky = finished(0, "startup", 2.0), finished(1, "startup", 1.8)
    lucky.user_attrs["train_seed"] = 999
    trials = [own, lucky, finished(2, "llm", 1.5)]
    ranked, code = trials[::-1], {"method": "karpathy-code"}
    assert [t.number for t in kept_first(ranked, trials, METRIC, code)] == [2, 0]
    # The first was killed, and ran after the other.
    own.number, lucky.number, trials = 1, 0, [lucky, own]
    history = read_history(trials)
    assert history.best is own and [s.trial for s in history.incumbents] == [own]
    own.user_attrs["status"] = "crash"
    assert kept_first([lucky], trials, METRIC, code) == [lucky], "there is no other"


def test_a_change_that_trained_for_longer_is_not_kept() -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 1.0), finished(2, "llm", 1.5)]
    for trial, seconds in zip(trials, (8.0, 16.0, 8.5)):
        trial.user_attrs["measured_seconds"] = seconds
    assert outcomes(read_history(trials)) == ["baseline", "overtime", "kept"]


def at(trial: FrozenTrial, time: str) -> FrozenTrial:
    """Let a trial have ended at this time of the night in which clocks are set back at 3."""
    trial.datetime_complete = datetime.fromisoformat(f"2025-10-26 {time}")
    return trial


def made_from(parent: int, trial: FrozenTrial) -> FrozenTrial:
    trial.user_attrs["parent"] = parent
    return trial


def test_a_change_is_judged_after_what_it_was_made_from_whatever_the_clock_said() -> None:
    trials = [at(finished(0, "startup", 1.0), "02:40")]
    trials.append(made_from(0, at(finished(1, "llm", 0.95), "02:50")))
    trials.append(made_from(1, at(finished(2, "llm", 0.949), "02:05")))
    trials.append(made_from(1, at(finished(3, "llm", 0.9), "02:10")))
    history = read_history(trials, min_gain=0.008)
    assert [s.trial.number for s in history.steps] == [0, 1, 2, 3]
    assert outcomes(history) == ["baseline", "kept", "reverted", "kept"]
    assert history.steps[2].gain == pytest.approx(0.001)


def test_a_clock_that_is_set_back_leaves_no_trial_doubted_for_good() -> None:
    trials = [at(finished(0, "startup", 2.0), "02:40"), at(finished(1, "llm", 0.3), "02:50")]
    history = read_history([*trials, at(second(2, 1, 0.4), "02:05")])
    assert (outcomes(history), history.best_value) == (["baseline", "kept"], 0.4)


@pytest.mark.parametrize("first", [1, 2])
def test_a_change_is_judged_after_the_second_training_by_which_its_parent_was_kept(
    first: int,
) -> None:
    doubted = at(finished(2, "llm", 0.3), "01:50")
    doubted.system_attrs |= repeating(first) if first != doubted.number else {}
    trials = [at(finished(0, "startup", 2.0), "01:40"), doubted, at(second(3, 2, 0.4), "02:50")]
    trials.append(made_from(first, at(finished(4, "llm", 0.39), "02:20")))
    history = read_history(trials, min_gain=0.05)
    assert [s.trial.number for s in history.steps] == [0, 2, 4]
    assert outcomes(history) == ["baseline", "kept", "reverted"]


def test_the_latest_change_is_not_one_that_the_clock_has_put_behind_its_own_children() -> None:
    baseline = at(finished(0, "startup", 1.0), "02:40")
    baseline.intermediate_values = {1: 1.0}
    trials = [baseline, made_from(0, at(finished(1, "llm", 0.95), "02:50"))]
    crashed = made_from(1, at(finished(2, "llm", 1.0), "02:05"))
    crashed.state, crashed.values = TrialState.FAIL, None
    crashed.user_attrs |= {"status": "crash", "reason": "NameError: name 'x' is not defined"}
    assert crashed_at_once([*trials, crashed]) is crashed


@pytest.mark.parametrize("parent", [1, 2, -1, 7])
def test_a_lineage_ends_whatever_is_stored_as_a_parent(parent: int) -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 1.7), finished(2, "llm", 1.8)]
    trials[1].user_attrs["parent"] = parent
    trials[2].user_attrs["parent"] = 1
    assert read_history(trials).lineage() == [trials[1]]


def second(number: int, of: int, value: float) -> FrozenTrial:
    trial = finished(number, "again", value)
    trial.user_attrs[REPEATS] = of
    return trial


def test_a_gain_that_is_too_large_is_kept_only_after_a_second_training() -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 0.3)]
    history = read_history(trials)
    assert (outcomes(history), history.best_value) == (["baseline", "doubted"], 2.0)
    assert [t.number for t in history.doubted] == [1]
    assert history.steps[1].value is None
    assert "came to 0.3000" in history.steps[1].reason
    refuted = read_history([*trials, second(2, 1, 2.1)])
    assert (outcomes(refuted), refuted.best_value) == (["baseline", "reverted"], 2.0)
    assert (refuted.steps[1].value, refuted.doubted) == (2.1, [])
    assert "trained again (trial 2) it came to 2.1000" in refuted.steps[1].reason
    held = read_history([*trials, second(2, 1, 0.4)])
    assert (outcomes(held), held.best_value) == (["baseline", "kept"], 0.4)
    assert held.best is not None and (held.best.number, held.best.value) == (1, 0.4)
    assert held.steps[1].gain == pytest.approx(1.6)
    assert "read this change" in held.steps[1].reason
    # Such gains were seen to be real, so that others of their size need no second training.
    assert (
        outcomes(read_history([*trials, second(2, 1, 1.0), finished(3, "llm", 0.1)]))[2] == "kept"
    )


@pytest.mark.parametrize(("came", "ranked"), [(0.4, [1, 3, 0]), (1.95, [3, 1, 0])])
def test_the_value_of_the_second_training_is_the_one_that_counts(
    came: float, ranked: list[int]
) -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 0.3), second(2, 1, came)]
    trials.append(finished(3, "llm", 1.9))
    attributes = {"method": "karpathy-code", "min_gain": 0.08}
    by_first = sorted(trials, key=lambda t: t.values[0])
    found = kept_first(by_first, trials, METRIC, attributes)
    assert [t.number for t in found] == ranked
    assert {t.number: t.value for t in found} == {0: 2.0, 1: came, 3: 1.9}
    best = best_of(trials, METRIC, attributes)
    assert best is not None and (best.number, best.value) == (found[0].number, found[0].value)
    assert trials[1].value == 0.3


def test_a_second_training_that_fails_or_takes_longer_lets_nothing_be_kept() -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 0.3), second(2, 1, 0.3)]
    for trial, seconds in zip(trials, (8.0, 8.0, 16.0)):
        trial.user_attrs["measured_seconds"] = seconds
    assert outcomes(read_history(trials)) == ["baseline", "overtime"]
    trials[2].user_attrs["status"] = "oom"
    failed = read_history(trials)
    assert outcomes(failed) == ["baseline", "doubted"] and failed.doubted == []
    assert failed.steps[1].reason.endswith("it failed: oom")


def test_a_doubted_gain_is_decided_after_what_was_kept_meanwhile() -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 0.3), finished(2, "llm", 1.7)]
    history = read_history([*trials, second(3, 1, 0.4)])
    assert [s.trial.number for s in history.steps] == [0, 2, 1]
    assert [s.trial.number for s in history.incumbents] == [0, 2, 1]
    assert history.best is not None and history.best.number == 1


@pytest.mark.parametrize("source", ["llm", "tuner"])
def test_what_is_called_the_best_of_a_code_study_is_what_the_agent_kept(source: str) -> None:
    trials = [finished(0, "startup", 2.0), finished(1, source, 1.8)]
    trials += [finished(2, source, 1.9), finished(3, source, 1.7), finished(4, source, 0.1)]
    for trial, seconds in zip(trials, (8.0, 8.0, 8.0, 16.0, 8.0)):
        trial.user_attrs["measured_seconds"] = seconds
    history = read_history(trials)
    assert outcomes(history) == ["baseline", "kept", "reverted", "overtime", "doubted"]
    assert [s.trial.number for s in history.incumbents] == [0, 1]
    ranked = sorted(trials, key=lambda t: t.values[0])
    found = kept_first(ranked, trials, METRIC, {"method": "karpathy-code"})
    assert [t.number for t in found] == [1, 2, 0]
    assert finalists(trials, METRIC, 1, {"method": "karpathy-code"}) == [trials[1]]
    # Of noise alone a change may be below what was kept.
    found = kept_first(ranked, trials, METRIC, {"method": "karpathy-code", "min_gain": 0.5})
    assert [t.number for t in found] == [0, 1, 2]
    assert kept_first(ranked, trials, METRIC, {"method": "tpe"}) == ranked
    assert best_of(trials, METRIC, {"method": "karpathy-code"}) is trials[1]
    assert best_of(trials, METRIC, {"method": "tpe"}) is trials[4]
