"""Scores of several kinds of models on the successes of studies that they haven't seen.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.surrogate_models FILE

FILE is a data set that ``optuna-autoresearch surrogate`` wrote. Each model predicts the logarithm of
bits per byte from the same coordinates as the surrogate's own, and is given the same folds; the last
column is the median time of a prediction for one configuration. Writes
``results/surrogate_models.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import statistics
import sys
import time
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from objective.surrogate.data_set import DataSet
from objective.surrogate.learning import out_of_fold
from objective.surrogate.models import GaussianProcess
from objective.surrogate.models import QuadraticRidge
from objective.surrogate.surrogate import table_of


class _Own:
    """A model of the surrogate's, used as scikit-learn's are."""

    def __init__(self, model: type[GaussianProcess] | type[QuadraticRidge]) -> None:
        self._model = model

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Own:
        self.predict = self._model(x, y, self._model.learn(x, y, 0)).predict
        return self


MODELS: dict[str, Callable[[], Any]] = {
    "mean": DummyRegressor,
    "5 nearest neighbours": lambda: KNeighborsRegressor(5, weights="distance"),
    "ridge": lambda: make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
    "support vectors": lambda: make_pipeline(StandardScaler(), SVR(C=1.0, epsilon=0.01)),
    "extremely randomized trees": lambda: ExtraTreesRegressor(
        300, max_features=0.5, random_state=0
    ),
    "random forest": lambda: RandomForestRegressor(300, max_features=0.5, random_state=0),
    "gradient boosting": lambda: HistGradientBoostingRegressor(
        max_iter=200, learning_rate=0.05, min_samples_leaf=5, random_state=0
    ),
    "quadratic ridge (ours)": lambda: _Own(QuadraticRidge),
    "gaussian process (ours)": lambda: _Own(GaussianProcess),
}
CALLS = 50
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    data = DataSet.read(Path(sys.argv[1]))
    table = table_of(data)
    x, y, study = table.x[table.ok], np.log(table.values), table.study[table.ok]
    lines = [
        f"{len(y)} successes of {len(set(study.tolist()))} studies, whole studies left out, and "
        "what others have of their configurations:",
        "",
        "| model | R2 of log bits per byte | Spearman | MAE, bits per byte | ms for one |",
        "|---|---|---|---|---|",
    ]
    for name, make in MODELS.items():

        def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            return np.asarray(make().fit(x[train], y[train]).predict(x[test]))

        predicted = out_of_fold(predict, x, study)
        rho = "" if name == "mean" else f"{spearmanr(y, predicted).statistic:.3f}"
        error = mean_absolute_error(np.exp(y), np.exp(predicted))
        fitted = make().fit(x, y)
        times = []
        for i in range(CALLS):
            start = time.process_time()
            fitted.predict(x[i % len(x)][None])
            times.append((time.process_time() - start) * 1000)
        lines.append(
            f"| {name} | {r2_score(y, predicted):.3f} | {rho} | {error:.4f} |"
            f" {statistics.median(times):.2f} |"
        )
        print(lines[-1], flush=True)
    (RESULTS / "surrogate_models.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
