"""Regret after 100 trials: SMACSampler, SMAC's own optimize(), CMA-ES, TPE and random search.

    OMP_NUM_THREADS=1 LOKY_MAX_CPU_COUNT=1 python -m tests.benchmarks.smac_regret --processes 2

(``LOKY_MAX_CPU_COUNT=1`` keeps SMAC's own forest from starting threads. It changes no result.)

Six functions to minimize, ten seeds. A seed fixes the function's instance and the method's own seed,
so that methods are compared in pairs. Four functions are those of the BBOB test suite of these numbers
in 10 dimensions, written down from their definitions [1]: f1 sphere, f3 Rastrigin, f8 Rosenbrock, f14
different powers. ``mixed`` has the shape of a training run's search space (logarithmic and linear
floats and ints, a stepped float, two categories that interact with the numbers). ``failing`` is f1
with a plane at distance 1 from the optimum beyond which every evaluation raises an exception: a third
of the domain or more. SMAC's facade needs a cost for that (``crash_cost``), and gets 1000.

A run's regret is its lowest value minus the function's minimum. Rows are appended to
``results/smac_regret.csv`` as runs end; runs whose row is there are not repeated, so that a broken run
is continued by the same command. ``results/smac_regret.md`` is made from all rows at the end, or by
``--report`` from those that are there.

[1] N. Hansen, S. Finck, R. Ros, A. Auger. Real-Parameter Black-Box Optimization Benchmarking 2009:
    Noiseless Functions Definitions. INRIA research report RR-6829, 2009.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
import csv
from dataclasses import dataclass
import itertools
import logging
import math
import multiprocessing
from pathlib import Path
from tempfile import TemporaryDirectory
import time
from typing import Any
from typing import TYPE_CHECKING

from ConfigSpace import Categorical
from ConfigSpace import ConfigurationSpace
from ConfigSpace import Float
from ConfigSpace import Integer
import numpy as np
import optuna
from scipy.stats import wilcoxon

from samplers.smac import SMACSampler
from smac import HyperparameterOptimizationFacade
from smac import Scenario


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna.samplers import BaseSampler

N_TRIALS = 100
DIMENSION = 10
CRASH_COST = 1000.0
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Problem:
    """A function with minimum 0 and its search space, for Optuna and for ConfigSpace."""

    suggest: Callable[[optuna.Trial], dict[str, Any]]
    configspace: Callable[[], ConfigurationSpace]
    evaluate: Callable[[Mapping[str, Any]], float]


class Failure(Exception):
    """An evaluation in the failing region."""


def oscillate(x: np.ndarray) -> np.ndarray:
    """T_osz of [1], section 0.2: small waves on a coordinate, the identity's sign and fixed 0."""
    log = np.log(np.abs(x), where=x != 0, out=np.zeros_like(x))
    c1 = np.where(x > 0, 10.0, 5.5)
    c2 = np.where(x > 0, 7.9, 3.1)
    return np.sign(x) * np.exp(log + 0.049 * (np.sin(c1 * log) + np.sin(c2 * log)))


def skew(x: np.ndarray, beta: float) -> np.ndarray:
    """T_asy of [1], section 0.2: positive coordinates grow faster than linearly."""
    exponent = 1 + beta * np.linspace(0, 1, len(x)) * np.sqrt(np.maximum(x, 0))
    return np.where(x > 0, np.maximum(x, 0) ** exponent, x)


def bbob(number: int, seed: int) -> Callable[[np.ndarray], float]:
    """Return a BBOB function shifted so that its minimum is 0, with an optimum from the seed."""
    rng = np.random.default_rng(seed)
    optimum = rng.uniform(-4, 4, DIMENSION)
    rotation = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0]
    ramp = np.linspace(0, 1, DIMENSION)

    def sphere(x: np.ndarray) -> float:
        return float(np.sum((x - optimum) ** 2))

    def rastrigin(x: np.ndarray) -> float:
        z = 10 ** (ramp / 2) * skew(oscillate(x - optimum), 0.2)
        return float(10 * (DIMENSION - np.sum(np.cos(2 * np.pi * z))) + np.sum(z**2))

    def rosenbrock(x: np.ndarray) -> float:
        # In [1] this function's optimum lies in [-3, 3]^D.
        z = max(1, math.sqrt(DIMENSION) / 8) * (x - 0.75 * optimum) + 1
        return float(np.sum(100 * (z[:-1] ** 2 - z[1:]) ** 2 + (z[:-1] - 1) ** 2))

    def different_powers(x: np.ndarray) -> float:
        return math.sqrt(np.sum(np.abs(rotation @ (x - optimum)) ** (2 + 4 * ramp)))

    return {1: sphere, 3: rastrigin, 8: rosenbrock, 14: different_powers}[number]


NAMES = [f"x{i}" for i in range(DIMENSION)]


def box(function: Callable[[np.ndarray], float]) -> Problem:
    """Return a problem over [-5, 5]^10."""
    return Problem(
        lambda trial: {name: trial.suggest_float(name, -5, 5) for name in NAMES},
        lambda: ConfigurationSpace({name: (-5.0, 5.0) for name in NAMES}),
        lambda params: function(np.array([params[name] for name in NAMES])),
    )


def failing(seed: int) -> Problem:
    sphere = bbob(1, seed)
    rng = np.random.default_rng(seed)
    optimum = rng.uniform(-4, 4, DIMENSION)
    normal = np.random.default_rng([seed, 1]).standard_normal(DIMENSION)
    # Of the two sides, the one that holds the centre of the domain or more.
    normal *= -np.sign(normal @ optimum) / np.linalg.norm(normal)

    def function(x: np.ndarray) -> float:
        if normal @ (x - optimum) > 1:  # The domain is 10 wide.
            raise Failure
        return sphere(x)

    return box(function)


def mixed(seed: int) -> Problem:
    """Return a bowl over eight parameters of all types, where the categories move the optimum."""
    rng = np.random.default_rng(seed)
    # Where each optimizer and each schedule like the six numbers, in the unit cube.
    by_optimizer = rng.uniform(0.15, 0.85, (4, 6))
    by_schedule = rng.uniform(-0.1, 0.1, (3, 6))
    offsets = rng.permutation([0.0, 0.05, 0.1, 0.4])
    schedule_offsets = rng.permutation([0.0, 0.05, 0.2])
    weights = np.array([4.0, 2.0, 1.0, 0.5, 1.0, 0.5])
    optimizers = ["sgd", "adam", "lion", "muon"]
    schedules = ["constant", "linear", "cosine"]

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        return {
            "lr": trial.suggest_float("lr", 1e-5, 1, log=True),
            "decay": trial.suggest_float("decay", 1e-6, 1e-1, log=True),
            "width": trial.suggest_int("width", 8, 512, log=True),
            "depth": trial.suggest_int("depth", 1, 12),
            "dropout": trial.suggest_float("dropout", 0, 0.6, step=0.05),
            "momentum": trial.suggest_float("momentum", 0, 0.99),
            "optimizer": trial.suggest_categorical("optimizer", optimizers),
            "schedule": trial.suggest_categorical("schedule", schedules),
        }

    def configspace() -> ConfigurationSpace:
        space = ConfigurationSpace()
        space.add(
            Float("lr", (1e-5, 1.0), log=True),
            Float("decay", (1e-6, 1e-1), log=True),
            Integer("width", (8, 512), log=True),
            Integer("depth", (1, 12)),
            Integer("dropout_steps", (0, 12)),
            Float("momentum", (0.0, 0.99)),
            Categorical("optimizer", optimizers),
            Categorical("schedule", schedules),
        )
        return space

    def evaluate(params: Mapping[str, Any]) -> float:
        dropout = params["dropout"] if "dropout" in params else 0.05 * params["dropout_steps"]
        unit = np.array(
            [
                (math.log10(params["lr"]) + 5) / 5,
                (math.log10(params["decay"]) + 6) / 5,
                math.log(params["width"] / 8) / math.log(64),
                (params["depth"] - 1) / 11,
                dropout / 0.6,
                params["momentum"] / 0.99,
            ]
        )
        i = optimizers.index(params["optimizer"])
        j = schedules.index(params["schedule"])
        distance = unit - by_optimizer[i] - by_schedule[j]
        return float(weights @ distance**2 + offsets[i] + schedule_offsets[j])

    return Problem(suggest, configspace, evaluate)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "f1 sphere": lambda seed: box(bbob(1, seed)),
    "f3 Rastrigin": lambda seed: box(bbob(3, seed)),
    "f8 Rosenbrock": lambda seed: box(bbob(8, seed)),
    "f14 different powers": lambda seed: box(bbob(14, seed)),
    "mixed": mixed,
    "failing": failing,
}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "SMACSampler": lambda seed: SMACSampler(seed=seed),
    "CmaEsSampler": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
    "TPESampler": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "RandomSampler": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
FACADE = "smac optimize()"
METHODS = ["SMACSampler", FACADE, "CmaEsSampler", "TPESampler", "RandomSampler"]


def values_of_sampler(problem: Problem, sampler: BaseSampler) -> list[float]:
    """Return the values of a run in order, infinite where an evaluation failed."""
    values: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        params = problem.suggest(trial)
        values.append(math.inf)
        values[-1] = problem.evaluate(params)
        return values[-1]

    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=N_TRIALS, catch=(Failure,))
    return values


def values_of_facade(problem: Problem, seed: int) -> list[float]:
    values: list[float] = []

    def target(config: Any, seed: int = 0) -> float:
        values.append(math.inf)
        values[-1] = problem.evaluate(dict(config))
        return values[-1]

    with TemporaryDirectory() as folder:
        scenario = Scenario(
            problem.configspace(),
            deterministic=True,
            n_trials=N_TRIALS,
            seed=seed,
            crash_cost=CRASH_COST,
            output_directory=Path(folder),
        )
        HyperparameterOptimizationFacade(scenario, target, logging_level=False).optimize()
    return values


def run(job: tuple[str, str, int]) -> list[str]:
    """Run one method on one function and return its row."""
    name, method, seed = job
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    logging.getLogger("smac").setLevel(logging.CRITICAL)
    problem = PROBLEMS[name](seed)
    start = time.perf_counter()
    if method == FACADE:
        values = values_of_facade(problem, seed)
    else:
        values = values_of_sampler(problem, SAMPLERS[method](seed))
    seconds = time.perf_counter() - start
    n_failed = sum(map(math.isinf, values))
    numbers = [f"{min(values[: N_TRIALS // 2]):.6g}", f"{min(values):.6g}"]
    return [name, method, str(seed), str(len(values)), str(n_failed), *numbers, f"{seconds:.1f}"]


def report(path: Path) -> str:
    """Return the table of medians and the paired comparisons with SMACSampler."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    regret = {(r["function"], r["method"], int(r["seed"])): float(r["regret_100"]) for r in rows}
    lines = [
        f"Regret after {N_TRIALS} trials, median (quartiles) over seeds:",
        "",
        "| function | seeds | " + " | ".join(METHODS) + " |",
        "|---" * (2 + len(METHODS)) + "|",
    ]
    for name in PROBLEMS:
        cells = []
        n_seeds = 0
        for method in METHODS:
            of_method = [v for (f, m, _), v in regret.items() if (f, m) == (name, method)]
            n_seeds = max(n_seeds, len(of_method))
            if of_method:
                low, median, high = np.percentile(of_method, [25, 50, 75])
                cells.append(f"{median:.3g} ({low:.3g} to {high:.3g})")
            else:
                cells.append("-")
        lines.append(f"| {name} | {n_seeds} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "SMACSampler's regret over another method's on the same instance, geometric mean "
        "(below 1: SMACSampler is better), and how often it is lower:",
        "",
        "| function | " + " | ".join(METHODS[1:]) + " |",
        "|---" * len(METHODS) + "|",
    ]
    for name in [*PROBLEMS, "all"]:
        cells = []
        for method in METHODS[1:]:
            ratios = np.array(
                [
                    math.log(value / regret[f, method, seed])
                    for (f, m, seed), value in regret.items()
                    if m == "SMACSampler" and name in (f, "all") and (f, method, seed) in regret
                ]
            )
            if not len(ratios):
                cells.append("-")
                continue
            cell = f"{math.exp(ratios.mean()):.2f}, {np.sum(ratios < 0)} of {len(ratios)}"
            if name == "all":
                cell += f", Wilcoxon p = {wilcoxon(ratios).pvalue:.2g}"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only make the table again")
    arguments = parser.parse_args()

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "smac_regret.csv"
    if not path.exists():
        path.write_text("function,method,seed,trials,failed_trials,regret_50,regret_100,seconds\n")
    with open(path, newline="") as file:
        done = {(row["function"], row["method"], int(row["seed"])) for row in csv.DictReader(file)}
    jobs = [
        (name, method, seed)
        for seed, name, method in itertools.product(range(arguments.seeds), PROBLEMS, METHODS)
        if (name, method, seed) not in done and not arguments.report
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        for i, row in enumerate(pool.map(run, jobs)):
            with open(path, "a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
            print(f"{i + 1} of {len(jobs)}:", *row, flush=True)
    table = report(path)
    (RESULTS / "smac_regret.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
