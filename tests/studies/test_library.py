"""Studies that were made with Optuna alone, by every command that only looks."""

from __future__ import annotations

import json
import math
from pathlib import Path
import re
from typing import Any

import optuna
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from studies.budget import counted
from studies.commands.best import best
from studies.commands.report import report
from studies.commands.status import status
from studies.errors import Misuse
from studies.facts import study_facts
from studies.library import evaluated_trials
from studies.library import is_library_study
from studies.study import _note_metadata


def _objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 1e-3, 1.0, log=True)
    kind = trial.suggest_categorical("kind", ["a", None])
    trial.report(x, 0)
    if trial.number % 7 == 3:
        raise RuntimeError
    if trial.number % 7 == 4:
        raise optuna.TrialPruned
    if trial.number % 7 == 5:
        return float("nan")
    return x + (kind is None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A study to be maximized, with failed and pruned trials, in a new storage."""
    url = f"sqlite:///{tmp_path}/s.db"
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        storage=url, study_name="mine", direction="maximize", sampler=sampler
    )
    study.optimize(_objective, n_trials=28, catch=RuntimeError)
    return url


def test_its_trials_have_a_status_and_their_time(url: str) -> None:
    study = optuna.load_study(study_name="mine", storage=url)
    of = [t.user_attrs.get("status") for t in evaluated_trials(study)]
    # Optuna takes a value that is no number for a failure.
    assert of == ["ok", "ok", "ok", "crash", None, "crash", "ok"] * 4
    assert all(t.user_attrs["training_seconds"] >= 0 for t in evaluated_trials(study))
    assert "status" not in study.trials[0].user_attrs


def test_attributes_of_its_own_mean_nothing_here() -> None:
    study = optuna.create_study()
    attrs = {"status": "completed", "source": "the shop", "training_seconds": 3.0}
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=attrs))
    (trial,) = evaluated_trials(study)
    assert trial.user_attrs["status"] == "ok" and "source" not in trial.user_attrs
    assert trial.user_attrs["training_seconds"] == 3.0


def test_a_method_among_its_attributes_does_not_make_it_ours(url: str) -> None:
    study = optuna.load_study(study_name="mine", storage=url)
    study.set_user_attr("method", "bagging")
    facts = study_facts(study)
    assert (facts["metric"], facts["ok"], facts["pruned"]) == ("value", 16, 4)
    assert facts["best"]["value"] == study.best_value
    assert not is_library_study({"imported_from": "runs.json"})


def test_status_best_and_report_show_it(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status(url, as_json=True)
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["metric"], facts["ok"], facts["pruned"]) == ("value", 16, 4)
    assert facts["failures"] == {"crash": 8} and facts["baseline"] is None
    value = optuna.load_study(study_name="mine", storage=url).best_value
    assert facts["best"]["value"] == value
    best(url, as_json=True)
    assert json.loads(capsys.readouterr().out)["value"] == value
    report(url, tmp_path / "out")
    out = capsys.readouterr().out
    assert f"value {value:.4f} in trial" in out and "revalidate`" not in out
    assert "was evaluated once: where value is noisy, it is in part luck." in out
    assert re.search(r"All of it took 28 trials, which lasted [\d.e-]+ seconds in sum\.", out)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Higher value is better." in page and "Learning curves" in page
    assert "time of the trials" in page and f">mine ({value:.4f})</option>" in page
    assert "Comparison of methods" not in page and "training time" not in page


def test_a_study_that_a_run_has_only_begun_to_describe_is_none_of_optunas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed after the first attribute has not written its method yet."""
    written: list[str] = []

    def killed(study: optuna.Study, key: str, value: object) -> None:
        study._storage.set_study_user_attr(study._study_id, key, value)
        written.append(key)
        raise KeyboardInterrupt

    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/s.db")
    monkeypatch.setattr(optuna.Study, "set_user_attr", killed)
    metadata = {"method": "random", "seed": 0, "testbed_hash": "x", "version": "1"}
    with pytest.raises(KeyboardInterrupt):
        _note_metadata(study, metadata, {"trials": 3})
    assert written == ["testbed_hash"]
    assert not is_library_study(study.user_attrs)


def test_what_ctrl_c_ended_is_no_failure() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"status": "interrupted"}))
    study.add_trial(create_trial(state=TrialState.FAIL))
    assert [t.number for t in counted(evaluated_trials(study))] == [1]


def test_what_is_infeasible_is_shown_with_its_value_and_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.set_constraint("memory", trial.number - 2.5)
        return 10.0 - trial.suggest_int("x", trial.number, trial.number)

    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(storage=url, study_name="mine")
    study.optimize(objective, n_trials=4)
    facts = study_facts(study)
    assert (facts["ok"], facts["failed"], facts["infeasible"]) == (3, 0, 1)
    status(url)
    assert "3 ok, 1 infeasible" in capsys.readouterr().out
    report(url, tmp_path / "out")
    out = capsys.readouterr().out
    assert "value 8.0000 in trial 2" in out and "failed" not in out
    assert "1 of the trials violated a constraint, and doesn't count." in out
    csv = (tmp_path / "out" / "trials.csv").read_text(encoding="utf-8")
    assert "mine,0,mine,3,7.0,infeasible," in csv
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (
        "constraints must be at most 0, but memory is 0.5" in page
        and "infeasible ones orange" in page
    )


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (1.23456789e-05, "1.23457e-05"),
        (math.nan, "nan"),
        (10**400, "1000000000000000000…"),
        (None, "None"),
    ],
)
def test_a_violated_constraint_is_told_with_its_size(constraint: Any, said: str) -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: 1.0, n_trials=1)
    storage = study._storage
    trial_id = storage.create_new_trial(study._study_id)
    storage.set_trial_system_attr(trial_id, "constraints:c", constraint)
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0])
    assert evaluated_trials(study)[1].user_attrs["reason"] == (
        f"constraints must be at most 0, but c is {said}"
    )


def test_several_objectives_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(storage=url, study_name="two", directions=["maximize", "minimize"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.number), n_trials=3)
    status(url)
    assert "2 objectives" in capsys.readouterr().out
    with pytest.raises(Misuse, match="two.*2 objectives"):
        report(url, tmp_path / "out")
    with pytest.raises(Misuse, match="one objective, but has 2"):
        best(url)
    assert capsys.readouterr().err == ""
