"""What a user says of a script, and who wins."""

from __future__ import annotations

import pytest

from objective.testbed.interface import Interface
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric


def test_the_command_line_wins_over_the_file_value_by_value() -> None:
    given = Interface(metric="loss", direction="minimize")
    file = Interface("python t.py", metric="accuracy", direction="maximize", metric_file="m.json")
    merged = given.or_else(file)
    assert merged == Interface("python t.py", None, "loss", "minimize", "m.json")
    assert merged.to_metric() == Metric("loss", file="m.json")


def test_a_study_keeps_it_and_gives_it_back() -> None:
    interface = Interface("python t.py {x}", "c.yaml", "accuracy", "maximize", "m.json")
    assert Interface.of({**interface.facts(), "seed": 3}) == interface
    assert Interface().facts()["metric"] == METRIC.name
    assert Interface.of({}) == Interface()


def test_val_bpb_is_measured_by_the_evaluator_and_no_other_metric_is() -> None:
    assert Interface().to_metric() == METRIC == Interface(metric="val_bpb").to_metric()
    assert Interface(metric="loss").to_metric().evaluator == ""


@pytest.mark.parametrize(
    "name",
    [
        "accuracy",
        "val_acc",
        "Test accuracy",
        "eval/f1",
        "top-1 acc",
        "R2",
        "mAP50",
        "top1",
        "val_acc1",
    ]
    + ["score", "episode_return", "win_rate", "spearman", "log_likelihood", "pass@1"],
)
def test_a_metric_of_which_higher_is_better_needs_a_direction(name: str) -> None:
    (told,) = Interface(metric=name).left_open()
    assert "must have a direction" in told and "--direction maximize" in told
    for direction in ("minimize", "maximize"):
        assert Interface(metric=name, direction=direction).left_open() == []


@pytest.mark.parametrize(
    "name",
    [None, "loss", "RMSE", "accuracy_loss", "1-auc", "-acc", "space", "perplexity"]
    + ["top1_error", "negative_log_likelihood", "nll", "L2", "mse_1"],
)
def test_other_metrics_are_minimized_without_a_word(name: str | None) -> None:
    assert Interface(metric=name).left_open() == []
