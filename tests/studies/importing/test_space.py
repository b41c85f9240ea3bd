"""The ranges that imported hyperparameters get."""

from __future__ import annotations

import math
from pathlib import Path

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.testbed.inference import PAPER_SPACE
from studies.importing.space import _distribution
from tests.studies.conftest import Cli
from tests.studies.importing.conftest import a_row
from tests.studies.importing.conftest import facts_of
from tests.studies.importing.conftest import Write


def test_hyperparameters_get_ranges_that_hold_their_values(cli: Cli, write: Write) -> None:
    configs = [
        {
            "DEPTH": 8,
            "MATRIX_LR": 0.04,
            "EXPERTS": 4,
            "DROPOUT": 0.1,
            "GATED": True,
            "ACT": "relu",
        },
        {"DEPTH": 2, "MATRIX_LR": 0, "EXPERTS": 16, "DROPOUT": 0, "GATED": False, "ACT": "gelu"},
        {"DEPTH": 8.0, "MATRIX_LR": math.nan, "EXPERTS": None, "WINDOW_PATTERN": "SLLL"},
        {"DEPTH": 8.5, "EXPERTS": "many", "SIZES": [1, 2]},
    ]
    rows = [a_row(trial_id=i, config=config) for i, config in enumerate(configs)]
    facts = facts_of(cli, write("runs.jsonl", rows))
    first, second, third, fourth = cli.trials("tpe-seed0")
    assert first.distributions == {
        "DEPTH": IntDistribution(2, 24),
        "MATRIX_LR": PAPER_SPACE["MATRIX_LR"],
        "EXPERTS": IntDistribution(4, 16),
        "DROPOUT": FloatDistribution(0.0, 0.1),
        "GATED": CategoricalDistribution([False, True]),
        "ACT": CategoricalDistribution(["gelu", "relu"]),
    }
    assert second.params == {
        "DEPTH": 2,
        "EXPERTS": 16,
        "DROPOUT": 0.0,
        "GATED": False,
        "ACT": "gelu",
    }
    assert third.params == {"DEPTH": 8, "WINDOW_PATTERN": "SLLL"}
    assert isinstance(third.params["DEPTH"], int)
    assert fourth.params == {}
    assert facts["imported"] == 4
    assert facts["notes"] == {
        "DEPTH: the usual range was widened for": 2,  # 2, and 8.5, which is left out
        "DEPTH: a value left out that isn't in its range": 1,
        "MATRIX_LR: a value left out that isn't in its range": 2,
        "EXPERTS: a value left out that isn't in its range": 1,
        "SIZES: left out, not of one type or a text": 1,
        "WINDOW_PATTERN: the usual range was widened for": 1,
    }


def test_one_value_beside_the_steps_costs_no_other() -> None:
    prior = IntDistribution(64, 512, step=64)
    assert _distribution([128, 576], prior, fixed=False) == IntDistribution(64, 576, step=64)
    assert _distribution([128, 32], prior, fixed=False) == IntDistribution(32, 512)


def test_a_later_file_can_widen_a_range_but_not_choices(cli: Cli, write: Write) -> None:
    first = [a_row(config={"DEPTH": 8, "ACT": "relu"})]
    later = [a_row(trial_id=1, config={"DEPTH": 30, "ACT": "gelu"})]
    facts_of(cli, write("a.jsonl", first))
    facts = facts_of(cli, write("b.jsonl", later))
    assert facts["notes"] == {"ACT: a value left out that isn't in its range": 1}
    old, new = cli.trials("tpe-seed0")
    assert (old.params, new.params) == ({"DEPTH": 8, "ACT": "relu"}, {"DEPTH": 30})


def test_ranges_can_be_those_of_a_testbed(cli: Cli, write: Write, testbed: Path) -> None:
    facts_of(cli, write("runs.jsonl", [a_row(config={"DEPTH": 8})]), "--testbed", testbed)
    (trial,) = cli.trials("tpe-seed0")
    assert trial.distributions == {"DEPTH": IntDistribution(1, 8)}
