"""Which configurations are likely to fail."""

from __future__ import annotations

import numpy as np
import pytest

from samplers._critic.failures import Failures
from samplers._critic.failures import fit_failures


def model(X: np.ndarray, failed: np.ndarray) -> Failures:
    return Failures(X, failed, fit_failures(X, failed))


def test_a_border_in_one_input_is_found() -> None:
    rng = np.random.default_rng(0)
    X, points = rng.random((60, 4)), rng.random((400, 4))

    p_ok = np.exp(model(X, X[:, 0] > 0.7).log_p_ok(points))

    assert np.mean((p_ok < 0.5) == (points[:, 0] > 0.7)) > 0.95


def test_one_failure_is_kept_away_from_and_no_more() -> None:
    X = np.array([[0.1, 0.1], [0.9, 0.9], [0.1, 0.9]])
    failed = np.array([True, False, False])

    near, far = np.exp(model(X, failed).log_p_ok(np.array([[0.1, 0.1], [0.9, 0.8]])))

    assert near < 0.5 < far


@pytest.mark.parametrize("n", [1, 2, 20])
def test_where_all_failed_it_is_best_to_go_far_away(n: int) -> None:
    X = np.random.default_rng(0).random((n, 2)) * 0.2

    p_ok = np.exp(model(X, np.ones(n, dtype=bool)).log_p_ok(np.array([[0.1, 0.1], [0.95, 0.95]])))

    assert p_ok[0] < p_ok[1]


def test_one_failure_says_little_of_elsewhere_and_three_without_a_success_say_more() -> None:
    X = np.array([[0.1, 0.1], [0.1, 0.12], [0.12, 0.1]])
    elsewhere = np.array([[0.95, 0.95]])

    after_one = np.exp(model(X[:1], np.ones(1, dtype=bool)).log_p_ok(elsewhere))
    after_three = np.exp(model(X, np.ones(3, dtype=bool)).log_p_ok(elsewhere))

    assert after_three < 0.5 < after_one
