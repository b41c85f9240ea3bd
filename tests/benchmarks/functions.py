"""Test functions with a region in which an evaluation fails, as a training runs out of memory.

Each is a function of an Optuna trial. Its minimum, about 0, is feasible and near failures, as the
best model size is near the largest that fits into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution


FAILURE_VALUE = 100.0


@dataclass(frozen=True)
class Function:
    """A search space, a loss on it, and where an evaluation fails.

    Attributes:
        space: The parameters.
        loss: Values -> loss, at least 0.
        fails: Values -> whether the evaluation fails.
    """

    space: Mapping[str, BaseDistribution]
    loss: Callable[[Mapping[str, Any]], float]
    fails: Callable[[Mapping[str, Any]], bool]

    def __call__(self, trial: optuna.Trial) -> float:
        """Evaluate as ``TrainScriptObjective`` does: a failure has a status and a value of 100."""
        params = {name: trial._suggest(name, d) for name, d in self.space.items()}
        if self.fails(params):
            trial.set_user_attr("status", "oom")
            return FAILURE_VALUE
        return self.loss(params)


def _continuous(n: int) -> dict[str, BaseDistribution]:
    return {f"x{i}": FloatDistribution(-5, 5) for i in range(n)}


def _vector(params: Mapping[str, Any]) -> np.ndarray:
    return np.array([params[f"x{i}"] for i in range(len(params))])


def _ellipsoid(params: Mapping[str, Any]) -> float:
    x = _vector(params) - 1.5
    return float(np.sum(10.0 ** np.linspace(0, 2, len(x)) * x**2)) / 1000


def _rosenbrock(params: Mapping[str, Any]) -> float:
    x = _vector(params)
    return float(np.sum(10 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)) / 1000


def _log_ratio(value: float, best: float) -> float:
    return math.log10(value / best)


# A network's capacity and optimizer, with the paper's kinds of parameters: the loss falls with
# size, rises when too few steps fit into the time, and its memory is depth x width x batch.
_NETWORK: dict[str, BaseDistribution] = {
    "depth": IntDistribution(2, 24),
    "width": IntDistribution(32, 1024, log=True),
    "batch": IntDistribution(8, 512, log=True),
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "embedding_lr": FloatDistribution(1e-3, 2.0, log=True),
    "weight_decay": FloatDistribution(0, 0.5),
    "warmup": FloatDistribution(0, 0.3),
    "warmdown": FloatDistribution(0.1, 0.8),
    "pattern": CategoricalDistribution(["SSSL", "SSLL", "SLSL", "LLLL", "SSSS"]),
}


def _network_loss(p: Mapping[str, Any]) -> float:
    best_lr = 0.03 * (256 / p["width"]) ** 0.5 * (p["batch"] / 64) ** 0.5
    return (
        0.3 * ((p["depth"] - 10) / 10) ** 2
        + 0.4 * _log_ratio(p["width"], 360) ** 2
        + 0.3 * _log_ratio(p["batch"], 64) ** 2
        + 0.4 * _log_ratio(p["lr"], best_lr) ** 2
        + 0.2 * _log_ratio(p["embedding_lr"], 0.3) ** 2
        + 0.5 * (p["weight_decay"] - 0.1) ** 2
        + 0.5 * (p["warmup"] - 0.05) ** 2
        + 0.3 * (p["warmdown"] - 0.6) ** 2
        + 0.02 * ["SSSL", "SSLL", "SLSL", "LLLL", "SSSS"].index(p["pattern"])
    )


def _network_fails(p: Mapping[str, Any]) -> bool:
    out_of_memory = p["depth"] * p["width"] * p["batch"] > 400_000
    diverges = p["lr"] > 0.4
    return bool(out_of_memory or diverges)


# Gradient boosting: few samples per leaf and deep trees fail; two choices interact.
_BOOSTING: dict[str, BaseDistribution] = {
    "eta": FloatDistribution(1e-3, 1.0, log=True),
    "rounds": IntDistribution(10, 2000, log=True),
    "max_depth": IntDistribution(1, 16),
    "min_child": IntDistribution(1, 100, log=True),
    "subsample": FloatDistribution(0.1, 1.0, step=0.05),
    "l2": FloatDistribution(1e-4, 100.0, log=True),
    "booster": CategoricalDistribution(["tree", "dart", "linear"]),
    "balanced": CategoricalDistribution([True, False]),
}


def _boosting_loss(p: Mapping[str, Any]) -> float:
    budget = _log_ratio(p["eta"] * p["rounds"], 20)
    return (
        0.3 * budget**2
        + 0.1 * _log_ratio(p["eta"], 0.05) ** 2
        + 0.5 * ((p["max_depth"] - 7) / 8) ** 2
        + 0.1 * _log_ratio(p["min_child"], 5) ** 2
        + 0.3 * (p["subsample"] - 0.7) ** 2
        + 0.05 * _log_ratio(p["l2"], 1) ** 2
        + {"tree": 0.0, "dart": 0.02, "linear": 0.1}[p["booster"]]
        + (0.0 if p["balanced"] else 0.03)
    )


def _boosting_fails(p: Mapping[str, Any]) -> bool:
    return bool(p["rounds"] * 2 ** (p["max_depth"] / 2) > 12_000 or p["max_depth"] > 13)


FUNCTIONS = {
    # Two thirds of the initial distribution fail, its mean among them; the minimum does not.
    "ellipsoid": Function(_continuous(10), _ellipsoid, lambda p: not 1 < p["x0"] + p["x1"] < 4.5),
    # Feasible is a band around the valley; a third of the initial distribution fails.
    "rosenbrock": Function(_continuous(6), _rosenbrock, lambda p: p["x1"] < -1 or p["x3"] > 2),
    "network": Function(_NETWORK, _network_loss, _network_fails),
    "boosting": Function(_BOOSTING, _boosting_loss, _boosting_fails),
}
