"""The rows of the tables, against numbers computed from what was stored."""

from __future__ import annotations

import math
import re

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
import pytest

from studies.facts import LLM_SOURCES
from studies.report.page_tables import cost_table
from studies.report.page_tables import values_table
from studies.report.tables import best_by_seed
from studies.report.tables import flat
from studies.report.tables import method_rows
from studies.report.tables import Prices
from studies.report.tables import run_rows
from studies.report.tables import trial_rows
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of


def test_a_method_is_summed_up_by_its_runs(memory: InMemoryStorage) -> None:
    studies = [add_study(memory, "centaur", seed) for seed in range(4)]
    trials = [t for study in studies for t in study.trials]
    bests = [min(t.user_attrs.get("val_bpb", math.inf) for t in study.trials) for study in studies]
    failed = [t for t in trials if t.user_attrs["status"] != "ok"]
    add_repetitions(memory, studies[0], [bests[0] + 0.01, bests[0] + 0.03])
    (row,) = method_rows(runs_of(memory), Prices(2.0, 10.0))
    assert row["best_mean"] == pytest.approx(np.mean(bests))
    assert row["best_sd"] == pytest.approx(np.std(bests, ddof=1))
    assert (row["n"], row["runs"], row["trials"]) == (4, 4, 120)
    assert (row["revalidated_n"], row["luck"]) == (1, pytest.approx(0.02))
    assert row["failed_share"] == pytest.approx(len(failed) / 120)
    assert sum(row["failures"].values()) == len(failed) and set(row["failures"]) >= {"oom"}
    assert (row["llm_asked"], row["llm_refused"], row["llm_answered"]) == (40, 12, 28)
    tokens = sum(t.user_attrs.get("llm_prompt_tokens", 0) for t in trials)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (tokens, 4000)
    assert row["llm_seconds"] == 200.0
    assert row["cost"] == pytest.approx((tokens * 2 + 4000 * 10) / 1e6)


def test_failed_repetitions_are_in_the_rows_of_methods_and_of_runs(
    memory: InMemoryStorage,
) -> None:
    add_repetitions(memory, add_study(memory, "a", 0), [1.0, None, 1.2])
    add_repetitions(memory, add_study(memory, "a", 1), [None, None])
    runs = runs_of(memory)
    (row,) = method_rows(runs)
    assert (row["repetitions"], row["revalidated_failed"], row["revalidated_n"]) == (5, 3, 1)
    assert [(r["revalidated_n"], r["revalidated_failed"]) for r in run_rows(runs)] == [
        (2, 1),
        (0, 2),
    ]
    assert '<td data-value="0.6">3 of 5</td>' in values_table([row])


def test_methods_are_ordered_by_their_mean_and_those_without_one_come_last(
    memory: InMemoryStorage,
) -> None:
    add_study(memory, "a", 0, failed_share=1.0)
    add_study(memory, "b", 0, gap=0.1)
    add_study(memory, "c", 0)
    rows = method_rows(runs_of(memory))
    assert [row["method"] for row in rows] == ["c", "b", "a"]
    assert math.isnan(rows[2]["best_mean"]) and rows[2]["failed_share"] == 1.0
    assert math.isnan(rows[0]["cost"])  # nobody knows the price


def test_a_repeated_configuration_is_a_duplicate(memory: InMemoryStorage) -> None:
    study = add_study(memory, "a", 0, trials=5)
    study.add_trial(study.trials[2])
    (row,) = method_rows(runs_of(memory))
    assert (row["distinct"], row["duplicates"]) == (5, 1)


def test_runs_that_share_a_seed_are_one_value_in_the_tests(memory: InMemoryStorage) -> None:
    add_study(memory, "a", 3)
    add_study(memory, "a", 3, gap=1.0, name="again")
    first, second = runs_of(memory)
    assert best_by_seed([first, second]) == {"a": {3: (first.best + second.best) / 2}}


def test_trials_are_flat_rows_and_csv_has_no_nan(memory: InMemoryStorage) -> None:
    add_study(memory, "a", 0, failed_share=0.5)
    rows = trial_rows(runs_of(memory))
    assert len(rows) == 30 and set(rows[0]) >= {"LR", "WIDTH", "PATTERN", "val_bpb", "status"}
    failed = next(row for row in rows if row["status"] != "ok")
    assert dict(zip(failed, flat(failed)))["val_bpb"] == ""


def test_what_came_of_the_turns_sums_up_to_the_turns(memory: InMemoryStorage) -> None:
    study = add_study(memory, "centaur", 0, trials=0)
    for i, source in enumerate(
        source for n, source in enumerate(LLM_SOURCES) for _ in range(n + 1)
    ):
        study.add_trial(
            create_trial(value=float(i), user_attrs={"status": "ok", "source": source})
        )
    (row,) = method_rows(runs_of(memory))
    parts = ("llm_answered", "llm_screened", "llm_errors", "llm_refused")
    assert [row[part] for part in parts] == [1, 2, 3, 4] and row["llm_asked"] == 10
    shown = re.findall(r"<td[^>]*>(\d+) of 10</td>", cost_table([row]))
    assert sum(map(int, shown)) == 10


def test_the_seconds_of_a_runs_trials_sum_up_to_its_own(memory: InMemoryStorage) -> None:
    for seed in range(2):
        add_study(memory, "a", seed, trials=4, failed_share=0.0)
    runs = runs_of(memory)
    rows = trial_rows(runs)
    assert {row["training_seconds"] for row in rows} == {300.0}
    assert [row["training_seconds_so_far"] for row in rows] == [300.0, 600.0, 900.0, 1200.0] * 2
    assert [row["training_seconds"] for row in run_rows(runs)] == [1200.0] * 2


def test_the_hours_of_an_import_without_times_are_unknown(memory: InMemoryStorage) -> None:
    add_study(memory, "a", 0, seconds=0.0, imported_from="results.tsv")
    add_study(memory, "b", 0, seconds=0.0)
    methods = {row["method"]: row for row in method_rows(runs_of(memory))}
    assert math.isnan(methods["a"]["hours"]) and methods["b"]["hours"] == 0
    seconds = [row["training_seconds"] for row in run_rows(runs_of(memory))]
    assert math.isnan(seconds[0]) and seconds[1] == 0
    assert values_table([methods["a"]]).endswith("<td></td></tr></tbody></table></div>")


def test_a_parameter_named_like_a_column_has_one_of_its_own(memory: InMemoryStorage) -> None:
    study = add_study(memory, "a", 0, trials=0)
    params = {"status": 3.0, "val_bpb": 4.0, "x": 5.0}
    space: dict[str, BaseDistribution] = {name: FloatDistribution(0, 9) for name in params}
    study.add_trial(
        create_trial(value=1.0, params=params, distributions=space, user_attrs={"status": "ok"})
    )
    (row,) = trial_rows(runs_of(memory))
    assert (row["status"], row["val_bpb"]) == ("ok", 1.0)
    assert (row["param:status"], row["param:val_bpb"], row["x"]) == (3.0, 4.0, 5.0)
