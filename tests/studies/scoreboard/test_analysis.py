from __future__ import annotations

import numpy as np
import pytest

from studies.scoreboard.analysis import ALL
from studies.scoreboard.analysis import Board
from tests.studies.scoreboard.made import result


ONE, TWO = "bbob/f1/2d", "hpolib/protein_structure"


def at(regret: float) -> tuple[tuple[int, float], ...]:
    return ((1, 8.0), (2, regret))


def test_ranks_are_of_the_regrets_and_equal_ones_share_theirs() -> None:
    board = Board(
        [
            result(ONE, "random", curve=at(4.0)),
            result(ONE, "tpe", curve=at(4.0)),
            result(ONE, "cma-es", curve=at(1.0)),
            result(ONE, "gp", curve=()),  # nothing counted
        ]
    )
    rows = {row.sampler: row for row in board.standings([ONE], 10)}
    ranks = {name: row.rank for name, row in rows.items()}
    assert ranks == {
        "CmaEsSampler": 1.0, "RandomSampler": 2.5, "TPESampler": 2.5, "GPSampler": 4.0
    }  # fmt: skip
    assert [row.regret for row in rows.values()] == [0.125, 0.5, 0.5, 1.0]
    assert {row.regret for row in board.standings([ONE], 1)} == {1.0}


def test_problems_weigh_the_same_however_many_seeds_they_have() -> None:
    rows = [
        result(ONE, s, seed, at(r))
        for seed in range(9)
        for s, r in (("random", 2.0), ("tpe", 1.0))
    ]
    rows += [result(TWO, "random", 0, at(1.0)), result(TWO, "tpe", 0, at(2.0))]
    standings = Board(rows).standings([ONE, TWO], 10)
    assert [row.rank for row in standings] == [1.5, 1.5]
    assert [row.blocks for row in standings] == [10, 10]


def test_only_blocks_that_all_ran_count() -> None:
    rows = [result(ONE, "random", seed, at(2.0)) for seed in range(3)]
    rows += [result(ONE, "tpe", seed, at(1.0)) for seed in range(2)]
    assert {row.blocks for row in Board(rows).standings([ONE], 10)} == {2}


def test_who_lacks_a_problem_or_has_shorter_runs_is_not_ranked() -> None:
    rows = [result(name, s) for name in (ONE, TWO) for s in ("random", "tpe")]
    rows += [result(ONE, "gp"), result(ONE, "smac", trials=9), result(TWO, "smac", trials=9)]
    board = Board(rows)
    ranked = {n: [row.sampler for row in board.standings([ONE, TWO], n)] for n in (9, 10)}
    assert ranked[10] == ["RandomSampler", "TPESampler"]
    assert ranked[9] == ["RandomSampler", "SMACSampler", "TPESampler"]
    assert "GPSampler" in [row.sampler for row in board.standings([ONE], 10)]


def test_without_a_seed_in_common_nothing_is_compared() -> None:
    rows = [result(ONE, s, seed) for s in ("random", "tpe") for seed in range(2)]
    rows += [result(TWO, "random", 0), result(TWO, "tpe", 1)]
    board = Board(rows)
    assert board.ranked([ONE, TWO], 10) == ([], [])
    assert board.standings([ONE, TWO], 10) == board.standings([TWO], 10) == []
    assert len(board.standings([ONE], 10)) == 2


def test_intervals_hold_the_mean_and_none_is_left_where_all_seeds_agree() -> None:
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(10):
        rows += [
            result(ONE, "random", seed, at(8.0)),
            result(ONE, "tpe", seed, at(float(rng.uniform(1, 3)))),
            result(ONE, "cma-es", seed, at(float(rng.uniform(1, 3)))),
        ]
    by_name = {row.sampler: row for row in Board(rows).standings([ONE], 10)}
    last = by_name["RandomSampler"]
    assert (last.rank_low, last.rank, last.rank_high) == (3.0, 3.0, 3.0)
    tpe = by_name["TPESampler"]
    assert tpe.rank_low < tpe.rank < tpe.rank_high
    assert tpe.regret_low < tpe.regret < tpe.regret_high


def test_without_a_known_optimum_regrets_count_from_the_least_that_was_reached() -> None:
    board = Board(
        [result("surrogate", "random", 0, at(1.0)), result("surrogate", "tpe", 1, at(-2.0))]
    )
    (random,), (tpe,) = (board.results[name].values() for name in ("RandomSampler", "TPESampler"))
    assert board.normalized(random, 10) == pytest.approx(0.3)
    assert board.normalized(tpe, 10) == 0.0


def test_a_curve_ends_at_the_mean_regret() -> None:
    rows = [
        result(name, sampler, seed, at(regret + seed))
        for name in (ONE, TWO)
        for seed in range(2)
        for sampler, regret in (("random", 2.0), ("tpe", 1.0))
    ]
    board = Board(rows)
    problems = board.in_suite(ALL)
    _, blocks = board.ranked(problems, 10)
    curve = board.curve("TPESampler", problems, blocks, 10)
    best = board.standings(problems, 10)[0]
    assert best.sampler == "TPESampler"
    assert best.regret == pytest.approx(curve[-1])
    assert len(curve) == 10 and curve == sorted(curve, reverse=True)


def test_what_a_sampler_asks_is_part_of_its_name() -> None:
    board = Board([result(ONE, "centaur", asks="random steps"), result(ONE, "centaur", asks="m")])
    assert board.samplers == ["CentaurSampler (m)", "CentaurSampler (random steps)"]


def test_the_interval_of_one_seed_holds_its_mean_to_the_last_digit() -> None:
    problems = [f"bbob/f{i}/2d" for i in range(1, 15)]
    samplers = ("random", "tpe", "cma-es", "gp")
    rng = np.random.default_rng(0)
    rows = [result(name, s, curve=at(float(rng.random()))) for name in problems for s in samplers]
    for row in Board(rows).standings(problems, 10):
        assert row.rank_low <= row.rank <= row.rank_high
        assert row.regret_low <= row.regret <= row.regret_high
