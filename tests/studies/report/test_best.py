"""The first thing on a page: what was found, what it gained, whether to believe it."""

from __future__ import annotations

from dataclasses import replace

import optuna
from optuna.trial import create_trial
import pytest

from objective.best import values_run
from studies.best import find_winner
from studies.best import Winner
from studies.code_agent.history import DOUBTED
from studies.report.best import best_run
from studies.report.best import best_section
from studies.report.best import best_sentences
from studies.report.content import Report
from studies.report.page import build_page
from studies.report.runs import Run
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of
from tests.studies.report.synthetic import SPACE


def with_baseline(memory: optuna.storages.InMemoryStorage, name: str = "tpe") -> optuna.Study:
    study = add_study(memory, name, 0, failed_share=0.0)
    first = study.get_trials(deepcopy=False)[0]
    first.user_attrs["source"] = "enqueued"
    return study


def winner_of(study: optuna.Study, memory: optuna.storages.InMemoryStorage) -> Winner:
    winner = find_winner(study, memory)
    assert winner is not None
    return winner


def said(study: optuna.Study, memory: optuna.storages.InMemoryStorage) -> str:
    return " ".join(best_sentences(runs_of(memory), winner_of(study, memory)))


def test_the_best_trial_is_named_with_its_gain(memory: optuna.storages.InMemoryStorage) -> None:
    study = with_baseline(memory)
    winner = winner_of(study, memory)
    assert winner.baseline is not None
    was, best = winner.baseline.values[0], winner.trial.values[0]
    text = said(study, memory)
    assert f"val_bpb {best:.4f} in trial {winner.trial.number} of tpe-seed0" in text
    assert f" Better than the baseline ({was:.4f}) by {was - best:.4f}." in text
    assert (
        f" Trial {winner.trial.number} was trained once, so that its val_bpb is in part luck;"
        in text
    )


@pytest.mark.parametrize(
    ("source", "by"),
    [
        ("llm", ", proposed by the language model."),
        ("base", "tpe-seed0."),
        ("startup", "tpe-seed0."),
        ("gpt-4", ", proposed by gpt-4."),
        (None, "tpe-seed0."),
    ],
)
def test_who_proposed_the_best_is_said_in_plain_words(
    memory: optuna.storages.InMemoryStorage, source: str | None, by: str
) -> None:
    study = with_baseline(memory)
    number = study.best_trial.number
    study.get_trials(deepcopy=False)[number].user_attrs["source"] = source
    (first, *_) = best_sentences(runs_of(memory), winner_of(study, memory))
    assert first.endswith(by)


def test_an_unknown_time_is_not_said_to_be_none(memory: optuna.storages.InMemoryStorage) -> None:
    study = with_baseline(memory)
    assert "All of it took 30 trials and " in said(study, memory)
    runs = runs_of(memory)
    timeless = [replace(r, rows=tuple(replace(row, seconds=0.0) for row in r.rows)) for r in runs]
    *_, last = best_sentences(timeless, winner_of(study, memory))
    assert last == "All of it took 30 trials."


def test_failures_are_said_with_what_most_of_them_failed_with(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    study = with_baseline(memory)
    assert " failed" not in said(study, memory)

    def fail(status: str, **attrs: str) -> None:
        study.add_trial(create_trial(value=100.0, user_attrs={"status": status, **attrs}))

    for got in (1.25, 1.5e-7):
        fail("crash", reason=f"ValueError: x must be <= 1, but got {got}.")
    assert said(study, memory).endswith(
        " 2 of the trials failed with crash: ValueError: x must be <= 1, but got 1.5e-07."
    )
    fail("timeout")
    fail("pruned")
    assert said(study, memory).endswith(
        " 3 of the trials failed, most often (2 times) with crash: ValueError: x must be <= 1, but"
        " got 1.5e-07."
    )
    for _ in range(3):
        fail("oom")
    assert said(study, memory).endswith(" most often (3 times) with oom.")


def test_a_doubted_gain_is_no_failure(
    code_run: Run, memory: optuna.storages.InMemoryStorage
) -> None:
    doubted = replace(code_run, rows=(replace(code_run.rows[0], status=DOUBTED),))
    winner = find_winner(optuna.load_study(study_name="code", storage=memory), memory)
    assert winner is not None
    assert " failed" not in " ".join(best_sentences([doubted], winner))


@pytest.mark.parametrize("again, is_noise", [([1.0, 1.001, 1.002], False), ([1.04, 1.3], True)])
def test_repetitions_say_whether_to_believe_it(
    memory: optuna.storages.InMemoryStorage, again: list[float], is_noise: bool
) -> None:
    study = with_baseline(memory)
    add_repetitions(memory, study, again)
    assert f" was trained {len(again)} times more, with other seeds: " in said(study, memory)
    assert ("within the noise" in said(study, memory)) == is_noise


def test_the_parameters_are_those_that_were_run_beside_the_baselines(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    winner = winner_of(with_baseline(memory), memory)
    html = best_section(runs_of(memory), winner).html
    assert winner.baseline is not None
    for trial in (winner.trial, winner.baseline):
        run = values_run(trial)
        assert f"{run['LR']:.5g}</td>" in html and f"{run['WIDTH']:.5g}</td>" in html


def test_one_study_is_no_comparison(memory: optuna.storages.InMemoryStorage) -> None:
    winner = winner_of(with_baseline(memory), memory)
    page = build_page(Report(runs_of(memory), "tpe", "tpe-seed0", winner=winner))
    assert "The best so far" in page and "What it cost" in page
    assert "Wilcoxon" not in page and "What can be said" not in page


def test_the_run_with_the_best_value_is_the_one_that_is_shown(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    for seed, gap in ((0, 0.1), (1, -0.1), (2, 0.0)):
        add_study(memory, "tpe", seed, gap=gap)
    add_study(memory, "random", 0, failed_share=1.0)
    run = best_run(runs_of(memory))
    assert run is not None and run.seed == 1


def test_a_lucky_value_makes_no_run_the_best_where_all_were_trained_again(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    lucky = add_study(memory, "tpe", 0, gap=-0.1)
    honest = add_study(memory, "tpe", 1)
    add_study(memory, "random", 0, failed_share=1.0)
    add_repetitions(memory, lucky, [1.2, 1.3])
    observed = "Of 3 runs its own has the best observed value: not all of them were trained again."
    run = best_run(runs_of(memory))
    assert run is not None and run.study == "tpe-seed0"
    assert observed in said(lucky, memory)
    add_repetitions(memory, honest, [1.0])
    run = best_run(runs_of(memory))
    assert run is not None and run.study == "tpe-seed1"
    assert observed not in said(honest, memory)


def with_values(
    memory: optuna.storages.InMemoryStorage,
    seed: int,
    values: dict[float, list[float | None]],
) -> optuna.Study:
    """A study with these values, each with its repetitions."""
    study = add_study(memory, "tpe", seed, trials=0)
    for number, (value, again) in enumerate(values.items()):
        study.add_trial(create_trial(value=value, user_attrs={"status": "ok"}))
        add_repetitions(memory, study, again, of=number)
    return study


def test_runs_are_compared_by_their_winners_and_not_by_their_luckiest_trials(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    study = with_values(memory, 0, {1.0: [1.15, 1.25], 1.02: [1.05]})
    with_values(memory, 1, {1.01: [1.1]})
    run = best_run(runs_of(memory))
    assert run is not None and run.study == study.study_name
    winner = winner_of(study, memory)
    assert run.rank == (0, winner.value) == (0, 1.05)
    assert run.revalidated_best == pytest.approx(1.2), "of its best value"


def test_trainings_of_one_configuration_with_the_same_seeds_in_several_runs_are_not_more_of_them(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    for seed in range(3):
        study = add_study(memory, "tpe", seed, trials=0)
        study.add_trial(
            create_trial(
                value=1.0,
                params={"WIDTH": 0.5},
                distributions={"WIDTH": SPACE["WIDTH"]},
                user_attrs={"status": "ok"},
            )
        )
        add_repetitions(memory, study, [1.1, 1.3])
    found = find_winner(study, memory)
    assert found is not None
    said = " ".join(best_sentences(runs_of(memory), found))
    assert (
        "count together" not in said
        and "Trial 0 was trained 2 times more, with other seeds: val_bpb 1.2000" in said
    )


def test_a_run_whose_winner_failed_again_is_not_the_best(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    with_values(memory, 0, {1.0: [1.0, None]})
    steady = with_values(memory, 1, {1.1: [1.1, 1.2]})
    # Its best always failed, but another one of its trials didn't.
    with_values(memory, 2, {0.9: [None], 1.3: [1.3]})
    run = best_run(runs_of(memory))
    assert run is not None and run.study == steady.study_name
    assert "not all of them were trained again" not in said(steady, memory)
    with_values(memory, 3, {1.0: [None]})
    assert "not all of them were trained again" in said(steady, memory)


def test_runs_whose_winners_the_noise_does_not_tell_from_the_best_are_named(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    def add(seed: int, width: float, again: list[float]) -> optuna.Study:
        study = add_study(memory, "tpe", seed, trials=0)
        study.add_trial(
            create_trial(
                value=1.0,
                params={"WIDTH": width},
                distributions={"WIDTH": SPACE["WIDTH"]},
                user_attrs={"status": "ok"},
            )
        )
        add_repetitions(memory, study, again)
        return study

    best = add(0, 0.5, [1.1, 1.2])
    add(1, 0.5, [1.1, 1.2])
    assert "Within the noise" not in said(best, memory)
    assert "The best of tpe-seed1 is the same configuration." in said(best, memory)
    for seed, again in enumerate(([1.18, 1.2], [1.3, 1.4], [1.17, 1.18]), 2):
        add(seed, 0.1 * seed, again)
    assert (
        "Within the noise between trainings of all runs (sd 0.0506) trial 0 is not to be told from"
        " the best of tpe-seed2 and tpe-seed4." in said(best, memory)
    )
    add(5, 0.9, [])
    assert "Within the noise" not in said(best, memory), "not all were trained again"
