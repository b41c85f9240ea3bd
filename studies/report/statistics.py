"""Tests of methods that were run on the same seeds; knows no study and no storage.

``values`` are the best objective values of runs, one a seed.

References: F. Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics Bulletin 1, 1945;
S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6, 1979;
R. Tarone, A Modified Bonferroni Method for Discrete Data, Biometrics 46, 1990, p. 515 (tests that
can't be significant need no correction for them);
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

from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric
from studies.best_so_far.curves import t_interval
from studies.printable import decimals


LEVEL = 0.05
FEW = 3  # values, whose interval isn't shown: it hides everything, or two close ones make it tiny


@dataclass(frozen=True)
class Summary:
    """A sample's mean with its spread; what n can't give is NaN."""

    n: int
    mean: float
    sd: float  # sample standard deviation (n - 1)
    low: float  # 95 % interval of the mean (Student's t)
    high: float


def summarize(values: Sequence[float]) -> Summary:
    """Return the mean, sample standard deviation and 95 % interval of the mean."""
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    low, high = t_interval(np.asarray(values, dtype=float))
    return Summary(n, mean, sd, float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """A method against the reference method, paired by seed.

    A p-value is NaN where there is no pair; a corrected one also where n pairs are too few for
    significance however they come out: such a test counts for no correction.
    """

    method: str
    reference: str
    n: int  # seeds that both finished
    untied: int  # of them, those on which the two differ
    wins: int  # of these, those on which the method is better
    difference: float  # mean of (method - reference)
    low: float  # 95 % interval of that mean (Student's t), not corrected
    high: float
    effect: float  # rank-biserial correlation in [-1, 1]; -1: better on all untied seeds; 0: none
    p_less: float  # one-sided: the method is better
    p_two_sided: float
    p_less_holm: float  # corrected for all methods that could be significant, see `compare`
    p_two_sided_holm: float
    p_possible: float  # the least p_two_sided_holm that so many untied seeds and methods can give
    higher_is_better: bool = False
    caveat: str = ""  # what the values leave out, as a clause: a verdict is never without it

    @property
    def in_family(self) -> bool:
        """True if n pairs could be significant before correction, and so count for it."""
        return smallest_p(self.n) <= LEVEL

    @property
    def could_be_significant(self) -> bool:
        """True if so many untied pairs and methods allow a claim at all."""
        return self.p_possible <= LEVEL

    @property
    def sentence(self) -> str:
        """The conclusion that n and p allow, in plain words."""
        if self.n == 0:
            return f"{self.method} and {self.reference} share no seed with a value."
        pairs = f"{self.n} paired seed{'s' * (self.n != 1)}"
        if not self.could_be_significant:
            ties = "" if self.untied == self.n else f", {self.n - self.untied} of them tied,"
            corrected = ", Holm-corrected" * self.in_family
            return (
                f"{pairs}{ties} can't support a claim about {self.method} against "
                f"{self.reference}: even a clean sweep would give p = {self.p_possible:.3f} "
                f"(two-sided{corrected})."
            )
        if (p := self.p_two_sided_holm) <= LEVEL:
            better = "better" if self.effect < 0 else "worse"
            seeds = self.wins if self.effect < 0 else self.untied - self.wins
            where = f", on {seeds} of {pairs};"
            # The test is of ranks: one bad seed can turn the mean against its verdict.
            if self.effect * self.difference * (-1 if self.higher_is_better else 1) <= 0:
                where = f" on {seeds} of {pairs}, but not in the mean:"
            return (
                f"{self.method} is {better} than {self.reference}{where} mean "
                f"difference {decimals(self.difference, '+')} (95 % interval {decimals(self.low, '+')} to "
                f"{decimals(self.high, '+')}), Holm-corrected p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
                f"{f'; this leaves out that {self.caveat}' if self.caveat else ''}."
            )
        return (
            f"No difference between {self.method} and {self.reference} was shown ({pairs}, "
            f"Holm-corrected p = {p:.2f}); that is not evidence that they "
            "are equal."
        )


def in_words(rows: Sequence[Comparison]) -> list[str]:
    """Return the rows' sentences; methods that allow equally few conclusions share one."""
    groups: dict[tuple[object, ...], list[Comparison]] = {}
    for row in rows:
        alone = () if row.n and not row.could_be_significant else (row.method,)
        groups.setdefault((row.n, row.untied, row.p_possible, *alone), []).append(row)
    return [
        replace(group[0], method=", ".join(row.method for row in group)).sentence
        for group in groups.values()
    ]


def smallest_p(n: int, sides: int = 2) -> float:
    """Return the p of Wilcoxon's test, 1- or 2-sided, if one method wins all of n untied pairs."""
    return min(1.0, sides / 2**n)


def seeds_needed(methods: int) -> int:
    """Return the fewest pairs with which a clean sweep is significant for so many methods."""
    return math.ceil(math.log2(2 * max(methods, 1) / LEVEL))


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down correction; NaN stays NaN and counts as no test."""
    corrected = [math.nan] * len(p_values)
    tests = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, i) in enumerate(tests):
        largest = max(largest, min(1.0, p * (len(tests) - rank)))
        corrected[i] = largest
    return corrected


def compare(
    best: Mapping[str, Mapping[int, float]], reference: str, metric: Metric = METRIC
) -> list[Comparison]:
    """Compare every method with ``reference``, paired by seed, with Holm's correction.

    It corrects for the tests that could be significant with as many pairs as they have. The others
    can't be false alarms, and a method that was only tried out takes nothing from the rest.

    Args:
        best: Method to seed to the best value of that run.
        reference: A key of ``best``.
        metric: Says which values are better.
    """
    rows = [
        _compare(method, reference, values, best[reference], metric)
        for method, values in best.items()
        if method != reference
    ]
    less = _corrected(rows, [row.p_less for row in rows], sides=1)
    two_sided = _corrected(rows, [row.p_two_sided for row in rows], sides=2)
    # No method can do better than when all of them win on every untied seed.
    sweeps = [smallest_p(row.untied) if row.n else math.nan for row in rows]
    possible = _corrected(rows, sweeps, sides=2)
    return [
        replace(
            row,
            p_less_holm=less[i],
            p_two_sided_holm=two_sided[i],
            p_possible=possible[i] if row.in_family else sweeps[i],
        )
        for i, row in enumerate(rows)
    ]


def _corrected(
    rows: Sequence[Comparison], p_values: Sequence[float], *, sides: int
) -> list[float]:
    """Apply Holm's correction to the rows that could be significant; the others get NaN.

    Pairs, not untied pairs, decide it (Tarone, 1990): whether they tie is known from the data only.
    """
    return holm(
        [
            p if smallest_p(row.n, sides) <= LEVEL else math.nan
            for row, p in zip(rows, p_values, strict=True)
        ]
    )


def _compare(
    method: str,
    reference: str,
    values: Mapping[int, float],
    against: Mapping[int, float],
    metric: Metric,
) -> Comparison:
    seeds = sorted(values.keys() & against.keys())
    largest = max((abs(v[s]) for v in (values, against) for s in seeds), default=0.0) or 1.0
    scale = 10.0 ** math.floor(math.log10(largest))
    # Floats of equal differences, and of equal means, are not always equal: that ranks nothing.
    differences = np.round([(values[s] - against[s]) / scale for s in seeds], 12) * scale
    costs = np.array([metric.cost(d) for d in differences])
    nonzero = costs[costs != 0]
    if len(nonzero) == 0:
        p_less = p_two_sided = 1.0 if seeds else math.nan
        effect = 0.0 if seeds else math.nan
    else:
        p_less = float(stats.wilcoxon(nonzero, alternative="less").pvalue)
        p_two_sided = float(stats.wilcoxon(nonzero).pvalue)
        ranks = stats.rankdata(np.abs(nonzero))
        effect = float(np.sum(np.sign(nonzero) * ranks) / np.sum(ranks))
    mean = summarize(list(map(float, differences)))
    return Comparison(
        method=method,
        reference=reference,
        n=len(seeds),
        untied=len(nonzero),
        wins=int(np.sum(costs < 0)),
        difference=mean.mean,
        low=mean.low,
        high=mean.high,
        effect=effect,
        p_less=p_less,
        p_two_sided=p_two_sided,
        p_less_holm=math.nan,
        p_two_sided_holm=math.nan,
        p_possible=math.nan,
        higher_is_better=metric.better == "higher",
    )
