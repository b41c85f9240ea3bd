"""Which configurations are likely to satisfy the constraints."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samplers._critic.constraints import Constraints
from samplers._critic.constraints import excess
from samplers._critic.constraints import fit_constraints


def model(X: np.ndarray, C: np.ndarray) -> Constraints:
    return Constraints(X, C, fit_constraints(X, C))


def test_the_border_of_several_constraints_is_found_from_a_few_trials() -> None:
    rng = np.random.default_rng(0)
    X, points = rng.random((30, 3)), rng.random((400, 3))

    def constraints(X: np.ndarray) -> np.ndarray:
        return np.stack([X[:, 0] + X[:, 1] - 1.2, 1000 * (0.2 - X[:, 2])], axis=1)

    p_ok = np.exp(model(X, constraints(X)).log_p_ok(points))

    assert np.mean((p_ok > 0.5) == (constraints(points) <= 0).all(axis=1)) > 0.93


def test_a_constraint_counts_by_its_own_size() -> None:
    C = np.array([[-1.0, 1000.0], [1.0, -3000.0], [-2.0, -2000.0]])

    assert excess(C) == pytest.approx([1.0, 1.0, -2.0])
    assert excess(C[:, :1] * 0).tolist() == [-1.0, -1.0, -1.0]


def test_constraints_may_be_of_any_size() -> None:
    C = np.array([[1.7e308], [1.6e308], [-1.7e308], [-1.6e308]])

    assert excess(C) == pytest.approx([1.0, 1.0, -1.0, -1.0])


def test_the_border_is_where_a_constraint_is_0_whatever_its_values_are() -> None:
    X = np.linspace(0, 1, 12)[:, None]
    for C in (X - 0.9, 1e9 * (X - 0.9), np.sinh(20 * (X - 0.9))):
        p_ok = np.exp(model(X, C).log_p_ok(np.array([[0.8], [0.86], [0.94], [1.0]])))
        assert (p_ok[:2] > 0.9).all() and (p_ok[2:] < 0.1).all()


def test_what_is_cut_off_at_0_or_stands_for_anything_leaves_the_border_where_it_is() -> None:
    rng = np.random.default_rng(0)
    X, points = rng.random((40, 2)), rng.random((400, 2))
    plain = (X.sum(axis=1) - 1.2)[:, None]
    ok = points.sum(axis=1) <= 1.2
    most = np.finfo(float).max
    for C in (
        np.maximum(plain, 0.0),
        np.where(plain > 0.3, most, plain),
        np.where(plain > 0, 1e100, plain),
        np.where(plain > 0, most, -1e-310),
    ):
        p_ok = np.exp(model(X, C).log_p_ok(points))
        assert np.mean((p_ok > 0.5) == ok) > 0.85


@pytest.mark.parametrize("C", [np.zeros((3, 1)), np.ones((2, 2)), np.full((1, 1), -5.0)])
def test_equal_constraints_are_no_harm(C: np.ndarray) -> None:
    X = np.random.default_rng(0).random((len(C), 2))

    log_p_ok = model(X, C).log_p_ok(X)

    assert np.isfinite(log_p_ok).all() and (log_p_ok <= 0).all()
    assert (log_p_ok >= math.log(0.5) - 1e-9).all() == bool((C <= 0).all())
