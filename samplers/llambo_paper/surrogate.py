"""Ranking of candidates by expected improvement, or by their chance of being good.

Everything here minimises. The caller negates the scores of a maximised study, which is exact in
floating point, so that maximising is the mirror image of minimising. Nothing depends on the
scores' range: ``a * loss + b`` with ``a > 0`` gives the same choices.

Notation:
    losses: Losses of the successful trials, with the shape of (n_trials, ).
    predictions: Predicted losses, or probabilities, of the candidates, with the shape of
        (n_candidates, n_samples); NaN where a reply had no usable number.
    mean, sd: Moments of a candidate's predictions, with the shape of (n_candidates, ).
    best: The lowest loss.

The surrogates are those of "Large Language Models to Enhance Bayesian Optimization" by T. Liu,
N. Astorga, N. Seedat and M. van der Schaar (ICLR 2024), https://arxiv.org/abs/2402.03921.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Sequence


_LARGEST = 1e150  # of a number whose square is needed


def plausible(predictions: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Predicted losses, limited to the range of the losses widened by its width on either side.

    A slip of the decimal point (98.1 for 0.981) would otherwise become a huge SD, and a huge SD a
    huge expected improvement. Without a range (one loss, or equal ones) there is no limit.
    """
    low, high = float(np.min(losses)), float(np.max(losses))
    width = high - low
    if width == 0.0 or not math.isfinite(width):
        return predictions
    return np.clip(predictions, low - width, high + width)


def moments(predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1 in the denominator) of each candidate's predictions.

    A candidate with one prediction has it as its mean, and the root mean square of the other
    candidates' SDs as its SD (0 if nobody has one). A candidate without any has NaN for both.
    """
    known = np.isfinite(predictions)
    counts = known.sum(axis=1)  # (n_candidates, )
    filled = np.where(known, predictions, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = filled.sum(axis=1) / counts
        squares = np.where(known, predictions - mean[:, None], 0.0) ** 2
        variance = squares.sum(axis=1) / (counts - 1)
    several = counts >= 2
    pooled = float(np.mean(variance[several])) if several.any() else 0.0
    variance = np.where(several, variance, np.where(counts == 1, pooled, np.nan))
    return mean, np.sqrt(variance)


def expected_improvement(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
    """E[max(best - Y, 0)] for Y ~ N(mean, sd^2); NaN where the mean is.

    With z = (best - mean) / sd it is sd * (z * cdf(z) + pdf(z)), and max(best - mean, 0) for sd = 0.
    """
    return np.array(
        [_expected_improvement(m, s, best) for m, s in zip(mean.tolist(), sd.tolist())]
    )


def _expected_improvement(mean: float, sd: float, best: float) -> float:
    gain = best - mean
    if math.isnan(gain):
        return math.nan
    z = gain / sd if sd else math.inf
    if math.isinf(z):
        return max(gain, 0.0)
    cdf = 0.5 * math.erfc(-z / math.sqrt(2.0))
    pdf = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    # Far below zero the two terms cancel, and what rounding leaves may be negative.
    return max(sd * (z * cdf + pdf), 0.0)


def rank_by_improvement(predictions: np.ndarray, losses: np.ndarray) -> list[int]:
    """Indices of the candidates with a prediction, the largest expected improvement first.

    Equal ones (nobody is expected to improve) are ordered by their mean, then as they came.
    """
    predictions, losses = (np.clip(a, -_LARGEST, _LARGEST) for a in (predictions, losses))
    mean, sd = moments(plausible(predictions, losses))
    gain = expected_improvement(mean, sd, float(np.min(losses)))
    return sorted(
        (i for i in range(len(mean)) if not math.isnan(mean[i])),
        key=lambda i: (-gain[i], mean[i]),
    )


def rank_by_probability(predictions: np.ndarray) -> list[int]:
    """Indices of the candidates with a prediction, the likeliest to be good first."""
    mean, _ = moments(predictions)
    return sorted((i for i in range(len(mean)) if not math.isnan(mean[i])), key=lambda i: -mean[i])


def good_labels(losses: Sequence[float], fraction: float) -> list[int]:
    """1 for the losses among the best ``fraction`` of all, at least one of them; else 0."""
    threshold = np.quantile(losses, fraction)
    return [int(loss <= threshold) for loss in losses]
