"""The benchmark package's problems: on a surrogate of known failures, and on a real script."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
import pytest

from objective import DataSet
from objective import fit_surrogate
from objective import Surrogate
from objective import Testbed
from objective.benchmark import Problem
from objective.benchmark import TrainingProblem


# As a testbed: DEPTH above 6 runs out of memory, RATE = "fast" fails in another way.
TRAIN = """\
import prepare

DEPTH = 4
RATE = "slow"

if RATE == "fast":
    raise SystemExit(3)
if DEPTH > 6:
    raise MemoryError
bpb = prepare.evaluate_bpb(1 + DEPTH / 10)
print(f"---\\nval_bpb: {bpb}\\ntraining_seconds: 0.1\\npeak_vram_mb: {100 * DEPTH}")
"""
PREPARE = "def evaluate_bpb(loss):\n    return loss\n"
SPACE = """\
[DEPTH]
type = "int"
low = 1
high = 8

[RATE]
type = "categorical"
choices = ["slow", "fast"]
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bed")
    (folder / "train.py").write_text(TRAIN)
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "search_space.toml").write_text(SPACE)
    return folder


def fit(bed: Path, *, memory_fails: bool = True) -> DataSet:
    """Fit a surrogate to three random studies of made-up trainings."""
    testbed = Testbed.load(bed)
    studies = []
    for seed in range(3):
        study = optuna.create_study(
            study_name=f"s{seed}", sampler=optuna.samplers.RandomSampler(seed=seed)
        )
        for _ in range(60):
            trial = study.ask(testbed.space)
            depth = trial.params["DEPTH"]
            status = "crash" if trial.params["RATE"] == "fast" else "ok"
            if memory_fails and status == "ok" and depth > 6:
                status = "oom"
            attrs: dict[str, Any] = {"status": status, "training_seconds": 1.0}
            attrs |= {
                "total_seconds": 2.0,
                **({"val_bpb": 1 + depth / 10} if status == "ok" else {}),
            }
            for name, value in attrs.items():
                trial.set_user_attr(name, value)
            study.tell(trial, attrs.get("val_bpb", 100.0))
        studies.append(study)
    return fit_surrogate(DataSet.collect(studies, testbed, {"machine": "a test"})).data


@pytest.fixture(scope="module")
def data(bed: Path) -> Path:
    path = bed / "data.json.xz"
    fit(bed).write(path)
    return path


def test_a_configuration_that_needs_too_much_memory_breaks_the_constraint(data: Path) -> None:
    problem = Problem(data)
    values = {depth: problem.evaluate({"DEPTH": depth, "RATE": "slow"}) for depth in (2, 8)}
    assert values == {2: pytest.approx(1.2, abs=0.02), 8: pytest.approx(2.1)}, "of 1.1 to 1.6"
    kept, broken = (
        problem.evaluate_constraints({"DEPTH": depth, "RATE": "slow"})["memory"]
        for depth in (2, 8)
    )
    assert kept < -1 and broken > 1
    p = Surrogate.load(data).probabilities({"DEPTH": 8, "RATE": "slow"})
    assert p["oom"] / p["ok"] == pytest.approx(2.718281828**broken)


def test_a_study_stores_the_constraint_and_what_a_training_would_record(data: Path) -> None:
    problem = Problem(data)
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), directions=problem.directions
    )
    study.enqueue_trial(problem.baseline)
    study.optimize(problem, n_trials=30)
    assert study.trials[0].params == {"DEPTH": 4, "RATE": "slow"}
    assert study.directions == [StudyDirection.MINIMIZE]
    assert {trial.user_attrs["status"] for trial in study.trials} == {"ok", "oom", "crash"}
    for trial in study.trials:
        assert trial.distributions == problem.search_space
        assert trial.value == problem.evaluate(trial.params)
        assert trial.constraints == problem.evaluate_constraints(trial.params)
        assert (trial.constraints["memory"] > 0) == (trial.params["DEPTH"] > 6) or (
            trial.params["RATE"] == "fast"
        )
    assert study.best_params["DEPTH"] == 1


def test_noise_changes_a_trials_value_by_its_number_and_seed_only(data: Path) -> None:
    def values(**options: Any) -> list[float]:
        problem = Problem(data, noise=True, **options)
        study = optuna.create_study()
        for _ in range(40):
            study.enqueue_trial({"DEPTH": 6, "RATE": "slow"})
        study.optimize(problem, n_trials=40)
        expected = problem.evaluate_constraints({"DEPTH": 6, "RATE": "slow"})
        assert all(trial.constraints == expected for trial in study.trials)
        return [trial.values[0] for trial in study.trials]

    assert values() == values()
    assert len(set(values())) > 1
    assert values() != values(seed=1)


def test_without_a_failure_value_a_trial_fails_and_keeps_its_constraint(data: Path) -> None:
    study = optuna.create_study()
    study.enqueue_trial({"DEPTH": 8, "RATE": "slow"})
    study.optimize(Problem(data, failure_value=None), n_trials=1, catch=(Exception,))
    (trial,) = study.trials
    assert trial.state == TrialState.FAIL
    assert trial.constraints["memory"] > 0


def test_trials_that_never_ran_out_of_memory_give_no_constraint(bed: Path, tmp_path: Path) -> None:
    fit(bed, memory_fails=False).write(tmp_path / "x.json.xz")
    problem = Problem(tmp_path / "x.json.xz")
    assert problem.evaluate_constraints(problem.baseline) == {}


def test_a_data_set_may_be_uncompressed(data: Path, tmp_path: Path) -> None:
    text = tmp_path / "data.json"
    text.write_bytes(lzma.decompress(data.read_bytes()))
    assert json.loads(text.read_text())["made"] == Problem(text).made == {"machine": "a test"}
    params = {"DEPTH": 3, "RATE": "slow"}
    assert Problem(text).evaluate(params) == Problem(data).evaluate(params)


@pytest.mark.parametrize(
    ("params", "status", "value", "constraint"),
    [
        ({"DEPTH": 5, "RATE": "slow"}, "ok", 1.5, {"0": -1.0, "memory": 500 / 2000 - 1}),
        ({"DEPTH": 8, "RATE": "slow"}, "oom", None, {"0": 1.0, "memory": 1.0}),
        ({"DEPTH": 5, "RATE": "fast"}, "crash", None, {"0": 1.0, "memory": 0.0}),
    ],
    ids=["ok", "out of memory", "crash"],
)
def test_a_training_gives_its_value_and_its_constraint_at_once(
    params: dict[str, Any],
    status: str,
    value: float | None,
    constraint: dict[str, float],
    bed: Path,
) -> None:
    problem = TrainingProblem(bed, memory_limit_mb=2000)
    study = optuna.create_study(directions=problem.directions)
    study.enqueue_trial(params)
    study.optimize(problem, n_trials=1)
    (trial,) = study.trials
    assert (trial.user_attrs["status"], trial.value) == (status, value)
    assert trial.constraints == constraint


def test_a_training_can_be_asked_for_by_its_parameters(bed: Path) -> None:
    params = {"DEPTH": 8, "RATE": "slow"}
    problem = TrainingProblem(bed, memory_limit_mb=2000, failure_value=None)
    assert problem.evaluate_constraints(params) == {"memory": 1.0}
    with pytest.raises(RuntimeError, match="oom"):
        problem.evaluate(params)
    assert TrainingProblem(bed).evaluate({**params, "DEPTH": 2}) == 1.2
    assert TrainingProblem(bed).evaluate_constraints(params) == {}


def test_the_default_script_is_the_embedded_one() -> None:
    problem = TrainingProblem()
    testbed = Testbed.load()
    assert problem.search_space == testbed.space
    assert problem.baseline == testbed.baseline
