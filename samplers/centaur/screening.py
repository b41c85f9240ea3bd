"""Which candidates there are on a turn.

The turns that no language model has follow a schedule that depends on nothing but their number:

======================  =========================================================================
turn                    candidates
======================  =========================================================================
the first ones          a random one, from all of the ranges or from around their middle
until ``STEPS_ALONE``   steps from the best trials, and random ones, lest a search ends where it
                        began: CMA-ES in a dozen dimensions knows too little of them to be worth a
                        trial
later                   steps on ``STEP_SHARE`` of the turns, samples of CMA-ES on the others
======================  =========================================================================

A pool of steps and samples in every turn is worse than turns of their own: the model of the trials
prefers what is near the best.
"""

from __future__ import annotations

import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution

from .._trials.history import limited


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution

    from .state import CmaState
    from .state import UnitCube

# Who proposed what is run, and who chose it: values of user attributes.
STEPS = "steps"
CMA_ES = "cma-es"
RANDOM = "random"
MODEL = "llm"
CRITIC = "critic"

# Trials with a value from which on they tell what is better than chance.
N_RANDOM = 8
# The same where the first trials were given, and are far ahead.
N_RANDOM_IF_AHEAD = 3
STEPS_ALONE = 100
STEP_SHARE = 0.3

N_STEPS = 300
N_ANYWHERE = 250
N_SAMPLES = 60
N_NEW = 20

# Of CMA-ES's samples so many get categories at random, the others those of one of the best trials.
_RANDOM_CATEGORIES = 0.2
_N_BEST = 4


def is_step_turn(number: int) -> bool:
    """Whether candidates are steps on this turn, counting those that no language model has."""
    return number < STEPS_ALONE or is_of_share(number - STEPS_ALONE, STEP_SHARE)


def is_of_share(k: int, share: float) -> bool:
    """Whether turn k, counted from 0, is of a share: floor(n * share) of any first n are."""
    epsilon = 1e-9  # 10 * 0.3 is 3, which floating point may miss
    return math.floor((k + 1) * share + epsilon) > math.floor(k * share + epsilon)


def is_ahead(given: Sequence[float], others: Sequence[float]) -> bool:
    """Whether the best of the configurations that were given beats chance by far.

    It does if it is further ahead of the best of the others than that one is of their median: then
    random trials would be wasted.

    Args:
        given: Values of what was enqueued or a language model proposed, lower is better.
        others: Values of the other trials.
    """
    if not given or len(others) < N_RANDOM_IF_AHEAD:
        return False
    given, others = ([limited(v) for v in values] for values in (given, others))
    best = min(others)
    return best - min(given) > float(np.median(others)) - best


def cma_samples(
    state: CmaState,
    cube: UnitCube,
    best: Sequence[Mapping[str, Any]],
    space: Mapping[str, BaseDistribution],
    n: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Samples of CMA-ES's present distribution, with what CMA-ES doesn't sample from the best.

    Args:
        state: CMA-ES's.
        cube: The numerical parameters that it knows.
        best: The best configurations, the best first; one at least.
        space: The whole search space.
        n: How many.
        rng: Source of randomness.
    """
    eigenvalues, B = np.linalg.eigh((state.covariance + state.covariance.T) / 2)
    D = np.sqrt(np.maximum(eigenvalues, 0.0))
    z = rng.standard_normal((n, len(state.mean)))
    x = state.mean + state.sigma * state.margin_scale * (z * D @ B.T)  # ~ N(m, sigma^2 C)
    samples = []
    for x_i in np.clip(x, 0.0, 1.0):
        others = dict(best[int(rng.integers(min(_N_BEST, len(best))))])
        for name in others:
            distribution = space[name]
            if isinstance(distribution, CategoricalDistribution):
                if rng.random() < _RANDOM_CATEGORIES:
                    others[name] = distribution.choices[
                        int(rng.integers(len(distribution.choices)))
                    ]
        samples.append({**others, **cube.transform.untransform(x_i)})
    return samples
