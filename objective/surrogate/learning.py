"""Which models predict studies that they haven't seen, and the surrogate that is made of them.

Notation as in :mod:`objective.surrogate.models`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
import math
import statistics
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import log_loss
from sklearn.metrics import mean_absolute_error
from sklearn.metrics import r2_score
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neighbors import KNeighborsRegressor

from objective.surrogate.data_set import DataSet
from objective.surrogate.data_set import DataSetError
from objective.surrogate.models import FEATURES
from objective.surrogate.models import Logistic
from objective.surrogate.models import QuadraticRidge
from objective.surrogate.models import Regressor
from objective.surrogate.models import Score
from objective.surrogate.models import Table
from objective.surrogate.models import VALUE_MODELS
from objective.surrogate.surrogate import Surrogate
from objective.surrogate.surrogate import table_of


_MIN_SUCCESSES = 20
_FOLDS = 5
_BEST = 0.25  # share of the trials that ``r2_best`` is of
_NEIGHBOURS = 5  # of the baseline that every model has to beat
_CS = np.logspace(-2, 2, 5).tolist()


def fit_surrogate(data: DataSet, *, seed: int = 0) -> Surrogate:
    """Choose models by cross-validation, learn their hyperparameters, and fit them.

    Args:
        data: Of :meth:`DataSet.collect`.
        seed: Decides which successes length scales are learned from, if there are many.

    Raises:
        DataSetError: If the trials are too few, or of a single study.
    """
    successes = [row for row in data.rows if row.status == "ok"]
    studies = {row.study.removesuffix("-revalidated") for row in successes}
    if len(successes) < _MIN_SUCCESSES or len(studies) < 2:
        raise DataSetError(
            f"A surrogate needs {_MIN_SUCCESSES} successful trials of 2 studies (it is judged"
            f" by one that it hasn't seen), but got {len(successes)} of {len(studies)}."
        )
    return Surrogate(data.with_fit(_learn(table_of(data), data.metric.cost(1.0), seed)))


def _learn(table: Table, sign: float, seed: int) -> dict[str, Any]:
    """Choose models and their hyperparameters, and return them with their scores.

    Args:
        table: At least ``_MIN_SUCCESSES`` successes of at least two studies.
        sign: Times which lower values are better.
        seed: Decides which successes length scales are learned from, if there are many.
    """
    ok = table.ok
    x, study, y = table.x[ok], table.study[ok], np.log(table.values)
    scores = _score_regression("value", VALUE_MODELS, x, y, study, seed, sign)
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
        "noise_sd": _noise_sd(x, sign * y),
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
    """Return the pooled standard deviation of y among equal rows of x, in their lower half.

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
    """Return each row's prediction by a model that saw no row of its study, nor its configuration.

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
    sign: float = 1.0,
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
            best = sign * predicted <= np.quantile(sign * predicted, _BEST)
            few = name == "mean" or np.ptp(y[best]) == 0
            metrics[name]["r2_best"] = None if few else float(r2_score(y[best], predicted[best]))
    chosen = max(models, key=r2.__getitem__)
    return [
        Score(target, name, name in baselines, name == chosen, len(y), row)
        for name, row in metrics.items()
    ]


def _spearman(y: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return Spearman's correlation; None of a constant, such as a fixed training time."""
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
    for name, predict in {**baselines, **{name: by(name) for name in FEATURES}}.items():
        p = out_of_fold(predict, x, study)
        losses[name] = _log_loss(status, p, classes)
        auc = roc_auc_score(status != "ok", 1 - p[:, classes.index("ok")])
        # The rate of each fold is no prediction of an order.
        metrics[name] = {
            "auc": None if name == "base rate" else float(auc),
            "log_loss": losses[name],
        }
    best = min(FEATURES, key=losses.__getitem__)
    return [
        Score("failure", name, name in baselines, name == best, len(status), row)
        for name, row in metrics.items()
    ]


def _learn_c(model: str, x: np.ndarray, status: np.ndarray, study: np.ndarray) -> float:
    """Return the inverse strength of regularization that predicts unseen studies best."""
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
    """Return probabilities of all classes; those that no row had are 0."""
    out = np.zeros((len(p), len(classes)))
    out[:, [classes.index(name) for name in known]] = p
    return out


def _log_loss(status: np.ndarray, p: np.ndarray, classes: Sequence[str]) -> float:
    # A class that a fold hasn't seen would cost infinitely much.
    p = np.clip(p, 1e-3, None)
    return float(log_loss(status, p / p.sum(axis=1, keepdims=True), labels=list(classes)))
