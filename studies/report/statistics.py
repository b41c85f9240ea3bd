"""What may be said of methods that were run on the same seeds; knows no study and no storage.

Lower is better throughout: ``values`` are the best objective values of runs, one a seed.

References: F. Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics Bulletin 1, 1945;
S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6, 1979;
D. Kerby, The Simple Difference Formula, Comprehensive Psychology 3, 2014 (rank-biserial r).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import math

import numpy as np
from scipy import stats


LEVEL = 0.05


@dataclass(frozen=True)
class Summary:
    """A sample's mean with its spread; what n can't give is NaN."""

    n: int
    mean: float
    sd: float  # sample standard deviation (n - 1)
    low: float  # 95 % interval of the mean (Student's t)
    high: float


def summarize(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and 95 % interval of the mean."""
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


@dataclass(frozen=True)
class Comparison:
    """A method against the reference method, paired by seed."""

    method: str
    reference: str
    n: int  # seeds that both finished
    difference: float  # mean of (method - reference); negative: the method is better
    p_less: float  # one-sided: the method is better
    p_two_sided: float
    p_holm: float  # p_two_sided, corrected for all methods that were compared
    effect: float  # rank-biserial correlation in [-1, 1]; -1: better on every seed

    @property
    def sentence(self) -> str:
        """What n and p allow to be said, in plain words."""
        if self.n == 0:
            return f"{self.method} and {self.reference} share no finished seed."
        needed = smallest_p(self.n)
        if needed > LEVEL:
            return (
                f"{self.n} paired seed{'s' * (self.n != 1)} can't support a claim about "
                f"{self.method} against {self.reference}: even a clean sweep would give "
                f"p = {needed:.3f} (two-sided)."
            )
        if self.p_holm <= LEVEL:
            better = "better" if self.difference < 0 else "worse"
            return (
                f"{self.method} is {better} than {self.reference} by {abs(self.difference):.4f} "
                f"(n = {self.n}, Holm-corrected p = {self.p_holm:.3f})."
            )
        return (
            f"No difference between {self.method} and {self.reference} was shown "
            f"(n = {self.n}, Holm-corrected p = {self.p_holm:.2f}); that is not evidence that "
            "they are equal."
        )


def smallest_p(n: int) -> float:
    """The two-sided p of Wilcoxon's test when one side wins on all of n pairs."""
    return min(1.0, 2.0 / 2**n)


def _compare(
    method: str, reference: str, values: Mapping[int, float], against: Mapping[int, float]
) -> Comparison:
    seeds = sorted(values.keys() & against.keys())
    differences = np.array([values[s] - against[s] for s in seeds])
    nonzero = differences[differences != 0]
    if len(nonzero) == 0:
        p_less = p_two = 1.0 if seeds else math.nan
        effect = 0.0 if seeds else math.nan
    else:
        p_less = float(stats.wilcoxon(nonzero, alternative="less").pvalue)
        p_two = float(stats.wilcoxon(nonzero).pvalue)
        ranks = stats.rankdata(np.abs(nonzero))
        effect = float(np.sum(np.sign(nonzero) * ranks) / np.sum(ranks))
    difference = float(np.mean(differences)) if seeds else math.nan
    return Comparison(method, reference, len(seeds), difference, p_less, p_two, math.nan, effect)


def compare(best: Mapping[str, Mapping[int, float]], reference: str) -> list[Comparison]:
    """Compare every method with ``reference``, paired by seed, with Holm's correction.

    Args:
        best: Method to seed to the best value of that run.
        reference: A key of ``best``.
    """
    rows = [
        _compare(method, reference, values, best[reference])
        for method, values in best.items()
        if method != reference
    ]
    corrected = dict.fromkeys(range(len(rows)), math.nan)
    testable = sorted(
        (i for i, row in enumerate(rows) if row.n), key=lambda i: rows[i].p_two_sided
    )
    largest = 0.0
    for rank, i in enumerate(testable):
        largest = max(largest, min(1.0, rows[i].p_two_sided * (len(testable) - rank)))
        corrected[i] = largest
    return [replace(row, p_holm=corrected[i]) for i, row in enumerate(rows)]
