"""Gaussian process regression: what value a configuration will have, and how sure that is.

Notation:

    n, d       training points and inputs
    X          training inputs, (n, d)
    y          training targets, (n,), of mean 0 and standard deviation about 1
    l          length scales, (d,)
    s          signal variance
    v          noise variance
    theta      logarithms of l, s and v in this order, (d + 2,)
    K          covariance of the targets, (n, n): s * matern(r) + v * I
    r          distance of two inputs, each coordinate divided by its length scale
    alpha      K^-1 y, (n,)

The kernel is Matern 5/2 with a length scale for each input, theta the maximum a posteriori under
log-normal priors. Length scales grow with the square root of d, as C. Hvarfner et al., Vanilla
Bayesian Optimization Performs Great in High Dimensions (ICML 2024, arXiv:2402.02229), advise; without
it a hundred inputs of the unit cube are all equally far apart.
"""

from __future__ import annotations

from functools import lru_cache
import math

import numpy as np
from scipy import linalg
from scipy import optimize


# Mean and standard deviation of the priors of theta; that of l is for d = 1, see `_prior`. With
# long length scales or much noise before anything is known, some studies end in a posterior where
# everything is noise: nothing improves any more.
_LOG_LENGTH = (-0.7, 0.85)
_LOG_SIGNAL = (0.0, 1.0)
_LOG_NOISE = (-6.0, 1.0)

# Least noise: keeps K invertible where points are near each other.
_LEAST_NOISE = 1e-6

_MAX_STEPS = 40
# Fewer points than this tell nothing of the hyperparameters.
_LEAST_POINTS = 3


class GaussianProcess:
    """A Gaussian process that has seen its training points.

    Args:
        X: Inputs, (n, d).
        y: Targets, (n,).
        theta: Hyperparameters, (d + 2,), see `fit`.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, theta: np.ndarray) -> None:
        self._length, self._signal, noise = _unpack(theta)
        self._Z = X / self._length
        K = self._signal * _matern(_squared_distances(self._Z, self._Z))
        K[np.diag_indices_from(K)] += noise
        self._L = linalg.cholesky(K, lower=True, check_finite=False)
        self._alpha = linalg.cho_solve((self._L, True), y, check_finite=False)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noise-free value at m points, (m, d) -> 2 x (m,)."""
        k = self._signal * _matern(_squared_distances(self._Z, X / self._length))  # (n, m)
        half = linalg.solve_triangular(self._L, k, lower=True, check_finite=False)
        variance = self._signal - (half**2).sum(axis=0)
        return self._alpha @ k, np.sqrt(np.maximum(variance, 1e-12))


def fit(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The hyperparameters that points are most likely with; the same ones for the same points.

    Those of the prior if there are only a few points. The last ones are remembered: a sampler may
    be made anew for each trial, and hyperparameters are fitted to the same points several times.

    Args:
        X: Inputs, (n, d).
        y: Targets, (n,).

    Returns:
        theta, (d + 2,).
    """
    return _fit(X.tobytes(), y.tobytes(), X.shape[1])


@lru_cache(maxsize=16)
def _fit(points: bytes, targets: bytes, d: int) -> np.ndarray:
    y = np.frombuffer(targets)
    X = np.frombuffer(points).reshape(len(y), d)
    mean, deviation = _prior(d)
    if len(X) < _LEAST_POINTS:
        return mean
    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(mean, deviation)]
    bounds[-1] = (math.log(_LEAST_NOISE), 0.0)
    found = optimize.minimize(
        _loss,
        mean,
        args=(X, y, mean, deviation),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MAX_STEPS},
    )
    return np.asarray(found.x)


def _prior(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of theta before anything is known, 2 x (d + 2,)."""
    log_length = (_LOG_LENGTH[0] + math.log(max(d, 1)) / 2, _LOG_LENGTH[1])
    rows = np.array([log_length] * d + [_LOG_SIGNAL, _LOG_NOISE])
    return rows[:, 0], rows[:, 1]


def _loss(
    theta: np.ndarray,
    X: np.ndarray,
    y: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Negative log posterior of theta, up to a constant, and its gradient, (d + 2,).

    With W = alpha alpha^T - K^-1 the gradient of the log likelihood is tr(W dK) / 2. Of the length
    scale of input j, dK/d(log l_j) is -s matern'(r^2) 2 (x_j - x'_j)^2 / l_j^2 elementwise, so with
    M = W * matern'(r^2) the trace is a quadratic form in x_j, and all d of them are one product.
    """
    length, signal, noise = _unpack(theta)
    Z = X / length
    squared = _squared_distances(Z, Z)
    root = np.sqrt(5.0 * squared)
    decay = np.exp(-root)
    matern = (1.0 + root + (5.0 / 3.0) * squared) * decay
    K = signal * matern
    K[np.diag_indices_from(K)] += noise
    try:
        L = linalg.cholesky(K, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return 1e25, np.zeros_like(theta)
    inverse, _ = linalg.lapack.dpotri(L, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    alpha = inverse @ y
    deviations = (theta - mean) / deviation
    loss = 0.5 * y @ alpha + np.log(np.diag(L)).sum() + 0.5 * deviations @ deviations

    W = np.outer(alpha, alpha) - inverse
    # d matern / d(r^2) = -5/6 (1 + root) decay
    M = W * (signal * (5.0 / 6.0) * (1.0 + root) * decay)
    of_length = 2.0 * (M.sum(axis=1) @ Z**2 - np.einsum("nd,nd->d", Z, M @ Z))
    of_signal = 0.5 * signal * np.sum(W * matern)
    of_noise = 0.5 * noise * np.trace(W)
    gradient = -np.array([*of_length, of_signal, of_noise]) + deviations / deviation
    return float(loss), gradient


def _unpack(theta: np.ndarray) -> tuple[np.ndarray, float, float]:
    return np.exp(theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])


def _matern(squared: np.ndarray) -> np.ndarray:
    """Matern 5/2 of squared distances, any shape."""
    root = np.sqrt(5.0 * squared)
    return (1.0 + root + (5.0 / 3.0) * squared) * np.exp(-root)


def _squared_distances(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Between the rows of (m, d) and (n, d), (m, n)."""
    squares = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1)[None] - 2.0 * (A @ B.T)
    return np.maximum(squares, 0.0)
