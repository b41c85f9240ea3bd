"""The critic's Gaussian process beside other libraries': seconds and quality.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.critic_models

Each is fitted from nothing to the first n successes of random points of a problem, with the critic's
inputs and targets, and predicts 1,000 other points. Quality: Spearman's correlation of the predicted
mean with the target, which is what a choice among candidates depends on, and the mean log density of
the targets, where 0.1 more is a tenth more likely. Medians over the problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import time
import warnings

import numpy as np
from optuna._gp import gp as optuna_gp
from optuna._gp import prior as optuna_prior
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel
from sklearn.gaussian_process.kernels import Matern
from sklearn.gaussian_process.kernels import WhiteKernel
import torch

from samplers._critic.candidates import random_rows
from samplers._critic.encoding import Encoder
from samplers._critic.gp import fit
from samplers._critic.gp import GaussianProcess
from samplers._critic.space import Space
from samplers._critic.targets import to_targets
from studies.scoreboard.suites import problem
from tests.benchmarks.keep import keep


PROBLEMS = ("surrogate", "bbob/f8/10d")
SIZES = (100, 300, 1000)
N_TEST = 1000
N_DRAWS = 1
# The others take minutes.
LARGEST = {"scikit-learn `GaussianProcessRegressor`": 300}

# Mean and standard deviation, noise included, of m points: 2 x (m,).
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Run:
    """One fit; a row of the CSV file."""

    library: str
    problem: str
    draw: int
    n: int
    fit_seconds: float
    predict_seconds: float
    correlation: float
    log_density: float


def own(X: np.ndarray, y: np.ndarray) -> Predict:
    theta = fit(X, y)
    process = GaussianProcess(X, y, theta)

    def predict(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, deviation = process.predict(points)
        return mean, np.sqrt(deviation**2 + np.exp(theta[-1]))

    return predict


def scikit_learn(X: np.ndarray, y: np.ndarray) -> Predict:
    kernel = ConstantKernel(1.0) * Matern(np.ones(X.shape[1]), nu=2.5) + WhiteKernel(0.01)
    model = GaussianProcessRegressor(kernel).fit(X, y)

    def predict(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, deviation = model.predict(points, return_std=True)
        return mean, deviation  # the white kernel's share is in it

    return predict


def of_optuna(X: np.ndarray, y: np.ndarray) -> Predict:
    model = optuna_gp.fit_kernel_params(
        X,
        y,
        is_categorical=np.zeros(X.shape[1], dtype=bool),
        log_prior=optuna_prior.default_log_prior,
        minimum_noise=optuna_prior.DEFAULT_MINIMUM_NOISE_VAR,
        deterministic_objective=False,
    )

    def predict(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            mean, variance = model.posterior(torch.from_numpy(points))
        return mean.numpy(), np.sqrt(variance.numpy() + float(model.noise_var))

    return predict


def forest(X: np.ndarray, y: np.ndarray) -> Predict:
    model = RandomForestRegressor(100, min_samples_leaf=2, random_state=0).fit(X, y)

    def predict(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        trees = np.array([tree.predict(points) for tree in model.estimators_])
        return trees.mean(axis=0), np.maximum(trees.std(axis=0), 0.05)

    return predict


LIBRARIES = {
    "own (NumPy, SciPy)": own,
    "scikit-learn `GaussianProcessRegressor`": scikit_learn,
    "Optuna's private `_gp` (torch)": of_optuna,
    "scikit-learn `RandomForestRegressor`": forest,
}


def points_of(name: str, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and values of successes among random points, enough for all sizes and the test."""
    made = problem(name, 100 + draw)
    space = Space(made.space)
    rng = np.random.default_rng(draw)
    configurations: list[dict[str, object]] = []
    values: list[float] = []
    while len(values) < SIZES[-1] + N_TEST:
        (params,) = space.configurations(random_rows(space, 1, rng))
        outcome = made.evaluate(params)
        if outcome.counts and outcome.value is not None:
            configurations.append(params)
            values.append(outcome.value)
    return Encoder(space, configurations).inputs(configurations), to_targets(np.array(values))


def measure(library: str, name: str, draw: int, n: int, X: np.ndarray, y: np.ndarray) -> Run:
    points, truth = X[-N_TEST:], y[-N_TEST:]
    mean, scale = y[:n].mean(), y[:n].std()
    start = time.process_time()
    predict = LIBRARIES[library](X[:n], (y[:n] - mean) / scale)
    fitted = time.process_time()
    predicted, deviation = predict(points)
    end = time.process_time()
    density = stats.norm.logpdf(truth, predicted * scale + mean, deviation * scale)
    correlation = stats.spearmanr(predicted, truth).statistic
    return Run(
        library, name, draw, n, fitted - start, end - fitted, correlation, float(density.mean())
    )


def table(runs: list[Run]) -> str:
    lines = [
        "Inputs: 10 to 19. Seconds of one core. From nothing, medians over "
        f"{', '.join(PROBLEMS)}, random points.",
        "",
        "| library | trials | fit, s | predict 1,000, s | rank correlation | log density |",
        "|---|---|---|---|---|---|",
    ]
    for library in LIBRARIES:
        for n in SIZES:
            rows = [run for run in runs if (run.library, run.n) == (library, n)]
            if not rows:
                continue
            fields = ("fit_seconds", "predict_seconds", "correlation", "log_density")
            fit_, predict, correlation, density = (
                float(np.median([getattr(run, field) for run in rows])) for field in fields
            )
            lines.append(
                f"| {library} | {n} | {fit_:.2f} | {predict:.3f} | {correlation:.3f} | "
                f"{density:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    runs: list[Run] = []
    for name in PROBLEMS:
        for draw in range(N_DRAWS):
            X, y = points_of(name, draw)
            for library in LIBRARIES:
                for n in SIZES:
                    if n <= LARGEST.get(library, n):
                        runs.append(measure(library, name, draw, n, X, y))
                        print(runs[-1], flush=True)
            keep("critic_models", table(runs), runs)
    print(table(runs))


if __name__ == "__main__":
    main()
