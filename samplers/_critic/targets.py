"""Values as targets of a regression: resolution near the best, and no outliers."""

from __future__ import annotations

import numpy as np


_FURTHEST = 20.0  # distances from the best value to the median
_LARGEST = 1e308  # of halves of distances, so that c may be added


def to_targets(values: np.ndarray) -> np.ndarray:
    """log(value - best + c), standardized, (n,) -> (n,).

    c is a quarter of the distance from the best value to the median: near the best the target is
    as good as linear. A value that is further than 20 times that distance from the best counts as
    one that is so far: a training that diverged may have any value, such as 1e9, whose logarithm
    alone would leave the others no resolution.

    Args:
        values: Finite, lower is better, (n,).

    Returns:
        Of mean 0 and standard deviation 1; zeros if the values are all equal.
    """
    if not len(values):
        return np.zeros(0)
    # Of halves, since two floats may be further apart than a float is large.
    distance = np.minimum(values / 2 - values.min() / 2, _LARGEST)
    c = np.median(distance / 4)
    if c == 0:  # Half of them are equally good: the median of the others.
        c = np.median(distance[distance > 0] / 4) if distance.any() else 0.0
    if c == 0:
        return np.zeros(len(values))
    # In this order nothing overflows.
    targets = np.log(4 * _FURTHEST * np.minimum(distance / (4 * _FURTHEST), c) + c)
    return (targets - targets.mean()) / targets.std()
