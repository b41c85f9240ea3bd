"""Models of a testbed's trials as arrays, and how well they predict studies that they haven't seen.

Notation: n trials, n_ok successes; ``x`` is a configuration's effective values in the unit cube,
one-hot where categorical, (d,); ``z`` is x with its squares and products, (d + d (d + 1) / 2,).

Each model is built of data and of what was learned from them before (``fit``: plain values, so that
they can be stored), without any search, so that loading a surrogate takes a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import math
import statistics
from typing import Any
import warnings

import numpy as np
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel
from sklearn.gaussian_process.kernels import Matern
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge
from sklearn.linear_model import RidgeCV
from sklearn.metrics import log_loss
from sklearn.metrics import mean_absolute_error
from sklearn.metrics import r2_score
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neighbors import KNeighborsRegressor


MIN_SUCCESSES = 20

_FOLDS = 5
_BEST = 0.25  # share of the trials that ``r2_best`` is of
_NEIGHBOURS = 5  # of the baseline that every model has to beat
_MAX_LEARNING = 300  # successes that length scales are learned from: the time is cubic in them
_ALPHAS = np.logspace(-3, 4, 15)
_CS = np.logspace(-2, 2, 5).tolist()


@dataclass(frozen=True)
class Score:
    """How well a model predicts the trials of studies that it has not seen.

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
        """Which trials are successes, (n,)."""
        return np.asarray(self.status == "ok")


class GaussianProcess:
    """With a length scale for each coordinate of x (Matern 5/2)."""

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
        self._features = _FEATURES[fit["model"]]
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


_FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": lambda x: x,
    "quadratic logistic": _quadratic,
}


class _Scaler:
    """Columns to mean 0 and standard deviation 1; constant ones to 0."""

    def __init__(self, x: np.ndarray) -> None:
        self._mean, sd = x.mean(axis=0), x.std(axis=0)
        self._factor = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-12)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self._mean) * self._factor)


def learn(table: Table, seed: int) -> dict[str, Any]:
    """Which models, their hyperparameters, and the scores that they were chosen by.

    Args:
        table: At least ``MIN_SUCCESSES`` successes of at least two studies.
        seed: Decides which successes length scales are learned from, if there are many.
    """
    ok = table.ok
    x, study, y = table.x[ok], table.study[ok], np.log(table.values)
    scores = _score_regression("value", VALUE_MODELS, x, y, study, seed)
    value = VALUE_MODELS[_chosen(scores)].learn(x, y, seed)
    seconds = []
    for name, of in zip(("training seconds", "total seconds"), np.log(table.seconds).T):
        models: dict[str, Regressor] = {QuadraticRidge.name: QuadraticRidge}
        scores += _score_regression(name, models, x, of, study, seed)
        seconds.append(QuadraticRidge.learn(x, of, seed))
    classes = sorted(set(table.status.tolist()))
    status: dict[str, Any] = {"model": "logistic", "C": 1.0}
    if len(classes) > 1:
        failures = _score_failures(table, classes)
        scores += failures
        status["model"] = _chosen(failures)
        status["C"] = _learn_c(status["model"], table.x, table.status, table.study)
    return {
        "value": value,
        "noise_sd": _noise_sd(x, y),
        "seconds": seconds,
        "status": status,
        "failure_seconds": {
            name: float(np.median(table.total_seconds[table.status == name]))
            for name in classes
            if name != "ok"
        },
        "scores": [asdict(row) for row in scores],
    }


def _chosen(scores: Sequence[Score]) -> str:
    return next(row.model for row in scores if row.chosen)


def _noise_sd(x: np.ndarray, y: np.ndarray) -> float:
    """Pooled standard deviation of y among equal rows of x, of the better half of such rows.

    What trains badly scatters several times as much, and no method ends there.
    """
    groups: dict[bytes, list[float]] = {}
    for row, value in zip(x, y):
        groups.setdefault(row.tobytes(), []).append(float(value))
    repeated = [values for values in groups.values() if len(values) > 1]
    middle = np.median(y)
    repeated = [values for values in repeated if statistics.fmean(values) <= middle] or repeated
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in repeated)
    return math.sqrt(squares / max(1, sum(len(values) - 1 for values in repeated)))


# Rows to learn from, rows to predict -> predictions for the latter.
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


def out_of_fold(
    predict: Predict, x: np.ndarray, study: np.ndarray, folds: int = _FOLDS
) -> np.ndarray:
    """Each row's prediction by a model that saw no row of its study, nor its configuration.

    Studies share configurations: the script's own, and with a seed the first random ones. In a
    space of few configurations they share most of them, which are then left in.
    """
    out: np.ndarray | None = None
    configuration = np.unique(x, axis=0, return_inverse=True)[1].ravel()
    splits = GroupKFold(min(folds, len(set(study.tolist()))))
    for train, test in splits.split(study, groups=study):
        unseen = train[~np.isin(configuration[train], configuration[test])]
        predicted = predict(unseen if 2 * len(unseen) >= len(train) else train, test)
        if out is None:
            out = np.empty((len(study), *predicted.shape[1:]))
        out[test] = predicted
    assert out is not None
    return out


def _score_regression(
    target: str,
    models: Mapping[str, Regressor],
    x: np.ndarray,
    y: np.ndarray,
    study: np.ndarray,
    seed: int,
) -> list[Score]:
    def by_mean(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return np.full(len(test), y[train].mean())

    def by_neighbours(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = KNeighborsRegressor(min(_NEIGHBOURS, len(train)), weights="distance")
        return np.asarray(model.fit(x[train], y[train]).predict(x[test]))

    def by(model: Regressor) -> Predict:
        def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            fit = model.learn(x[train], y[train], seed)
            return np.asarray(model(x[train], y[train], fit).predict(x[test]))

        return predict

    baselines = {"mean": by_mean, f"{_NEIGHBOURS} neighbours": by_neighbours}
    metrics: dict[str, dict[str, float | None]] = {}
    r2 = {}
    for name, predict in {**baselines, **{n: by(model) for n, model in models.items()}}.items():
        predicted = out_of_fold(predict, x, study)
        r2[name] = float(r2_score(y, predicted))
        metrics[name] = {
            "r2": r2[name],
            "spearman": None if name == "mean" else _spearman(y, predicted),
            "mae": float(mean_absolute_error(np.exp(y), np.exp(predicted))),
        }
        if target == "value":
            best = predicted <= np.quantile(predicted, _BEST)
            few = name == "mean" or np.ptp(y[best]) == 0
            metrics[name]["r2_best"] = None if few else float(r2_score(y[best], predicted[best]))
    chosen = max(models, key=r2.__getitem__)
    return [
        Score(target, name, name in baselines, name == chosen, len(y), row)
        for name, row in metrics.items()
    ]


def _spearman(y: np.ndarray, predicted: np.ndarray) -> float | None:
    """None of a constant, such as the training time of a testbed that stops on time."""
    if np.ptp(y) == 0 or np.ptp(predicted) == 0:
        return None
    return float(spearmanr(y, predicted).statistic)


def _score_failures(table: Table, classes: Sequence[str]) -> list[Score]:
    x, status, study = table.x, table.status, table.study

    def by_rate(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        rate = [np.mean(status[train] == name) for name in classes]
        return np.tile(rate, (len(test), 1))

    def by_neighbours(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = KNeighborsClassifier(min(_NEIGHBOURS, len(train))).fit(x[train], status[train])
        return _spread(model.predict_proba(x[test]), model.classes_, classes)

    def by(name: str) -> Predict:
        def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            c = _learn_c(name, x[train], status[train], study[train])
            model = Logistic(x[train], status[train], {"model": name, "C": c})
            return _spread(model.probabilities(x[test]), model.classes, classes)

        return predict

    baselines = {"base rate": by_rate, f"{_NEIGHBOURS} neighbours": by_neighbours}
    metrics: dict[str, dict[str, float | None]] = {}
    losses = {}
    for name, predict in {**baselines, **{name: by(name) for name in _FEATURES}}.items():
        p = out_of_fold(predict, x, study)
        losses[name] = _log_loss(status, p, classes)
        auc = roc_auc_score(status != "ok", 1 - p[:, classes.index("ok")])
        # The rate of each fold is no prediction of an order.
        metrics[name] = {
            "auc": None if name == "base rate" else float(auc),
            "log_loss": losses[name],
        }
    best = min(_FEATURES, key=losses.__getitem__)
    return [
        Score("failure", name, name in baselines, name == best, len(status), row)
        for name, row in metrics.items()
    ]


def _learn_c(model: str, x: np.ndarray, status: np.ndarray, study: np.ndarray) -> float:
    """The inverse strength of regularization that predicts unseen studies best."""
    classes = sorted(set(status.tolist()))
    if len(classes) < 2 or len(set(study.tolist())) < 2:
        return 1.0

    def loss(c: float) -> float:
        def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            fitted = Logistic(x[train], status[train], {"model": model, "C": c})
            return _spread(fitted.probabilities(x[test]), fitted.classes, classes)

        return _log_loss(status, out_of_fold(predict, x, study, folds=3), classes)

    return float(min(_CS, key=loss))


def _spread(p: np.ndarray, known: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Probabilities of the classes that were there to learn from, as columns of all classes."""
    out = np.zeros((len(p), len(classes)))
    out[:, [classes.index(name) for name in known]] = p
    return out


def _log_loss(status: np.ndarray, p: np.ndarray, classes: Sequence[str]) -> float:
    # A class that a fold hasn't seen would cost infinitely much.
    p = np.clip(p, 1e-3, None)
    return float(log_loss(status, p / p.sum(axis=1, keepdims=True), labels=list(classes)))
