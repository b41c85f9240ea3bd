"""Candidates near the best."""

from __future__ import annotations

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from samplers._critic.candidates import child_rows
from samplers._critic.candidates import random_rows
from samplers._critic.candidates import start_rows
from samplers._critic.candidates import step_rows
from samplers._critic.space import Space


SPACE = Space(
    {
        **{f"x{i}": FloatDistribution(0, 1) for i in range(6)},
        "k": IntDistribution(1, 3),
        "c": CategoricalDistribution(("a", "b")),
    }
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_one_to_eight_parameters_change() -> None:
    base = np.full((1, 8), 0.5)
    base[0, 7] = 0

    changed = (step_rows(SPACE, base, 500, rng()) != base).sum(axis=1)

    assert set(changed) == set(range(1, 9))


def test_steps_are_small_and_those_of_children_smaller() -> None:
    base = np.full((1, 8), 0.5)
    base[0, 7] = 0

    steps = step_rows(SPACE, base, 2000, rng())[:, 0] - 0.5
    children = child_rows(SPACE, base, 2000, rng())[:, 0] - 0.5

    # The root mean squares of the three sizes.
    assert 0.11 < np.sqrt(np.mean(steps[steps != 0] ** 2)) < 0.14
    assert 0.045 < np.sqrt(np.mean(children**2)) < 0.055


def test_a_category_that_changes_is_another_one() -> None:
    base = np.full((1, 8), 0.5)
    base[0, 7] = 1

    rows = step_rows(SPACE, base, 500, rng())

    assert set(rows[:, 7]) == {0, 1}


def test_an_integer_that_changes_is_another_one() -> None:
    base = SPACE.rows([{**{f"x{i}": 0.5 for i in range(6)}, "k": 2, "c": "a"}])

    rows = step_rows(SPACE, base, 500, rng())

    changed = rows[:, 6] != base[0, 6]
    values = [c["k"] for c in SPACE.configurations(rows[changed])]
    assert set(values) == {1, 3}


def test_the_best_is_the_base_most_often() -> None:
    bases = np.tile(np.array([[0.1], [0.5], [0.9]]), 8)
    bases[:, 7] = 0

    rows = step_rows(SPACE, bases, 600, rng())

    kept = [(rows[:, :6] == b).sum(axis=1) for b in (0.1, 0.5, 0.9)]
    counts = np.bincount(np.argmax(kept, axis=0))
    assert counts[0] > counts[1] > counts[2] > 60


def test_more_than_half_of_the_steps_begin_at_the_best_two_of_eight() -> None:
    numbers = Space({f"x{i}": FloatDistribution(0, 1) for i in range(12)})
    bases = np.tile(np.linspace(0, 1, 8)[:, None], 12)  # at least four of them are kept

    rows = step_rows(numbers, bases, 600, rng())

    kept = [(rows == b).sum(axis=1) for b in bases[:, 0]]
    assert np.mean(np.argmax(kept, axis=0) < 2) > 0.5


def test_what_a_base_lacks_is_not_changed() -> None:
    base = np.full((1, 8), 0.5)
    base[0, 7] = 0
    base[0, 2] = np.nan

    rows = step_rows(SPACE, base, 200, rng())

    assert np.isnan(rows[:, 2]).all() and not np.isnan(np.delete(rows, 2, axis=1)).any()


def test_half_of_the_first_are_around_the_middle() -> None:
    rows = start_rows(SPACE, 1000, rng())

    near = (np.abs(rows[:, :7] - 0.5) < 0.4).all(axis=1).mean()
    # Of those in the middle 0.984^7, of the others 0.8^7.
    assert 0.45 < near < 0.65
    # CmaEsSampler begins with a sixth of the range.
    assert rows[:, :6].var() == pytest.approx((1 / 6**2 + 1 / 12) / 2, rel=0.05)
    assert set(rows[:, 7]) == {0, 1}


def test_random_rows_have_all_choices() -> None:
    rows = random_rows(SPACE, 200, rng())

    assert set(rows[:, 7]) == {0, 1}
    assert rows[:, 0].min() < 0.1 and rows[:, 0].max() > 0.9


def test_children_lie_between_their_parents_or_have_values_of_both() -> None:
    parents = np.tile(np.array([[0.2], [0.8]]), 8)
    parents[:, 7] = [0, 1]

    rows = child_rows(SPACE, parents, 400, rng())

    assert set(rows[:, 7]) == {0, 1}
    assert 0.15 < np.mean(np.abs(rows[:, :6] - 0.5) < 0.2) < 0.5
    assert (np.abs(rows[:, :6] - 0.5) < 0.6).all()


def test_children_have_what_one_of_their_parents_has() -> None:
    parents = np.full((2, 8), 0.5)
    parents[:, 7] = 0
    parents[0, 2] = np.nan
    parents[:, 4] = np.nan

    rows = child_rows(SPACE, parents, 50, rng())

    assert np.isnan(rows[:, 4]).all()
    assert 0 < np.isnan(rows[:, 2]).sum() < 50  # where both parents are the first
