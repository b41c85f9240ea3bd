from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.trial import TrialState
import pytest

from objective import TrainScriptObjective
from studies.budget import charge
from studies.facts import study_facts
from studies.pruning import make_pruner
from studies.pruning import RULES
from tests.studies.commands.test_run import run
from tests.studies.conftest import Cli


def stopped_at(
    rule: str | None, earlier: int = 10, steps: Iterable[int] = range(0, 101, 5)
) -> int:
    """The step that a hopeless training goes through to after so many better ones."""
    study = optuna.create_study(pruner=make_pruner(rule))
    for number in range(earlier):
        trial = study.ask()
        for step in steps:
            trial.report(2 - step / 100 + number / 100, step)
        study.tell(trial, 1.0)
    trial = study.ask()
    for step in steps:
        trial.report(5 - step / 100, step)
        if trial.should_prune():
            return step
    return 101


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("rule", RULES)
def test_a_hopeless_training_is_stopped_but_not_at_once(rule: str) -> None:
    assert 30 <= stopped_at(rule) <= 40
    assert 30 <= stopped_at(rule, steps=range(101)) <= 40, "lines without a total"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("rule", RULES)
def test_none_of_the_first_trials_is_stopped(rule: str) -> None:
    assert stopped_at(rule, 4) == 101
    assert stopped_at(rule, 5) < 101


@pytest.mark.parametrize(("rule", "share"), [("median", 0.5), ("percentile", 0.75)])
def test_what_is_worse_than_a_share_of_the_others_is_stopped(rule: str, share: float) -> None:
    study = optuna.create_study(pruner=make_pruner(rule))
    for number in range(10):
        trial = study.ask()
        trial.report(number, 50)
        study.tell(trial, number)

    def is_stopped(value: float) -> bool:
        trial = study.ask()
        trial.report(value, 50)
        return trial.should_prune()

    assert not is_stopped(9 * share - 0.1)
    assert is_stopped(9 * share + 0.1)


def test_without_a_rule_none_is_stopped() -> None:
    assert stopped_at(None) == 101


def test_what_was_stopped_is_charged_and_counted_as_that(testbed: Path) -> None:
    train = testbed / "train.py"
    train.write_text(train.read_text().replace("{5 - step / 10:.6f}", "{DEPTH - step / 10:.6f}"))
    study = optuna.create_study(pruner=make_pruner("median"))
    objective = TrainScriptObjective(testbed, train_seconds=2)
    study.enqueue_trial({"DEPTH": 1, "LR": 0.01, "PATTERN": "ab"})
    study.optimize(objective, n_trials=1)
    study.add_trials(study.trials * 4)  # the median rule begins after five
    study.enqueue_trial({"DEPTH": 7, "LR": 0.01, "PATTERN": "ab"})
    study.optimize(objective, n_trials=1)
    stopped = study.trials[-1]
    assert stopped.state == TrialState.PRUNED
    seconds = stopped.user_attrs
    assert 0 < charge(stopped) == seconds["training_seconds"] < seconds["total_seconds"]
    facts = study_facts(study)
    assert (facts["ok"], facts["failed"], facts["pruned"]) == (5, 0, 1)


def test_a_rule_must_be_one_that_there_is(cli: Cli, testbed: Path) -> None:
    error = cli.fails(2, *run(testbed, prune="best"))
    assert "--prune must be one of median, percentile, wilcoxon" in error
