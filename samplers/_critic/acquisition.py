"""What a configuration is worth trying: the logarithm of its expected improvement.

The logarithm has a slope where the improvement itself is zero to every digit, so that of many poor
candidates the least poor one is known: S. Ament et al., Unexpected Improvements to Expected
Improvement for Bayesian Optimization (NeurIPS 2023, arXiv:2310.20708).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special


def log_expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Log of how much lower than ``best`` a value is expected to be, where it is lower.

    With z = (best - mean) / deviation it is log(deviation) + log(phi(z) + z Phi(z)).

    Args:
        mean: Of the predicted values, (m,).
        deviation: Their standard deviations, (m,), above 0.
        best: What is to be improved on.

    Returns:
        (m,), finite.
    """
    z = (best - mean) / deviation
    return np.log(deviation) + _log_h(z)


def _log_h(z: np.ndarray) -> np.ndarray:
    """log(phi(z) + z Phi(z)) without cancellation, (m,)."""
    result = np.empty_like(z)
    near = z > -1.0
    zn = z[near]
    phi = np.exp(-0.5 * zn**2) / math.sqrt(2 * math.pi)
    result[near] = np.log(phi + zn * special.ndtr(zn))
    far = z[~near]
    # log phi(z) + log(1 - |z| Phi(z) / phi(z)); far out the bracket is 1 / z^2.
    ratio = -far * math.sqrt(math.pi / 2) * special.erfcx(-far / math.sqrt(2))
    bracket = np.where(far > -1e4, np.log(np.maximum(1 - ratio, 1e-300)), -2 * np.log(-far))
    result[~near] = -0.5 * far**2 - 0.5 * math.log(2 * math.pi) + bracket
    return result
