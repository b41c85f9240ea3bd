"""Which changes count as gains."""

from __future__ import annotations

import pytest

from objective.testbed.metric import Metric
from studies.code_agent.history import read_history
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


def test_a_change_that_trained_for_longer_is_not_kept() -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 1.0), finished(2, "llm", 1.5)]
    for trial, seconds in zip(trials, (8.0, 16.0, 8.5)):
        trial.user_attrs["measured_seconds"] = seconds
    assert outcomes(read_history(trials)) == ["baseline", "overtime", "kept"]


@pytest.mark.parametrize("parent", [1, 2, -1, 7])
def test_a_lineage_ends_whatever_is_stored_as_a_parent(parent: int) -> None:
    trials = [finished(0, "startup", 2.0), finished(1, "llm", 1.0), finished(2, "llm", 1.5)]
    trials[1].user_attrs["parent"] = parent
    trials[2].user_attrs["parent"] = 1
    assert read_history(trials).lineage() == [trials[1]]
