"""Reading of a storage: comparisons, labels, charged time, repetitions."""

from __future__ import annotations

from datetime import datetime
from datetime import timedelta
import math

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
import pytest

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from studies.best import find_winner
from studies.report.content import Report
from studies.report.page import build_page
from studies.report.plots import traces
from studies.report.runs import load_contents
from studies.report.runs import Run
from studies.report.series import best_so_far
from studies.report.tables import by_method
from studies.report.tables import comparisons
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of


def test_failures_are_charged_their_whole_run_and_are_never_a_best(
    memory: InMemoryStorage,
) -> None:
    add_study(memory, "a", 1, trials=10, seconds=360.0)
    (run,) = runs_of(memory)
    failed = sum(not row.ok for row in run.rows)
    assert 0 < failed < 10
    assert run.seconds == pytest.approx((10 - failed) * 360 + failed * 72)
    assert all(row.value < 2 for row in run.incumbents)


def test_a_maximized_comparison_is_the_mirror_image_of_a_minimized_one(
    memory: InMemoryStorage,
) -> None:
    accuracy = Metric("accuracy", "maximize", "percent")
    mirror = InMemoryStorage()
    for storage, metric in ((memory, METRIC), (mirror, accuracy)):
        for seed in range(8):
            add_study(storage, "a", seed, metric=metric)
            add_study(storage, "b", seed, gap=0.2, metric=metric)
    runs, mirrored = runs_of(memory), runs_of(mirror)
    for run, other in zip(runs, mirrored):
        assert other.best == -run.best
        assert [row.number for row in other.incumbents] == [row.number for row in run.incumbents]
    assert list(by_method(mirrored)) == ["a", "b"]
    (row,) = comparisons(mirrored, "b")
    assert "a is better than b" in row.sentence and row.difference > 0.1
    (low, high) = traces(runs)[0].limits or (0, 0)
    assert traces(mirrored)[0].limits == (-high, -low)
    page = build_page(Report(mirrored, "b"))
    assert "Higher accuracy (percent) is better." in page
    assert '"higher_is_better":true' in page and "val_bpb" not in page


def test_an_imported_run_of_the_code_agent_has_its_best_though_nothing_says_what_was_kept(
    memory: InMemoryStorage,
) -> None:
    add_study(memory, "karpathy-code", 0, imported_from="trials.json")
    (run,) = runs_of(memory)
    assert run.best == min(row.value for row in run.rows if row.ok)
    report = Report([run], "karpathy-code")
    assert "structures" not in report.plots and "Nothing succeeded" not in " ".join(report.notes)


def test_the_language_models_time_is_charged_where_the_study_charges_it(
    memory: InMemoryStorage,
) -> None:
    add_study(memory, "centaur", 0, name="free")
    add_study(memory, "centaur", 0, name="charged", charge_llm=True)
    charged, free = runs_of(memory)
    assert charged.seconds - free.seconds == pytest.approx(10 * 5.0)


def test_effective_values_are_what_is_reported(memory: InMemoryStorage) -> None:
    add_study(memory, "a", 0, trials=10)
    (run,) = runs_of(memory)
    assert run.rows[3].params["WIDTH"] == 0.5


def test_two_equal_sources_of_a_code_agent_are_one_configuration(memory: InMemoryStorage) -> None:
    study = add_study(memory, "karpathy-code", 0, trials=0)
    for source in ("a", "b", "a"):
        attrs = {"status": "ok", "val_bpb": 1.0, "source_sha256": source}
        study.add_trial(create_trial(value=1.0, user_attrs=attrs))
    (run,) = runs_of(memory)
    assert run.distinct == 2


def test_trials_of_which_nothing_is_known_are_no_duplicates(memory: InMemoryStorage) -> None:
    study = add_study(memory, "tpe", 0, trials=0)
    for value in (1.0, 2.0):
        study.add_trial(create_trial(value=value, user_attrs={"status": "ok"}))
    (run,) = runs_of(memory)
    assert run.distinct == 2


def test_a_cut_run_is_the_run_as_it_was_then(memory: InMemoryStorage) -> None:
    study = add_study(memory, "a", 0)
    add_repetitions(memory, study, [1.1])
    (run,) = runs_of(memory)
    best = run.incumbents[-1]
    before = run.until(trials=best.position - 1)
    assert len(before.rows) == best.position - 1
    assert before.best == run.incumbents[-2].value
    assert before.revalidated == ()  # they are of a configuration that it hadn't seen
    assert run.until(seconds=best.seconds).revalidated == (1.1,)
    assert run.until(seconds=best.seconds).best == run.best
    assert math.isnan(run.until(seconds=1.0).best)


def test_a_cut_run_has_the_repetitions_of_what_was_its_best_then(memory: InMemoryStorage) -> None:
    study = add_study(memory, "a", 0)
    first, last = runs_of(memory)[0].incumbents[-2:]
    add_repetitions(memory, study, [1.1], of=last.number)
    add_repetitions(memory, study, [1.2], of=first.number)
    (run,) = runs_of(memory)
    assert run.revalidated == (1.1,)
    assert run.until(trials=last.position - 1).revalidated == (1.2,)


def test_repetitions_belong_to_their_run_and_are_no_run(memory: InMemoryStorage) -> None:
    study = add_study(memory, "a", 0)
    add_repetitions(memory, study, [1.0, 1.1])
    (run,) = runs_of(memory)
    assert run.revalidated_best == pytest.approx(1.05)


def test_failed_repetitions_are_counted_and_those_that_wait_are_not(
    memory: InMemoryStorage,
) -> None:
    add_repetitions(memory, add_study(memory, "a", 0), [1.0, None, None])
    add_repetitions(memory, add_study(memory, "a", 1), [None])
    again = optuna.load_study(study_name="a-seed1-revalidated", storage=memory)
    again.enqueue_trial({})
    some, none = runs_of(memory)
    assert (some.revalidated, some.repetitions, some.revalidated_failed) == ((1.0,), 3, 2)
    assert (none.revalidated, none.repetitions, none.revalidated_failed) == ((), 1, 1)
    assert math.isnan(none.revalidated_best)
    assert some.until(trials=some.incumbents[-1].position - 1).repetitions == 0


def test_repetitions_of_an_older_best_are_ignored(memory: InMemoryStorage) -> None:
    study = add_study(memory, "a", 0)
    add_repetitions(memory, study, [1.0, 1.1], of=0)
    (run,) = runs_of(memory)
    assert run.incumbents[-1].number != 0 and run.revalidated == ()


def test_of_equal_values_the_lowest_number_is_the_best_whichever_ended_first(
    memory: InMemoryStorage,
) -> None:
    study = add_study(memory, "a", 0, trials=0)
    for minutes in (3, 2, 1):
        trial = create_trial(value=1.0, user_attrs={"status": "ok"})
        trial.datetime_complete = datetime(2026, 1, 1) + timedelta(minutes=minutes)
        study.add_trial(trial)
    add_repetitions(memory, study, [1.1], of=0)
    winner = find_winner(study, memory)
    (run,) = runs_of(memory)
    assert winner is not None and run.incumbents[-1].number == winner.trial.number == 0
    assert run.revalidated == (1.1,)
    (incumbent,) = run.incumbents
    assert (incumbent.position, run.until(trials=1).best) == (1, 1.0)


def test_what_the_agent_kept_counts_from_when_that_was_decided(code_run: Run) -> None:
    assert [(r.number, r.position, r.seconds) for r in code_run.incumbents] == [
        (0, 1, 10.0),
        (2, 3, 30.0),
        (1, 4, 40.0),
    ]
    assert code_run.best == 0.4
    before = code_run.until(trials=3)
    assert before.best == 1.7 and before.incumbents[-1].number == 2
    (*_, record) = best_so_far([code_run], "trials")
    assert (record["x"], record["mean"]) == (5, 0.4)


def test_studies_are_grouped_by_comparison(memory: InMemoryStorage) -> None:
    add_study(memory, "a", 0)
    add_study(memory, "a", 0, name="x-a", comparison="x")
    add_study(memory, "b", 0, name="x-b", comparison="x", trials=0)
    found = load_contents(memory, print)
    assert {name: [r.study for r in c.runs] for name, c in found.items()} == {
        "": ["a-seed0"],
        "x": ["x-a"],
    }
    assert found["x"].unstarted == ["x-b"]


def test_runs_of_different_metrics_are_never_compared(memory: InMemoryStorage) -> None:
    loss = Metric("loss")
    add_study(memory, "a", 0)
    add_study(memory, "a", 1, name="accuracy", metric=Metric("accuracy", "maximize"))
    add_study(memory, "a", 2, name="gain", metric=Metric("val_bpb", "maximize"))
    add_study(memory, "a", 0, name="waits", trials=0, metric=loss)
    add_study(memory, "a", 0, name="x-a", comparison="x")
    add_study(memory, "a", 1, name="x-b", comparison="x", metric=loss)
    found = load_contents(memory, print)
    assert {name: [r.study for r in c.runs] for name, c in found.items()} == {
        "val_bpb (lower is better)": ["a-seed0"],
        "accuracy (higher is better)": ["accuracy"],
        "val_bpb (higher is better)": ["gain"],
        "x, val_bpb (lower is better)": ["x-a"],
        "x, loss (lower is better)": ["x-b"],
    }
    optuna.delete_study(study_name="accuracy", storage=memory)
    optuna.delete_study(study_name="gain", storage=memory)
    assert [*load_contents(memory, print)][0] == "", "the only metric of which there is a run"


def test_labels_name_what_sets_runs_of_a_method_apart(memory: InMemoryStorage) -> None:
    add_study(memory, "centaur", 0)
    add_study(memory, "centaur", 0, name="r", llm_ratio=0.5)
    add_study(memory, "centaur", 0, name="m", model="models/Big.gguf", llm_ratio=0.3)
    add_study(memory, "tpe", 0)
    assert [run.method for run in runs_of(memory)] == [
        "centaur [Big.gguf]",
        "centaur [small]",
        "centaur [small] [r=0.5]",
        "tpe",
    ]


def test_two_models_whose_names_end_alike_are_two_methods(memory: InMemoryStorage) -> None:
    for model in ("meta-llama/Llama", "unsloth/Llama", "models/Big.gguf"):
        add_study(memory, "centaur", 0, name=model, model=model)
    add_study(memory, "llambo", 0, model="unsloth/Llama")
    assert [run.method for run in runs_of(memory)] == [
        "centaur [Big.gguf]",
        "centaur [meta-llama/Llama]",
        "centaur [unsloth/Llama]",
        "llambo [Llama]",
    ]
