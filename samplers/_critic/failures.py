"""How likely a configuration is to fail.

Notation:

    n       trials of which it is known whether they failed
    X       their inputs, (n, d)
    failed  whether each did, (n,)

A Gaussian process on the labels 1 (failed) and -1 (did not), which is least-squares classification
(C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, MIT Press 2006,
section 6.5). The model of the values has all that it needs; a forest needs scikit-learn.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from .gp import fit
from .gp import GaussianProcess


# Trials that did not fail, which are supposed to have been before anything is known.
_SUPPOSED = 2
# Variance of a label for its own point: how sharp the border can be.
_LABEL_VARIANCE = 0.25


class Failures:
    """Tells the probability that a trial does not fail.

    Args:
        X: Inputs, (n, d).
        failed: Whether each failed, (n,).
        theta: Hyperparameters, see `fit_failures`.
    """

    def __init__(self, X: np.ndarray, failed: np.ndarray, theta: np.ndarray) -> None:
        self._mean, labels = _centred(failed)
        self._process = GaussianProcess(X, labels, theta)

    def log_p_ok(self, X: np.ndarray) -> np.ndarray:
        """Log probability that each of m inputs does not fail, (m, d) -> (m,)."""
        mean, deviation = self._process.predict(X)
        z = -(mean + self._mean) / np.sqrt(_LABEL_VARIANCE + deviation**2)
        return np.asarray(special.log_ndtr(z))


def fit_failures(X: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Hyperparameters for `Failures`, (d + 3,)."""
    return fit(X, _centred(failed)[1])


def _centred(failed: np.ndarray) -> tuple[float, np.ndarray]:
    """What a label is where nothing is known, and the labels less that."""
    labels = np.where(failed, 1.0, -1.0)
    mean = float((labels.sum() - _SUPPOSED) / (len(labels) + _SUPPOSED))
    return mean, labels - mean
