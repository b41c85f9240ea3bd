"""Known answers: equal methods, a known gap, too few seeds, missing runs."""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np
import pytest

from objective.testbed.metric import Metric
from studies.report.statistics import compare
from studies.report.statistics import Comparison
from studies.report.statistics import holm
from studies.report.statistics import in_words
from studies.report.statistics import seeds_needed
from studies.report.statistics import smallest_p
from studies.report.statistics import summarize


def noisy(gap: float, seeds: int, rng: int) -> dict[int, float]:
    draws = np.random.default_rng(rng).normal(0, 0.001, seeds)
    return {seed: 1.0 + gap + float(draw) for seed, draw in enumerate(draws)}


def test_summary_uses_the_sample_sd_and_students_interval() -> None:
    summary = summarize([1.0, 2.0, 3.0])
    assert (summary.mean, summary.sd) == (2.0, 1.0)
    # t_{0.975, 2} = 4.302653 (table), over sqrt(3)
    assert summary.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3))


def test_one_run_has_a_mean_and_no_spread() -> None:
    summary = summarize([1.5])
    assert summary.mean == 1.5 and math.isnan(summary.sd)


def test_a_known_gap_is_found_and_has_the_right_size_and_sign() -> None:
    (row,) = compare({"a": noisy(-0.01, 10, 1), "b": noisy(0, 10, 2)}, "b")
    assert row.difference == pytest.approx(-0.01, abs=0.001)
    assert row.effect == -1.0
    assert row.p_two_sided == pytest.approx(smallest_p(10))
    assert "a is better than b" in row.sentence


def test_maximizing_mirrors_every_verdict() -> None:
    a, b = noisy(-0.01, 10, 1), noisy(0, 10, 2)
    (row,) = compare({"a": a, "b": b}, "b")
    negative = {name: {s: -v for s, v in x.items()} for name, x in (("a", a), ("b", b))}
    (mirrored,) = compare(negative, "b", Metric("accuracy", "maximize"))
    assert mirrored.difference == -row.difference > 0
    assert (mirrored.effect, mirrored.wins, mirrored.p_less) == (row.effect, row.wins, row.p_less)
    assert "a is better than b" in mirrored.sentence


def test_equal_methods_are_not_told_apart_nor_called_equal() -> None:
    (row,) = compare({"a": noisy(0, 10, 1), "b": noisy(0, 10, 2)}, "b")
    assert "No difference" in row.sentence and "not evidence" in row.sentence


def test_three_seeds_support_no_claim_however_clear_the_gap() -> None:
    (row,) = compare({"a": noisy(-1, 3, 1), "b": noisy(0, 3, 2)}, "b")
    assert row.p_less == pytest.approx(0.125)
    assert "3 paired seeds can't support a claim" in row.sentence


@pytest.mark.parametrize("unit", [1.0, 1e9, 1e-9])
def test_what_differs_by_the_rounding_of_floats_alone_is_tied(unit: float) -> None:
    def compared(a: Sequence[float], b: Sequence[float]) -> Comparison:
        best = {
            name: {seed: value * unit for seed, value in enumerate(values)}
            for name, values in (("a", a), ("b", b))
        }
        (row,) = compare(best, "b", Metric("accuracy", "maximize"))
        return row

    row = compared([0.92] * 3 + [0.8] * 3, [0.9] * 3 + [0.82] * 3)
    assert (row.untied, row.wins, row.effect, row.p_two_sided) == (6, 3, 0.0, 1.0)
    # Means of the same three values in another order.
    row = compared([(0.1 + 0.2 + 0.3) / 3] * 6, [(0.3 + 0.2 + 0.1) / 3] * 6)
    assert (row.untied, row.wins, row.p_possible) == (0, 0, 1.0)
    assert compared([0.92, 1e-9], [0.92, 0.0]).untied == 1


def test_missing_runs_are_left_out_of_the_pairs() -> None:
    a = noisy(0, 8, 1)
    del a[3], a[5]
    (row,) = compare({"a": a, "b": noisy(0, 7, 2)}, "b")
    assert row.n == 5


def test_no_common_seed_and_identical_values_are_said_plainly() -> None:
    (none,) = compare({"a": {1: 1.0}, "b": {2: 1.0}}, "b")
    assert "share no seed with a value" in none.sentence
    (same,) = compare({"a": {s: 1.0 for s in range(8)}, "b": {s: 1.0 for s in range(8)}}, "b")
    assert same.p_two_sided == 1.0


def test_holm_corrects_for_the_number_of_methods() -> None:
    best = {
        name: noisy(gap, 10, i)
        for i, (name, gap) in enumerate({"ref": 0.0, "a": -0.01, "b": -0.01, "c": 0.0}.items())
    }
    rows = {row.method: row for row in compare(best, "ref")}
    assert rows["a"].p_two_sided_holm == pytest.approx(3 * smallest_p(10))
    assert rows["a"].p_less_holm == pytest.approx(3 * smallest_p(10) / 2)
    # Step-down p-values never fall below an earlier one.
    assert rows["c"].p_two_sided_holm >= max(
        rows["a"].p_two_sided_holm, rows["b"].p_two_sided_holm
    )


def test_holms_correction_is_the_one_of_his_paper() -> None:
    # Steps down from the smallest: 0.01 * 4, 0.02 * 3, 0.03 * 2, and never below the one before.
    assert holm([0.03, 0.01, math.nan, 0.02, 0.9]) == pytest.approx(
        [0.06, 0.04, math.nan, 0.06, 0.9], nan_ok=True
    )


def test_a_clean_sweep_that_the_correction_makes_insignificant_supports_no_claim() -> None:
    best = {"ref": noisy(0, 6, 0), "a": noisy(-1, 6, 1), "b": noisy(-1, 6, 2)}
    row = compare(best, "ref")[0]
    assert row.p_two_sided == pytest.approx(0.03125)
    assert "6 paired seeds can't support a claim" in row.sentence
    (alone,) = compare({"ref": best["ref"], "a": best["a"]}, "ref")
    assert "a is better than ref, on 6 of 6 paired seeds" in alone.sentence


def test_a_test_that_can_not_be_significant_takes_nothing_from_the_others() -> None:
    best = {"ref": noisy(0, 6, 0), "a": noisy(-1, 6, 1), "b": noisy(-1, 1, 2), "c": {9: 1.0}}
    a, b, c = compare(best, "ref")
    assert a.p_two_sided_holm == pytest.approx(smallest_p(6))
    assert "a is better than ref" in a.sentence
    assert (b.p_two_sided, b.p_possible) == (1.0, 1.0) and math.isnan(b.p_two_sided_holm)
    assert b.sentence.endswith("even a clean sweep would give p = 1.000 (two-sided).")
    assert math.isnan(c.p_possible) and math.isnan(c.p_two_sided_holm)


def test_one_side_of_a_test_can_be_significant_with_a_pair_less() -> None:
    (row,) = compare({"ref": noisy(0, 5, 0), "a": noisy(-1, 5, 1)}, "ref")
    assert row.p_less_holm == pytest.approx(1 / 32) and math.isnan(row.p_two_sided_holm)


def test_what_may_count_for_the_correction_does_not_depend_on_ties() -> None:
    same = {seed: 1.0 for seed in range(6)}
    best = {"ref": same, "a": {s: 0.9 - s / 100 for s in same}, "b": same}
    a, b = compare(best, "ref")
    assert a.p_two_sided_holm == pytest.approx(2 * smallest_p(6)) and b.p_two_sided_holm == 1.0


def test_an_effect_and_what_is_possible_are_of_the_pairs_that_differ() -> None:
    ref = {seed: 1.0 for seed in range(8)}
    (row,) = compare({"ref": ref, "a": {s: 0.9 - s / 100 if s < 4 else 1.0 for s in ref}}, "ref")
    assert (row.n, row.untied, row.wins, row.effect) == (8, 4, 4, -1.0)
    assert row.sentence.startswith("8 paired seeds, 4 of them tied, can't support a claim")
    assert "p = 0.125 (two-sided, Holm-corrected)" in row.sentence
    worse = {s: 1.1 + s / 100 if s < 7 else 1.0 for s in ref}
    (row,) = compare({"ref": ref, "a": worse}, "ref")
    assert "a is worse than ref, on 7 of 8 paired seeds" in row.sentence


def test_a_mean_that_contradicts_the_ranks_is_said_in_the_sentence() -> None:
    ref = {seed: 1.0 for seed in range(12)}
    best = {"ref": ref, "a": {s: 0.97 - s / 1000 for s in ref} | {11: 5.7}}
    (row,) = compare(best, "ref")
    assert row.effect < 0 < row.difference
    assert row.sentence.startswith(
        "a is better than ref on 11 of 12 paired seeds, but not in the mean: mean difference +0.3"
    )


@pytest.mark.parametrize(("seeds", "said"), [(10, "= 0.002."), (14, "< 0.001.")])
def test_no_p_is_said_to_be_zero(seeds: int, said: str) -> None:
    ref = {seed: 1.0 for seed in range(seeds)}
    (row,) = compare({"ref": ref, "a": {s: 0.9 - s / 100 for s in ref}}, "ref")
    assert row.sentence.endswith(f"Holm-corrected p {said}")


@pytest.mark.parametrize("methods", range(1, 10))
def test_seeds_needed_are_the_fewest_that_could_be_significant(methods: int) -> None:
    needed = seeds_needed(methods)
    assert methods * smallest_p(needed) <= 0.05 < methods * smallest_p(needed - 1)


def test_methods_of_which_equally_little_can_be_said_share_a_sentence() -> None:
    best = {name: noisy(0, 3, i) for i, name in enumerate(("ref", "a", "b", "c"))}
    best["c"] = {9: 1.0}
    few, none = in_words(compare(best, "ref"))
    assert few.startswith("3 paired seeds can't support a claim about a, b against ref")
    assert none == "c and ref share no seed with a value."
