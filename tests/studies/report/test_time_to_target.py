"""After what share of the reference's budget a method is as good as the reference is at its end."""

from __future__ import annotations

from collections.abc import Sequence
import math

import pytest

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from studies.report.page_tables import times_table
from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.time_to_target import in_one_sentence
from studies.report.time_to_target import times_to_target
from studies.report.time_to_target import TimeToTarget


ACCURACY = Metric("accuracy", "maximize")


def a_run(
    method: str,
    values: Sequence[float],
    seed: int = 0,
    *,
    seconds: float = 10.0,
    metric: Metric = METRIC,
) -> Run:
    """A run whose trials took equally long; NaN failed."""
    rows = tuple(
        Row(i - 1, i, i * seconds, value, "oom" if math.isnan(value) else "ok", "base", {}, {})
        for i, value in enumerate(values, 1)
    )
    return Run(f"{method}-{seed}", method, seed, rows, {}, {}, metric=metric)


def times(runs: Sequence[Run], reference: str = "tpe") -> dict[str, TimeToTarget]:
    return {row.method: row for row in times_to_target(runs, reference)}


def test_it_is_the_first_moment_as_good_as_the_references_end_in_shares_of_its_time() -> None:
    runs = [
        a_run("tpe", [5, 3, 4, 2, 2.5]),  # 50 s; its own best after 40
        a_run("smac", [4, 2, 1], seconds=5),  # as good after 10 s
        a_run("random", [math.nan, 3, 2.1, 9]),
    ]
    found = times(runs)
    assert (found["tpe"].median, found["smac"].median) == (0.8, 0.2)
    assert (found["random"].median, found["random"].reached, found["random"].n) == (math.inf, 0, 1)
    assert "; random on 0 of 1 seed." in in_one_sentence(list(found.values()))
    assert {row.unit for row in found.values()} == {"training time"}


def test_where_no_time_was_charged_it_counts_trials() -> None:
    runs = [a_run("tpe", [5, 3, 4, 2]), a_run("smac", [4, 2, 1], seconds=0)]
    assert times(runs)["smac"].median == 0.5
    assert times(runs)["smac"].unit == "trials"


def test_what_is_to_be_maximized_is_reached_from_below() -> None:
    values = {"tpe": [0.5, 0.9, 0.8, 0.7], "smac": [0.8, 0.9, 0.95, 0.99]}
    found = times([a_run(method, v, metric=ACCURACY) for method, v in values.items()])
    assert (found["tpe"].median, found["smac"].median) == (0.5, 0.5)


def test_a_run_that_never_gets_there_is_not_left_out_of_median_and_interval() -> None:
    ends = [1, 2, 3, 4, 5, math.inf, math.inf]  # trials of ten until as good
    runs = []
    for seed, end in enumerate(ends):
        runs.append(a_run("tpe", [3] * 9 + [1], seed))
        runs.append(a_run("smac", [2 if i < end else 1 for i in range(1, 11)], seed))
    found = times(runs)["smac"]
    assert (found.reached, found.n, found.median) == (5, 7, 0.4)
    # The least and the greatest of seven have the median between them in 98 % of samples; the next
    # ones have it in 88 %.
    assert (found.low, found.high) == (0.1, math.inf)
    assert in_one_sentence(list(times(runs).values())) == (
        "As good as tpe at its end: smac after 40 % of tpe's training time "
        "(median, 95 % interval 10 % to never, 5 of 7 seeds)."
    )


@pytest.mark.parametrize("seeds", [1, 5])
def test_few_seeds_have_no_interval(seeds: int) -> None:
    found = times([a_run(method, [1], seed) for method in ("tpe", "a") for seed in range(seeds)])
    assert math.isnan(found["a"].low) and math.isnan(found["a"].high)
    told = f"a after 100 % of tpe's training time (median, {seeds} of {seeds} seed"
    assert told in in_one_sentence(list(found.values()))


def test_runs_that_share_a_seed_are_one_and_seeds_of_one_alone_are_none() -> None:
    runs = [
        a_run("tpe", [3, 1]),
        a_run("smac", [1, 1]),
        a_run("smac", [2, 1]),
        a_run("smac", [0, 0], seed=1),
        a_run("random", [0], seed=1),
    ]
    found = times(runs)
    assert (found["smac"].n, found["smac"].median) == (1, 0.75)
    assert found["random"].n == 0 and math.isnan(found["random"].median)
    assert "random" not in in_one_sentence(list(found.values()))
    assert "random" not in times_table(list(found.values()))


def test_a_reference_without_a_value_is_no_target() -> None:
    found = times([a_run("tpe", [math.nan]), a_run("smac", [1.0])])
    assert [row.n for row in found.values()] == [0, 0]
    assert in_one_sentence(list(found.values())) == times_table(list(found.values())) == ""


def test_never_is_sorted_behind_all_shares() -> None:
    page = times_table(times_to_target([a_run("tpe", [1]), a_run("smac", [2])], "tpe"))
    assert '<td data-value="Infinity">never</td>' in page
