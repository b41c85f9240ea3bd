"""How likely a configuration is to satisfy the constraints, by how far trials are from violating them.

Notation:

    n, k    trials whose constraints are known, and constraints
    X       their inputs, (n, d)
    C       their constraints, above 0 where they are violated, (n, k)

A Gaussian process of these values says more than one of yes and no does: where the border lies
between two trials, and how far from it others are. As M. A. Gelbart, J. Snoek and R. P. Adams
(Bayesian Optimization with Unknown Constraints, UAI 2014, arXiv:1403.5607) do, the improvement is
multiplied by the probability that the constraints are satisfied; one process of the most violated
one stands for all, so that many constraints cost no more than one.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from .gp import fit
from .gp import GaussianProcess


_FURTHEST = 30.0  # sizes from the border
_LARGEST = 8e307


class Constraints:
    """Tells the probability that a trial satisfies its constraints.

    Args:
        X: Inputs, (n, d).
        C: Constraints, (n, k).
        theta: Hyperparameters, see `fit_constraints`.
    """

    def __init__(self, X: np.ndarray, C: np.ndarray, theta: np.ndarray) -> None:
        targets, self._border = _standardized(C)
        self._process = GaussianProcess(X, targets, theta)

    def log_p_ok(self, X: np.ndarray) -> np.ndarray:
        """Log probability that each of m inputs satisfies the constraints, (m, d) -> (m,)."""
        mean, deviation = self._process.predict(X)
        return np.asarray(special.log_ndtr((self._border - mean) / deviation))


def fit_constraints(X: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Hyperparameters for `Constraints`, (d + 3,)."""
    return fit(X, _standardized(C)[0])


def excess(C: np.ndarray) -> np.ndarray:
    """The largest constraint of each trial, each in units of its own size, (n, k) -> (n,).

    The size is the median of what violates it or of what satisfies it, whichever is less.
    """
    return np.asarray(np.max([_scaled(c) for c in C.T], axis=0))


def _scaled(c: np.ndarray) -> np.ndarray:
    c = np.clip(c, -_LARGEST, _LARGEST)  # a median adds two of them
    sides = [np.median(np.abs(c[side])) for side in (c > 0, c < 0) if side.any()]
    with np.errstate(over="ignore"):  # a value may stand for what can't be computed
        scaled = np.clip(c / min(sides, default=1.0), -_FURTHEST, _FURTHEST)
    # Of max(0, c) the border is somewhere between what is 0 and what isn't.
    return scaled if (c < 0).any() else np.where(c == 0, -1.0, scaled)


def _standardized(C: np.ndarray) -> tuple[np.ndarray, float]:
    """Targets, (n,), of mean 0 and standard deviation 1, and the one above which some are violated.

    They have resolution near the border: 30 sizes from it are 5 times as far as one is, and so is
    all beyond.
    """
    found = excess(C)
    targets = np.sign(found) * np.log1p(np.abs(found))
    mean, deviation = float(targets.mean()), float(targets.std()) or 1.0
    return (targets - mean) / deviation, -mean / deviation
