"""Best value so far as steps, and its mean over runs; knows neither Optuna nor plotly.

Notation: k records of a run, n runs, m points of a mean.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np


_OUTSIDE = 0.05  # of the intervals
_POINTS = 250  # of a mean, at most
_RESAMPLES = 5000

# Values (n, ...) to the lower and upper ends of an interval of their mean over the runs, (...).
Interval = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Steps:
    """The records of one run. Each holds until the next.

    Attributes:
        x: Where a record was set (trials, seconds, ...), ascending, (k,); k is 1 or more.
        best: The records, (k,).
        end: Where the run ended, not before the last record.
    """

    x: Sequence[float]
    best: Sequence[float]
    end: float

    def at(self, x: np.ndarray) -> np.ndarray:
        """Return the best value so far at points from the first record on, (m,) -> (m,)."""
        return np.asarray(self.best)[np.searchsorted(self.x, x, side="right") - 1]


@dataclass(frozen=True)
class MeanCurve:
    """The mean of runs with its interval, as steps.

    Attributes:
        n: How many runs.
        x: Where it changes, and its end, (m,).
        mean: From there on, (m,).
        low: Lower end of the interval, (m,); NaN for a single run.
        high: Upper end, (m,).
    """

    n: int
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the mean by Student's t; NaN for a single run."""
    from scipy import stats

    n = len(values)
    mean = np.mean(values, axis=0)
    if n == 1:
        return mean * math.nan, mean * math.nan
    half = stats.t.ppf(1 - _OUTSIDE / 2, n - 1) * np.std(values, axis=0, ddof=1) / math.sqrt(n)
    return mean - half, mean + half


def bootstrap_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval of the mean (Efron, 1979); NaN for a single run.

    The runs are drawn anew, each with its whole curve, and the same ones every time.
    """
    n = len(values)
    if n == 1:
        return values[0] * math.nan, values[0] * math.nan
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    low, high = np.quantile(weights @ values, [_OUTSIDE / 2, 1 - _OUTSIDE / 2], axis=0)
    return low, high


def mean_curve(runs: Sequence[Steps], interval: Interval = t_interval) -> MeanCurve | None:
    """Average the runs' best values, from where all of them have one to where the first ends.

    So it is the mean of the same runs everywhere, and never shows a value before it was reached.

    Returns:
        ``None`` if there is no such place.
    """
    if not runs:
        return None
    start = max(run.x[0] for run in runs)
    end = min(run.end for run in runs)
    if end < start:
        return None
    changes = sorted({x for run in runs for x in run.x})
    x = np.array([start, *(c for c in changes if start < c < end), end], dtype=float)
    if len(x) > _POINTS:
        x = np.linspace(start, end, _POINTS)
    values = np.array([run.at(x) for run in runs])
    low, high = interval(values)
    return MeanCurve(len(runs), x, np.mean(values, axis=0), low, high)
