"""Gaussian process regression: what value a configuration will have, and how sure that is.

Notation:

    n, d       training points and inputs
    X          training inputs, (n, d)
    y          training targets, (n,), of mean 0 and standard deviation about 1
    l          length scales, (d,)
    s          variance of what inputs do together
    a          variance of what each does alone
    v          noise variance
    theta      logarithms of l, s, a and v in this order, (d + 3,)
    D          squared differences of the inputs, D_j = (x_j - x'_j)^2, for each pair of points once,
               in the order of ``np.tril_indices(n, -1)``: (d, n (n - 1) / 2), see `_Differences`
    r          distance of two inputs, each coordinate divided by its length scale
    K          covariance of the targets, (n, n): s matern(r) + a e + v I
    e          mean over j of exp(-d D_j / (2 l_j^2))
    alpha      K^-1 y, (n,)

The kernel is the sum of Matern 5/2 with a length scale for each input, and of the mean of one-dimensional
squared exponentials, of which each sees one input (D. Duvenaud et al., Additive Gaussian Processes,
NeurIPS 2011, arXiv:1112.4394, first order). The latter tells from few points what each input does
wherever the others are, so that what was learned in one place counts in another. Theta is the maximum a
posteriori under log-normal priors. Length scales grow with the square root of d, as C. Hvarfner et al.,
Vanilla Bayesian Optimization Performs Great in High Dimensions (ICML 2024, arXiv:2402.02229), advise;
without it a hundred inputs of the unit cube are all equally far apart. Some functions are
smooth and some rugged, and one prior doesn't suit both: of several the one is taken whose theta
predicts each point best from the others (C. E. Rasmussen and C. K. I. Williams,
Gaussian Processes for Machine Learning, MIT Press 2006, eq. 5.10 to 5.12).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math

import numpy as np
from scipy import linalg
from scipy import optimize
from scipy import sparse


# Means and standard deviation of the priors of theta; those of l are for d = 1, see `_prior`. With
# long length scales or much noise before anything is known, some studies end in a posterior where
# everything is noise: nothing improves any more.
_LOG_LENGTHS = (-0.7, -1.3, -1.9)
_LOG_LENGTH_SD = 0.85
_LOG_SIGNAL = (0.0, 1.0)
_LOG_ALONE = (-1.0, 1.0)
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
        theta: Hyperparameters, (d + 3,), see `fit`.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, theta: np.ndarray) -> None:
        self._length, self._signal, self._alone, noise = _unpack(theta)
        self._Z = X / self._length
        K = self._covariance(self._Z)
        K[np.diag_indices_from(K)] += noise
        self._L = linalg.cholesky(K, lower=True, check_finite=False)
        self._alpha = linalg.cho_solve((self._L, True), y, check_finite=False)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noise-free value at m points, (m, d) -> 2 x (m,)."""
        k = self._covariance(X / self._length)  # (n, m)
        half = linalg.solve_triangular(self._L, k, lower=True, check_finite=False)
        variance = self._signal + self._alone - (half**2).sum(axis=0)
        return self._alpha @ k, np.sqrt(np.maximum(variance, 1e-12))

    def log_density_left_out(self) -> float:
        """Sum of the targets' log densities, each predicted from the others, up to a constant."""
        inverse, _ = linalg.lapack.dpotri(self._L, lower=1)
        precision = np.diag(inverse)  # of a target, given the others
        return float((np.log(precision) - self._alpha**2 / precision).sum() / 2)

    def _covariance(self, Z: np.ndarray) -> np.ndarray:
        """Of the values at the training points and at others, (m, d) -> (n, m)."""
        d = max(Z.shape[1], 1)
        squared = np.zeros((len(self._Z), len(Z)))
        alone = np.zeros_like(squared)
        for mine, theirs in zip(self._Z.T, Z.T):
            of_input = np.subtract.outer(mine, theirs) ** 2
            squared += of_input
            alone += np.exp(-d / 2 * of_input)
        root = np.sqrt(5.0 * squared)
        matern = (1.0 + root + (5.0 / 3.0) * squared) * np.exp(-root)
        return self._signal * matern + self._alone / d * alone


def fit(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The hyperparameters that points are most likely with; the same ones for the same points.

    Those of the prior if there are only a few points. The last ones are remembered: a sampler may
    be made anew for each trial, and hyperparameters are fitted to the same points several times.

    Args:
        X: Inputs, (n, d).
        y: Targets, (n,).

    Returns:
        theta, (d + 3,).
    """
    return _fit(X.tobytes(), y.tobytes(), X.shape[1])


@lru_cache(maxsize=16)
def _fit(points: bytes, targets: bytes, d: int) -> np.ndarray:
    y = np.frombuffer(targets)
    X = np.frombuffer(points).reshape(len(y), d)
    if len(X) < _LEAST_POINTS:
        return _prior(d, _LOG_LENGTHS[0])[0]
    D = _differences(X)
    thetas = [_most_likely(D, y, *_prior(d, log_length)) for log_length in _LOG_LENGTHS]
    return max(thetas, key=lambda theta: GaussianProcess(X, y, theta).log_density_left_out())


def _most_likely(
    D: _Differences, y: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """The theta of the largest posterior, (d + 3,)."""
    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(mean, deviation)]
    bounds[-1] = (math.log(_LEAST_NOISE), 0.0)
    found = optimize.minimize(
        _loss,
        mean,
        args=(D, y, mean, deviation),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MAX_STEPS},
    )
    return np.asarray(found.x)


def _prior(d: int, log_length: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of theta before anything is known, 2 x (d + 3,)."""
    of_length = (log_length + math.log(max(d, 1)) / 2, _LOG_LENGTH_SD)
    rows = np.array([of_length] * d + [_LOG_SIGNAL, _LOG_ALONE, _LOG_NOISE])
    return rows[:, 0], rows[:, 1]


@dataclass(frozen=True, eq=False)
class _Differences:
    """D of points.

    Of a category's 200 choices two points differ in two at most. An input of so few values is kept
    as the pairs of points that differ in it, which are all that it takes time for.

    Attributes:
        many: Indices of the inputs of more than two values, (m,).
        of_many: Their D, (m, n (n - 1) / 2).
        two: Indices of the other inputs, (k,).
        gaps: Their D where two points differ, (k,).
        differ: 1 where they do, (k, n (n - 1) / 2).
    """

    many: np.ndarray
    of_many: np.ndarray
    two: np.ndarray
    gaps: np.ndarray
    differ: sparse.csr_array


def _differences(X: np.ndarray) -> _Differences:
    """D of points, (n, d)."""
    i, j = np.tril_indices(len(X), -1)
    is_many = np.array([len(np.unique(x)) > 2 for x in X.T], dtype=bool)
    of_many = [(x[i] - x[j]) ** 2 for x in X.T[is_many]]
    differ = [x[i] != x[j] for x in X.T[~is_many]]
    return _Differences(
        many=np.flatnonzero(is_many),
        of_many=np.array(of_many).reshape(-1, len(i)),
        two=np.flatnonzero(~is_many),
        gaps=np.ptp(X[:, ~is_many], axis=0) ** 2,
        differ=sparse.csr_array(np.array(differ, dtype=bool).reshape(-1, len(i)), dtype=float),
    )


def _loss(
    theta: np.ndarray,
    D: _Differences,
    y: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Negative log posterior of theta, up to a constant, and its gradient, (d + 3,).

    With W = alpha alpha^T - K^-1 the gradient of the log likelihood is tr(W dK) / 2. By log l_j the
    derivative of K is D_j / l_j^2 (-2 s dmatern/d(r^2) + a exp(-d D_j / (2 l_j^2))), elementwise.
    """
    length, signal, alone, noise = _unpack(theta)
    d = max(len(length), 1)
    weights = length**-2.0
    of_gaps = weights[D.two] * D.gaps
    squared = weights[D.many] @ D.of_many + of_gaps @ D.differ
    root = np.sqrt(5.0 * squared)
    decay = np.exp(-root)
    matern = (1.0 + root + (5.0 / 3.0) * squared) * decay
    of_many = D.of_many * (-d / 2 * weights[D.many])[:, None]
    np.exp(of_many, out=of_many)
    of_two = np.exp(-d / 2 * of_gaps)
    mean_of_inputs = (of_many.sum(axis=0) + len(of_two) - (1.0 - of_two) @ D.differ) / d
    pairs = np.tril_indices(len(y), -1)
    K = np.diag(np.full(len(y), signal + alone + noise))
    K[pairs] = signal * matern + alone * mean_of_inputs  # of the lower triangle only
    try:
        L = linalg.cholesky(K, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return 1e25, np.zeros_like(theta)
    alpha = linalg.cho_solve((L, True), y, check_finite=False)
    inverse, _ = linalg.lapack.dpotri(L, lower=1)
    deviations = (theta - mean) / deviation
    loss = 0.5 * y @ alpha + np.log(np.diag(L)).sum() + 0.5 * deviations @ deviations

    # W of each pair, which stands for two entries, and its trace.
    W = alpha[pairs[0]] * alpha[pairs[1]] - inverse[pairs]
    trace = alpha @ alpha - np.trace(inverse)
    # dmatern / d(r^2) = -5/6 (1 + root) decay
    of_distance = W * (signal * (5.0 / 3.0) * (1.0 + root) * decay)
    of_many *= D.of_many
    of_length = np.empty_like(weights)
    of_length[D.many] = weights[D.many] * (D.of_many @ of_distance + alone * (of_many @ W))
    of_length[D.two] = of_gaps * (D.differ @ of_distance + alone * of_two * (D.differ @ W))
    of_signal = signal * (W @ matern + 0.5 * trace)
    of_alone = alone * (W @ mean_of_inputs + 0.5 * trace)
    of_noise = 0.5 * noise * trace
    gradient = -np.array([*of_length, of_signal, of_alone, of_noise]) + deviations / deviation
    return float(loss), gradient


def _unpack(theta: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """l, s, a and v."""
    return np.exp(theta[:-3]), math.exp(theta[-3]), math.exp(theta[-2]), math.exp(theta[-1])
