"""The first thing on a page: what was found, what it gained, whether to believe it."""

from __future__ import annotations

import optuna
import pytest

from studies.report.best import best_section
from studies.report.best import best_sentences
from studies.report.content import Report
from studies.report.page import build_page
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of


def with_baseline(memory: optuna.storages.InMemoryStorage, name: str = "tpe") -> optuna.Study:
    study = add_study(memory, name, 0, failed_share=0.0)
    first = study.get_trials(deepcopy=False)[0]
    first.user_attrs["source"] = "enqueued"
    return study


def test_the_best_trial_of_all_runs_is_named_with_its_gain(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    study = with_baseline(memory)
    runs = runs_of(memory)
    first, best = study.get_trials(deepcopy=False)[0].value, study.best_value
    assert first is not None
    said = " ".join(best_sentences(runs))
    assert f"val_bpb {best:.4f} in trial {study.best_trial.number} of tpe" in said
    assert f"The script as it was came to {first:.4f}: a gain of {first - best:.4f}." in said
    assert "was not repeated" in said


@pytest.mark.parametrize("again, believed", [([1.0, 1.001, 1.002], True), ([1.2, 1.3], False)])
def test_repetitions_say_whether_to_believe_it(
    memory: optuna.storages.InMemoryStorage, again: list[float], believed: bool
) -> None:
    study = with_baseline(memory)
    add_repetitions(memory, study, again)
    said = " ".join(best_sentences(runs_of(memory)))
    assert f"Trained again {len(again)} times" in said
    assert ("not clearly better" in said) != believed


def test_the_parameters_are_those_that_were_run_beside_the_baselines(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    with_baseline(memory)
    (run,) = runs_of(memory)
    html = best_section([run]).html(0)
    for row in (run.incumbents[-1], run.rows[0]):
        assert f"{row.params['LR']:.5g}</td>" in html
        assert f"{row.params['WIDTH']:.5g}</td>" in html


def test_a_study_without_a_success_says_so(memory: optuna.storages.InMemoryStorage) -> None:
    add_study(memory, "tpe", 0, failed_share=1.0)
    assert best_sentences(runs_of(memory)) == ["No trial has succeeded yet."]


def test_one_study_is_no_comparison(memory: optuna.storages.InMemoryStorage) -> None:
    with_baseline(memory)
    page = build_page(Report(runs_of(memory), "tpe", "tpe-seed0"))
    assert "The best so far" in page and "What it cost" in page
    assert "Wilcoxon" not in page and "What can be said" not in page
