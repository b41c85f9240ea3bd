"""Values as targets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samplers._critic.targets import to_targets


def test_targets_are_standardized_and_keep_the_order() -> None:
    values = np.array([3.0, 1.0, 2.0, 100.0, 1.5])

    targets = to_targets(values)

    assert targets.mean() == pytest.approx(0)
    assert targets.std() == pytest.approx(1)
    assert targets.argsort().tolist() == values.argsort().tolist()


def test_the_distance_to_the_median_is_four_times_c() -> None:
    targets = to_targets(np.array([0.0, 4.0, 8.0]))

    c = 1.0
    expected = np.log(np.array([0.0, 4.0, 8.0]) + c)
    assert targets == pytest.approx((expected - expected.mean()) / expected.std())


@pytest.mark.parametrize("diverged", [5.0, 1e3, 1e9, 1e100])
def test_a_value_that_diverged_leaves_the_others_their_resolution(diverged: float) -> None:
    values = np.linspace(0.9, 1.1, 30)
    alone = to_targets(values)

    targets = to_targets(np.append(values, [diverged, 0.3 * diverged]))

    assert targets[:-2].std() > 0.5 * alone.std()
    assert np.argsort(targets[:-2]).tolist() == list(range(30))
    assert min(targets[-2:]) > targets[-3]


def test_where_half_are_equally_good_what_diverged_leaves_the_others_their_resolution() -> None:
    alone, targets = (
        to_targets(np.array([0.0] * 6 + more)) for more in ([1, 2, 3], [1, 2, 3, 1e9])
    )

    assert targets[:9].std() > 0.5 * alone.std()
    assert targets.argsort(kind="stable").tolist() == list(range(10))


def test_equal_values_are_all_zero() -> None:
    assert to_targets(np.full(4, 2.5)).tolist() == [0.0] * 4
    assert to_targets(np.zeros(0)).tolist() == []


@pytest.mark.parametrize(
    "values",
    [
        [-1e308, 1e308, 0.0],
        [-1.7e308, 1.7e308, 1e308],
        [1e30, 2e30, 5.0],
        [1e-300, 0.0, 3e-300],
        [0, 0, 0, 0, 1e308],
    ],
)
def test_targets_are_finite_whatever_the_scale(values: list[float]) -> None:
    targets = to_targets(np.array(values))

    assert all(map(math.isfinite, targets))
    assert targets.argmin() == np.argmin(values)


def test_they_depend_on_neither_scale_nor_offset() -> None:
    values = np.array([3.0, 1.0, 2.0, 7.0])

    assert to_targets(100 * values - 50) == pytest.approx(to_targets(values))
