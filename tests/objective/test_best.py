from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from objective import best_configuration
from objective import best_script
from objective.failure import CLASSES
from samplers._trials.history import FAILURES
from tests.toy_testbed import write_testbed


def test_a_script_of_ones_own_gets_the_values_that_were_run(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        width = trial.suggest_int("WIDTH", 1, 1000)
        trial.set_user_attr("effective", json.dumps({"WIDTH": 16}))
        trial.set_user_attr("status", "ok" if width < 100 else "oom")
        return float(width)

    for width in (11, 500, 17, 5):
        study.enqueue_trial({"WIDTH": width})
    study.optimize(objective, n_trials=4)
    assert best_configuration(study) == {"WIDTH": 16}
    folder = write_testbed(tmp_path, "WIDTH = 8  # a power of two\n")
    assert best_script(study, folder) == "WIDTH = 16  # a power of two\n"


def test_attributes_of_another_program_are_its_own() -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("status", "completed")
        trial.set_user_attr("effective", "very")
        return trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=3)
    assert best_configuration(study) == study.best_params


def test_classes_of_failure_are_the_same_for_samplers() -> None:
    assert CLASSES == FAILURES


def test_without_a_success_there_is_no_best() -> None:
    with pytest.raises(ValueError, match="must have a successful trial, but has none"):
        best_configuration(optuna.create_study())
