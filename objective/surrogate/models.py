"""Models of a testbed's trials as arrays.

Notation: n trials, n_ok successes; ``x`` is a configuration's effective values in the unit cube,
one-hot where categorical, (d,); ``z`` is x with its squares and products, (d + d (d + 1) / 2,).

Each model is built of data and of what was learned from them before (``fit``: plain values, so that
they can be stored), without any search, so that loading a surrogate takes a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
import warnings

import numpy as np
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel
from sklearn.gaussian_process.kernels import Matern
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge
from sklearn.linear_model import RidgeCV


_MAX_LEARNING = 300  # successes that length scales are learned from: the time is cubic in them
_ALPHAS = np.logspace(-3, 4, 15)


@dataclass(frozen=True)
class Score:
    """Scores of a model on the trials of studies that it has not seen.

    Attributes:
        target: ``value``, ``failure``, ``training seconds`` or ``total seconds``.
        model: Its name.
        baseline: Whether it is only there for comparison.
        chosen: Whether the surrogate uses it.
        n: Trials that were predicted.
        metrics: ``r2`` (of the logarithm), ``spearman`` and ``mae`` (bits per byte or seconds); of
            ``value``, also ``r2_best``, the R2 of the quarter that is predicted to be best: where
            methods are compared, and where there is less to tell apart than over all; of
            ``failure``, ``auc`` (of failing, whatever the class) and ``log_loss`` (over all
            classes). None where a constant prediction, or a constant, has none.
    """

    target: str
    model: str
    baseline: bool
    chosen: bool
    n: int
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class Table:
    """The trials as arrays.

    Attributes:
        x: (n, d).
        status: (n,), strings.
        study: (n,), an index for each study.
        total_seconds: (n,).
        values: (n_ok,).
        seconds: (n_ok, 2), of training and in total.
    """

    x: np.ndarray
    status: np.ndarray
    study: np.ndarray
    total_seconds: np.ndarray
    values: np.ndarray
    seconds: np.ndarray

    @property
    def ok(self) -> np.ndarray:
        """The mask of successful trials, (n,)."""
        return np.asarray(self.status == "ok")


class GaussianProcess:
    """Gaussian process with a Matern 5/2 kernel and a length scale for each coordinate of x."""

    name = "gaussian process"

    def __init__(self, x: np.ndarray, y: np.ndarray, fit: Mapping[str, Any]) -> None:
        kernel = _kernel(x.shape[1]).clone_with_theta(np.array(fit["theta"]))
        process = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=None)
        self.predict: Callable[[np.ndarray], np.ndarray] = process.fit(x, y).predict

    @classmethod
    def learn(cls, x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, Any]:
        some = np.random.default_rng(seed).permutation(len(y))[:_MAX_LEARNING]
        with warnings.catch_warnings():
            # A length scale at its bound says that its coordinate doesn't matter.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process = GaussianProcessRegressor(_kernel(x.shape[1]), normalize_y=True)
            theta = process.fit(x[some], y[some]).kernel_.theta
        return {"model": cls.name, "theta": theta.tolist()}


def _kernel(d: int) -> Any:
    matern = Matern(np.ones(d), (0.1, 100.0), nu=2.5)
    return ConstantKernel(1.0, (1e-2, 1e3)) * matern + WhiteKernel(1e-2, (1e-5, 1.0))


class QuadraticRidge:
    """Ridge regression on z."""

    name = "quadratic ridge"

    def __init__(self, x: np.ndarray, y: np.ndarray, fit: Mapping[str, Any]) -> None:
        z = _quadratic(x)
        self._scale = _Scaler(z)
        ridge = Ridge(fit["alpha"]).fit(self._scale(z), y)
        self._weights, self._offset = ridge.coef_, ridge.intercept_

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, d) -> (n,)."""
        return np.asarray(self._scale(_quadratic(x)) @ self._weights + self._offset)

    @classmethod
    def learn(cls, x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, Any]:
        z = _quadratic(x)
        return {"model": cls.name, "alpha": float(RidgeCV(_ALPHAS).fit(_Scaler(z)(z), y).alpha_)}


Regressor = type[GaussianProcess] | type[QuadraticRidge]

VALUE_MODELS: dict[str, Regressor] = {m.name: m for m in (GaussianProcess, QuadraticRidge)}


class Logistic:
    """Probabilities of classes, by logistic regression on x or on z."""

    def __init__(self, x: np.ndarray, status: np.ndarray, fit: Mapping[str, Any]) -> None:
        self.classes: list[str] = sorted(set(status.tolist()))
        self._features = FEATURES[fit["model"]]
        z = self._features(x)
        self._scale = _Scaler(z)
        self._weights, self._offsets = np.zeros((1, z.shape[1])), np.zeros(1)
        if len(self.classes) > 1:
            model = LogisticRegression(C=fit["C"], max_iter=5000).fit(self._scale(z), status)
            self._weights, self._offsets = model.coef_, model.intercept_

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, classes)."""
        logits = self._scale(self._features(x)) @ self._weights.T + self._offsets
        if len(self.classes) == 2:  # the model has a row for the second class only
            logits = np.hstack([np.zeros_like(logits), logits])
        return np.asarray(softmax(logits, axis=1))


def _quadratic(x: np.ndarray) -> np.ndarray:
    """x, (n, d) -> z, (n, d + d (d + 1) / 2)."""
    i, j = np.triu_indices(x.shape[1])
    return np.hstack([x, x[:, i] * x[:, j]])


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": lambda x: x,
    "quadratic logistic": _quadratic,
}


class _Scaler:
    """Scale columns to mean 0 and standard deviation 1, constant ones to 0."""

    def __init__(self, x: np.ndarray) -> None:
        self._mean, sd = x.mean(axis=0), x.std(axis=0)
        self._factor = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-12)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self._mean) * self._factor)
