"""The numbers that plots draw, against what was stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from datetime import timedelta
import itertools
from typing import Any

import numpy as np
from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
import pytest

from objective.testbed.metric import Metric
from studies.report import series
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of
from tests.studies.report.synthetic import SPACE


def test_a_value_is_not_shown_before_its_trial_has_ended(memory: InMemoryStorage) -> None:
    for seed in range(3):
        add_study(memory, "a", seed)
    runs = runs_of(memory)
    for record in series.best_so_far(runs, "seconds"):
        known = [run.until(seconds=record["x"]).best for run in runs]
        assert record["mean"] == pytest.approx(np.mean(known))


def test_a_curve_ends_with_the_mean_of_the_bests(memory: InMemoryStorage) -> None:
    for seed in range(3):
        add_study(memory, "a", seed)
    runs = runs_of(memory)
    records = series.best_so_far(runs, "trials")
    assert (records[0]["x"], records[-1]["x"]) == (1, 30)
    assert records[-1]["mean"] == pytest.approx(np.mean([run.best for run in runs]))
    assert records[-1]["low"] < records[-1]["mean"] < records[-1]["high"]


def test_a_run_without_success_is_left_out_of_the_curve_which_says_so(
    memory: InMemoryStorage,
) -> None:
    add_study(memory, "a", 0)
    add_study(memory, "a", 1, failed_share=1.0)
    assert {record["n"] for record in series.best_so_far(runs_of(memory), "trials")} == {1}


def test_sources_count_improvements_on_the_first_value(memory: InMemoryStorage) -> None:
    add_study(memory, "centaur", 0)
    add_study(memory, "random", 0)
    run = next(run for run in runs_of(memory) if run.method == "centaur")
    records = {record["source"]: record for record in series.sources(runs_of(memory))}
    assert set(records) == {"base", "llm"}  # random asked nobody
    assert sum(record["trials"] for record in records.values()) == 29
    improved = [row.source for row in run.incumbents[1:]]
    assert records["llm"]["incumbents"] == improved.count("llm")
    assert sum(r["incumbents_share"] for r in records.values()) == pytest.approx(1.0)


def test_what_was_run_in_place_of_a_models_proposal_is_not_the_models(
    memory: InMemoryStorage,
) -> None:
    study = add_study(memory, "centaur", 0, trials=0)
    for i, source in enumerate(("enqueued", "llm", "llm-screened", "llm-duplicate", "llm-error")):
        attrs = {"status": "ok", "source": source}
        study.add_trial(create_trial(value=1.0 - i, user_attrs=attrs))
    found = {r["source"]: (r["trials"], r["incumbents"]) for r in series.sources(runs_of(memory))}
    assert found == {"base": (3, 3), "llm": (1, 1)}


def test_who_came_to_the_same_value_improved_nothing(memory: InMemoryStorage) -> None:
    study = add_study(memory, "centaur", 0, trials=0, metric=Metric("accuracy", "maximize"))
    ends = ((1, "enqueued", 0.9), (3, "llm", 0.91), (2, "base", 0.91))
    for minutes, source, value in ends:
        attrs = {"status": "ok", "source": source}
        trial = create_trial(value=value, user_attrs=attrs)
        trial.datetime_complete = datetime(2026, 1, 1) + timedelta(minutes=minutes)
        study.add_trial(trial)
    found = series.sources(runs_of(memory))
    assert {record["source"]: record["trials"] for record in found} == {"base": 1, "llm": 1}
    assert sum(record["incumbents"] for record in found) == 1


def test_the_failure_map_counts_every_trial_once_where_it_lies(memory: InMemoryStorage) -> None:
    add_study(memory, "a", 0, trials=200)
    (run,) = runs_of(memory)
    records = [r for r in series.failure_map([run]) if r["method"] == ""]
    for name in ("LR", "WIDTH", "PATTERN"):
        of = [record for record in records if record["parameter"] == name]
        assert sum(record["trials"] for record in of) == 200
        assert sum(record["failed"] for record in of) == sum(not row.ok for row in run.rows)
    # LR is logarithmic: a part of its range is half a decade.
    part = next(r for r in records if r["parameter"] == "LR" and r["bin"] == 2)
    assert part["low"] == pytest.approx(1e-3) and part["high"] == pytest.approx(10**-2.5)
    inside = [row for row in run.rows if part["low"] < row.params["LR"] <= part["high"]]
    assert part["trials"] == len(inside)


def test_importance_is_what_the_value_depends_on_and_no_failure_counts(
    memory: InMemoryStorage,
) -> None:
    study = add_study(memory, "a", 0, trials=0)
    for number in range(90):
        x, failed = number / 90, number % 3 == 0
        study.add_trial(
            create_trial(
                value=100.0 if failed else x,
                params={"LR": 10 ** (-4 * x), "WIDTH": (number * 7 % 90) / 90, "PATTERN": "S"},
                distributions=dict(SPACE),
                user_attrs={"status": "oom" if failed else "ok"},
            )
        )
    found = {r["parameter"]: r for r in series.importance(runs_of(memory))}
    assert found["LR"]["importance"] > 0.9 and found["LR"]["trials"] == 60
    assert sum(r["importance"] for r in found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("function", "key", "values"),
    [
        (series.ratios, "ratio", [{"llm_ratio": 0.1}, {"llm_ratio": 0.3}]),
        (series.models, "model", [{"model": "big"}, {"model": "small"}]),
    ],
)
def test_an_ablation_holds_the_runs_that_differ_in_one_thing(
    memory: InMemoryStorage,
    function: Callable[..., list[series.Record]],
    key: str,
    values: list[dict[str, Any]],
) -> None:
    for i, facts in enumerate(values):
        for seed in range(2):
            add_study(memory, "centaur", seed, gap=0.1 * i, name=f"{i}-{seed}", **facts)
    add_study(memory, "random", 0)
    records = function(runs_of(memory))
    assert {record["method"] for record in records} == {"centaur"}
    means = series.summaries(records, key)
    assert [m[key] for m in means] == [next(iter(facts.values())) for facts in values]
    assert means[1]["mean"] - means[0]["mean"] == pytest.approx(0.1, abs=0.01)


def test_a_variant_is_a_line_of_its_own(memory: InMemoryStorage) -> None:
    for i, (ratio, variant) in enumerate(itertools.product((0.1, 0.3), ("", "no critic"))):
        facts: dict[str, Any] = {"variant": variant} if variant else {}
        add_study(memory, "centaur", 0, name=f"{i}", model="m", llm_ratio=ratio, **facts)
    records = series.ratios(runs_of(memory))
    assert [(r["method"], r["ratio"]) for r in records] == [
        ("centaur", 0.1),
        ("centaur", 0.3),
        ("centaur [no critic]", 0.1),
        ("centaur [no critic]", 0.3),
    ]


def test_one_ratio_and_one_model_are_no_ablation(memory: InMemoryStorage) -> None:
    add_study(memory, "centaur", 0, llm_ratio=0.3)
    add_study(memory, "centaur", 1, llm_ratio=0.3)
    assert series.ratios(runs_of(memory)) == series.models(runs_of(memory)) == []


def test_turns_of_the_language_model_are_means_over_runs(memory: InMemoryStorage) -> None:
    add_study(memory, "centaur", 0)
    add_study(memory, "centaur", 1)
    records = series.language_model(runs_of(memory))
    assert [record["trial"] for record in records] == list(range(2, 30, 3))
    assert records[0]["prompt_tokens"] == 2002 and records[0]["n"] == 2
