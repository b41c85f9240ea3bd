"""The state of CMA-ES. No other module reads the internals of ``cmaes``.

Notation, that of Hansen's tutorial (arXiv:1604.00772) and of ``cmaes``:

    n          number of numerical parameters
    m          mean, (n,), in the unit cube that Optuna scales the search space to
    sigma      step size
    C          covariance, (n, n); a sample is x ~ N(m, sigma^2 C)
    y          step of a point in units of sigma: (x - m) / sigma
    |y|_C      Mahalanobis norm, |C^(-1/2) y|
    w          recombination weights of the parents, the best first, (mu,); they sum to 1
    y_w        step of the mean before it is scaled by sigma, sum of w_i y_i over the parents
    p_sigma    evolution path of the step size, (n,)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from functools import lru_cache
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from .internals import _SearchSpaceTransform


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution


@dataclass(frozen=True, eq=False)
class CmaState:
    """The distribution that CMA-ES samples from, and what limits its next step.

    Attributes:
        generation: Generations learned so far.
        population_size: Points that make a generation.
        mean: m, (n,).
        sigma: Step size.
        covariance: C, (n, n); diagonal for separable CMA-ES.
        weights: w, (mu,).
        p_sigma: Evolution path of the step size, (n,).
        c_sigma: Learning rate of the path.
        d_sigma: Damping of the step size.
        chi_n: Expected length of a standard normal vector.
        margin_scale: A of CMA-ES with margin, (n,): how much wider than its model a discrete
            coordinate is sampled; 1 without margin.
    """

    generation: int
    population_size: int
    mean: np.ndarray
    sigma: float
    covariance: np.ndarray
    weights: np.ndarray
    p_sigma: np.ndarray
    c_sigma: float
    d_sigma: float
    chi_n: float
    margin_scale: np.ndarray

    @property
    def standard_deviations(self) -> np.ndarray:
        """Standard deviations of the samples along the axes of the unit cube, (n,)."""
        return self.sigma * self.margin_scale * np.sqrt(np.diag(self.covariance))

    @property
    def correlations(self) -> np.ndarray:
        """Correlations between the coordinates, (n, n)."""
        scale = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(scale, scale)

    def whiten(self, steps: np.ndarray) -> np.ndarray:
        """Compute C^(-1/2) y for each row y, (k, n) -> (k, n)."""
        eigenvalues, B = np.linalg.eigh((self.covariance + self.covariance.T) / 2)
        D = np.sqrt(np.maximum(eigenvalues, 1e-16))
        return steps @ B @ np.diag(1 / D) @ B.T


def read_state(optimizer: Any) -> CmaState:
    """Copy what is needed out of a ``cmaes.CMA``, ``CMAwM`` or ``SepCMA``."""
    cma = getattr(optimizer, "_cma", optimizer)  # CMAwM wraps a CMA
    n = cma.dim
    covariance = cma._C if cma._C.ndim == 2 else np.diag(cma._C)  # SepCMA keeps the diagonal
    return CmaState(
        generation=int(cma.generation),
        population_size=int(cma.population_size),
        mean=np.array(cma.mean),
        sigma=float(cma._sigma),
        covariance=np.array(covariance),
        weights=np.array(cma._weights[: cma._mu]),
        p_sigma=np.array(cma._p_sigma),
        c_sigma=float(cma._c_sigma),
        d_sigma=float(cma._d_sigma),
        chi_n=float(cma._chi_n),
        # A CMAwM without discrete coordinates has no A.
        margin_scale=np.array(getattr(optimizer, "_A", np.ones(n))),
    )


@lru_cache(maxsize=64)
def default_population_size(n: int) -> int:
    """Return the population size that ``cmaes`` chooses for n parameters."""
    import cmaes

    return int(cmaes.CMA(mean=np.zeros(n), sigma=1.0).population_size)


def clip_steps(state: CmaState, points: np.ndarray) -> np.ndarray:
    """Draw points that are too far to be samples towards the mean, (k, n) -> (k, n).

    Hansen, Injecting external solutions into CMA-ES (arXiv:1110.4181), eq. 4:
    |y|_C <= c_y = sqrt(n) + 2n / (n + 2). In 13 dimensions 99.2 % of genuine samples are nearer.
    """
    n = len(state.mean)
    c_y = math.sqrt(n) + 2 * n / (n + 2)
    steps = (points - state.mean) / state.sigma
    norms = np.linalg.norm(state.whiten(steps), axis=1, keepdims=True)
    return state.mean + state.sigma * steps * np.minimum(1, c_y / np.maximum(norms, 1e-300))


def limit_mean_step(state: CmaState, parents: np.ndarray) -> np.ndarray:
    """Shorten the parents' steps where they would move the mean or grow sigma too far.

    Two limits, each met by a common factor on the steps of all the parents, (mu, n) -> (mu, n):

    - Of the mean's step (Hansen, arXiv:1110.4181, table 1):
      sqrt(mu_eff) |y_w|_C <= c_ym = sqrt(2n) + 2n / (n + 2).
    - Of the step size, which is to grow by at most the factor e in a generation (delta_sigma = 1
      there). As sigma grows by exp(c_sigma / d_sigma (|p_sigma| / chi_n - 1)), that is
      |p_sigma| <= chi_n (1 + d_sigma / c_sigma).

    Both are reached by changing what is told, never the optimizer: its pickle in the storage
    stays one of ``cmaes``'s own, which every process and plain CmaEsSampler can read.
    """
    n = len(state.mean)
    mu_eff = 1 / np.sum(state.weights**2)
    steps = (parents - state.mean) / state.sigma
    z_w = math.sqrt(mu_eff) * state.whiten((state.weights @ steps)[None])[0]  # ~ N(0, I)
    length = float(np.linalg.norm(z_w))
    if length == 0:
        return parents
    factor = min(1.0, (math.sqrt(2 * n) + 2 * n / (n + 2)) / length)

    # p_sigma' = a + factor * b; the largest factor with |p_sigma'| <= limit solves a quadratic.
    limit = state.chi_n * (1 + state.d_sigma / state.c_sigma)
    a = (1 - state.c_sigma) * state.p_sigma
    b = math.sqrt(state.c_sigma * (2 - state.c_sigma)) * z_w
    if np.linalg.norm(a + factor * b) > limit:
        room = max(limit**2 - a @ a, 0.0)
        factor = (-(a @ b) + math.sqrt((a @ b) ** 2 + (b @ b) * room)) / (b @ b)
    return state.mean + state.sigma * factor * steps


class UnitCube:
    """Optuna's map between numerical parameters and the cube in which CMA-ES works.

    It adds to ``_SearchSpaceTransform`` the way back without rounding: a mean or a clipped point
    lies between the values that a parameter can have.

    Args:
        space: Numerical parameters only.
        with_margin: Whether discrete coordinates are handled by CMA-ES with margin.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], *, with_margin: bool) -> None:
        self.space = dict(space)
        self.with_margin = with_margin
        self._step = not with_margin  # as in CmaEsSampler.sample_relative

    # Most turns need neither.
    @cached_property
    def transform(self) -> _SearchSpaceTransform:
        """Optuna's own map into the cube."""
        return _SearchSpaceTransform(self.space, transform_step=self._step, transform_0_1=True)

    @cached_property
    def _bounds(self) -> np.ndarray:
        return _SearchSpaceTransform(self.space, transform_step=self._step).bounds

    def points(self, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return the coordinates of k configurations, (k, n)."""
        return np.array([self.transform.transform(dict(c)) for c in configurations])

    def values(self, x: np.ndarray) -> dict[str, float]:
        """Return the values at a point, (n,), in the parameters' own units and not rounded."""
        low, high = self._bounds[:, 0], self._bounds[:, 1]
        raw = low + x * (high - low)
        return {
            name: math.exp(value) if _is_log(distribution) else float(value)
            for (name, distribution), value in zip(self.space.items(), raw)
        }


def _is_log(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, (FloatDistribution, IntDistribution)) and distribution.log
