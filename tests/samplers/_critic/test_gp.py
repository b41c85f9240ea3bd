"""The Gaussian process against what it is by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel
from sklearn.gaussian_process.kernels import Matern
from sklearn.gaussian_process.kernels import RBF

from samplers._critic import gp
from samplers._critic.gp import fit
from samplers._critic.gp import GaussianProcess


def data(n: int, d: int = 3, noise: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.random((n, d))
    y = np.sin(5 * X[:, 0]) + X[:, 1] ** 2 + noise * rng.standard_normal(n)
    return X, (y - y.mean()) / y.std()


def test_predictions_are_those_of_scikit_learn() -> None:
    X, y = data(30)
    theta = np.log([0.3, 1.5, 4.0, 2.0, 0.6, 0.01])
    kernel = ConstantKernel(2.0) * Matern([0.3, 1.5, 4.0], nu=2.5)
    for j, length in enumerate([0.3, 1.5, 4.0]):
        lengths = np.full(3, 1e9)  # the others don't matter
        lengths[j] = length / math.sqrt(3)
        kernel += ConstantKernel(0.2) * RBF(lengths)
    theirs = GaussianProcessRegressor(kernel, alpha=0.01, optimizer=None).fit(X, y)
    points = np.random.default_rng(1).random((20, 3))

    mean, deviation = GaussianProcess(X, y, theta).predict(points)

    expected_mean, expected_deviation = theirs.predict(points, return_std=True)
    assert mean == pytest.approx(expected_mean, abs=1e-8)
    assert deviation == pytest.approx(expected_deviation, abs=1e-8)


def test_the_gradient_is_that_of_finite_differences() -> None:
    X, y = data(25)
    mean, deviation = gp._prior(3, -1.0)
    theta = mean + np.random.default_rng(1).normal(0, 0.3, 6)
    D = gp._differences(X)

    gradient = gp._loss(theta, D, y, mean, deviation)[1]

    numeric = approx_fprime(theta, lambda t: gp._loss(t, D, y, mean, deviation)[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_the_loss_of_categories_too_is_that_of_the_kernel() -> None:
    rng = np.random.default_rng(2)
    category = 0.5 * (rng.integers(4, size=(25, 1)) == np.arange(5))  # the last one was never run
    X = np.hstack([data(25)[0], category])
    y = data(25)[1]
    mean, deviation = gp._prior(8, -1.0)
    theta = mean + rng.normal(0, 0.3, 11)
    D = gp._differences(X)

    def loss(theta: np.ndarray) -> float:
        process = GaussianProcess(X, y, theta)
        K = process._covariance(process._Z) + math.exp(theta[-1]) * np.eye(25)
        _, log_determinant = np.linalg.slogdet(K)
        prior = (((theta - mean) / deviation) ** 2).sum()
        return float(y @ np.linalg.solve(K, y) + log_determinant + prior) / 2

    found, gradient = gp._loss(theta, D, y, mean, deviation)

    assert found == pytest.approx(loss(theta))
    assert gradient == pytest.approx(approx_fprime(theta, loss, 1e-6), rel=1e-3, abs=1e-3)


def test_many_choices_take_no_longer_than_a_few() -> None:
    chosen = np.arange(40) % 20
    choices = 0.5 * (chosen[:, None] == np.arange(200))

    D = gp._differences(choices)

    assert not D.of_many.size
    assert D.differ.nnz == 2 * np.not_equal.outer(chosen, chosen).sum() / 2


def test_what_is_left_out_is_predicted_from_the_others() -> None:
    X, y = data(12)
    theta = gp._prior(3, -1.0)[0]

    expected = 0.0
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        mean, deviation = GaussianProcess(X[others], y[others], theta).predict(X[[i]])
        expected += norm.logpdf(y[i], mean[0], math.hypot(deviation[0], math.exp(theta[-1] / 2)))

    constant = len(y) / 2 * math.log(2 * math.pi)
    left_out = GaussianProcess(X, y, theta).log_density_left_out()
    assert left_out - constant == pytest.approx(expected)


def test_the_prior_is_taken_that_predicts_best() -> None:
    taken = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.random((15, 4))
        y = np.sin(9 * X).sum(axis=1) if seed % 2 else X.sum(axis=1)
        y = (y - y.mean()) / y.std()
        thetas = [
            gp._most_likely(gp._differences(X), y, *gp._prior(4, log_length))
            for log_length in gp._LOG_LENGTHS
        ]
        densities = [GaussianProcess(X, y, theta).log_density_left_out() for theta in thetas]
        best = int(np.argmax(densities))
        taken.add(best)

        assert fit(X, y).tolist() == thetas[best].tolist()
    assert len(taken) > 1


def test_what_each_input_does_alone_counts_where_nothing_was_run() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((60, 2))
    X = X[X.min(axis=1) < 0.3]
    far = np.array([[0.7, 0.9], [0.9, 0.6], [0.8, 0.8]])

    def of_sum(X: np.ndarray) -> np.ndarray:
        return np.asarray(np.sin(7 * X).sum(axis=1))

    mean, _ = GaussianProcess(X, of_sum(X), fit(X, of_sum(X))).predict(far)

    assert mean == pytest.approx(of_sum(far), abs=0.1)


def test_an_input_that_does_not_matter_gets_a_long_length_scale() -> None:
    length = np.exp(fit(*data(60))[:3])

    assert length[2] > 2 * length[0]


def test_noise_is_told_from_signal() -> None:
    little = math.exp(fit(*data(60, noise=0.01))[-1])
    much = math.exp(fit(*data(60, noise=0.5))[-1])

    assert little < 0.01 < 0.1 < much


def test_the_same_points_give_the_same_hyperparameters() -> None:
    first = fit(*data(40)).tolist()
    gp._fit.cache_clear()  # as in another process

    assert fit(*data(40)).tolist() == first


def test_a_fit_is_remembered() -> None:
    fit(*data(20))
    before = gp._fit.cache_info().misses

    fit(*data(20))

    assert gp._fit.cache_info().misses == before


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_few_points_leave_the_prior(n: int) -> None:
    X, y = data(10)

    theta = fit(X[:n], y[:n])
    mean, deviation = GaussianProcess(X[:n], y[:n], theta).predict(X)

    assert theta.tolist() == gp._prior(3, gp._LOG_LENGTHS[0])[0].tolist()
    assert np.isfinite(mean).all() and (deviation > 0).all()


@pytest.mark.parametrize("y", [np.zeros(8), np.repeat([1.0, -1.0], 4)])
def test_equal_points_are_no_harm(y: np.ndarray) -> None:
    X = np.full((8, 2), 0.5)

    mean, deviation = GaussianProcess(X, y, fit(X, y)).predict(X)

    assert mean == pytest.approx(np.zeros(8), abs=1e-6)
    assert (deviation > 0).all()


def test_a_hundred_inputs_are_fitted() -> None:
    X, y = data(80, d=100)

    mean, _ = GaussianProcess(X, y, fit(X, y)).predict(X)

    assert np.corrcoef(mean, y)[0, 1] > 0.9
