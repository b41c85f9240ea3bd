"""Log expected improvement."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from samplers._critic.acquisition import log_expected_improvement


@pytest.mark.parametrize("mean", [-3.0, -0.5, 0.0, 0.9, 1.1, 2.0, 6.0])
def test_it_is_the_integral_of_the_improvement(mean: float) -> None:
    deviation, best = 0.7, 0.2
    improvement, _ = quad(
        lambda v: (best - v) * norm.pdf(v, mean, deviation), mean - 12, best, epsabs=0, limit=200
    )

    found = log_expected_improvement(np.array([mean]), np.array([deviation]), best)

    assert found == pytest.approx([np.log(improvement)], rel=1e-6)


def test_hopeless_candidates_are_still_told_apart() -> None:
    means = np.array([1.0, 1e2, 1e3, 9.999e3, 1.0001e4, 1e5, 1e8])

    found = log_expected_improvement(means, np.ones(7), 0.0)

    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_far_out_it_is_the_first_term_of_its_series() -> None:
    z = np.array([9e3, 2e4, 1e6])

    found = log_expected_improvement(z, np.ones(3), 0.0)

    expected = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(z)
    assert found == pytest.approx(expected, rel=1e-13, abs=0.01)


def test_of_equal_means_the_less_certain_promises_more() -> None:
    found = log_expected_improvement(np.zeros(3), np.array([0.1, 0.5, 2.0]), 0.0)

    assert (np.diff(found) > 0).all()
