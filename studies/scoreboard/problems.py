"""Problems to minimize: a search space, a function, and numbers that make regrets comparable.

==============  ==================================================================================
regret          value - optimum. The optimum is the suite's own where it has one, the least entry
                of a table, and otherwise the least value that is known
normalized      regret / (reference - optimum), where the reference is the median value of 1,000
                points that were drawn at random, the same for all samplers, of those that count: 0
                is the optimum, 1 is what half of such points reach
==============  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
import math
from typing import Any
from typing import Literal

import numpy as np
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution

from studies.errors import Misuse


N_REFERENCE = 1000

# Of the search space, in the problems with a region where evaluations fail.
FAILING_SHARE = 0.3
_N_DIRECTIONS = 32

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The outcome of an evaluation.

    Attributes:
        value: To be minimized. Of a failure the value that stands for it, None if the trial is to
            have the state FAIL.
        status: ``ok``, or the class of a failure.
        constraints: Name -> value, above 0 where the constraint is violated.
    """

    value: float | None
    status: str = "ok"
    constraints: Mapping[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """True if the value may be a run's best: no failure, no violated constraint."""
        return self.status == "ok" and all(value <= 0 for value in self.constraints.values())


@dataclass(frozen=True)
class Problem:
    """One function to minimize.

    Attributes:
        space: The parameters.
        evaluate: A value for each of them -> what it comes to; the same whenever it is asked.
        optimum: Least value of all that count.
        best: Parameters of the optimum; None if the optimum is only the least value that is known.
        task: What is tuned, in words for a language model.
    """

    space: Mapping[str, BaseDistribution]
    evaluate: Callable[[Params], Outcome]
    optimum: float
    best: Params | None = None
    task: str = ""

    @cached_property
    def reference(self) -> float:
        """Median value of random points, of those that count."""
        return float(np.median(self._reference_values))

    @cached_property
    def scale(self) -> float:
        """The divisor of normalized regrets."""
        return self.reference - self.optimum

    @cached_property
    def failure_value(self) -> float:
        """Stands for a failure: twice as far from the optimum as the worst random point."""
        return self.optimum + 2 * (max(self._reference_values) - self.optimum)

    @cached_property
    def _reference_values(self) -> Sequence[float]:
        outcomes = [self.evaluate(params) for params in draw(self.space, N_REFERENCE)]
        values = [o.value for o in outcomes if o.counts and o.value is not None]
        if not values:
            raise Misuse(
                f"Of {N_REFERENCE} random points one must satisfy a problem's constraints, to "
                "compare regrets with, but none does: choose another problem."
            )
        return values


def draw(space: Mapping[str, BaseDistribution], n: int) -> list[dict[str, Any]]:
    """Draw ``n`` random points of a search space, the same ones every time."""
    cube = _cube(space)
    rng = np.random.default_rng(0)
    return [cube.untransform(rng.random(len(cube.bounds))) for _ in range(n)]


def with_failures(problem: Problem, kind: Literal["fail", "oom"], seed: int) -> Problem:
    """Make evaluations fail in a share of 0.3 of the problem's search space.

    The region lies on one side of a plane through the unit cube of the search space. Of 64 planes
    (32 random normals, both ways) it is the one that the optimum is closest to on the other side:
    as the best model is often almost too large for the memory.

    Args:
        problem: With a known place of its optimum.
        kind: ``fail`` gives trials of the state FAIL, ``oom`` completes them with the status
            ``oom`` and the failure value.
        seed: Of the normals.
    """
    if problem.best is None:
        raise ValueError("Failures are put beside a known optimum, but this problem has none.")
    cube = _cube(problem.space)
    points = np.array([cube.transform(params) for params in draw(problem.space, N_REFERENCE)])
    normals = np.random.default_rng([seed, 1]).standard_normal((_N_DIRECTIONS, points.shape[1]))
    normals = np.concatenate([normals, -normals])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    thresholds = np.quantile(points @ normals.T, 1 - FAILING_SHARE, axis=0)
    margins = thresholds - normals @ cube.transform(dict(problem.best))
    # If it fails by a plane, then it does not by the same one the other way.
    chosen = int(np.argmin(np.where(margins >= 0, margins, np.inf)))
    normal, threshold = normals[chosen], thresholds[chosen]
    failure = Outcome(problem.failure_value if kind == "oom" else None, kind)

    def evaluate(params: Params) -> Outcome:
        if normal @ cube.transform(dict(params)) > threshold:
            return failure
        return problem.evaluate(params)

    return replace(problem, evaluate=evaluate)


def _cube(space: Mapping[str, BaseDistribution]) -> _SearchSpaceTransform:
    """Map parameters to [0, 1]^d: logarithms of logarithmic ranges, choices one-hot."""
    return _SearchSpaceTransform(dict(space), transform_0_1=True)


def normalize(regret: float, least: float, scale: float) -> float:
    """Return a run's regret as a share of a random trial's, at most 1.

    Args:
        regret: Infinite if nothing counted so far.
        least: The least regret that any run reached; below 0 where the optimum is not known, and
            then what regrets are counted from.
        scale: The problem's.
    """
    least = min(least, 0.0)
    return min(1.0, (regret - least) / (scale - least)) if math.isfinite(regret) else 1.0
