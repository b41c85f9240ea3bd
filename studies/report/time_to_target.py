"""How much of the reference method's budget another method needs to be as good as it is at its end.

A seed's target is the best value of the reference's run. Runs that never get there count as
infinite, so that none is left out. These are values as they were observed: of noisy trials.

Reference: H. Hoos and T. Stützle, Evaluating Las Vegas Algorithms: Pitfalls and Remedies, UAI 1998
(time to a target, medians with runs that never reach it).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np
from scipy import stats

from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.tables import best_by_seed
from studies.report.tables import by_method


@dataclass(frozen=True)
class TimeToTarget:
    """A method's shares of the reference's budget, of seeds that both have run.

    Of the reference itself: when it found its own best.
    """

    method: str
    reference: str
    unit: str  # "training time", or "trials" where a run was charged none
    n: int  # seeds on which the reference has a value and the method a run
    reached: int  # of them, those on which the method got as good
    median: float  # infinite if half of the seeds were not reached; NaN without a seed
    low: float  # 95 % interval of that median, from order statistics; NaN below 6 seeds
    high: float


def percent(share: float) -> str:
    """Write a share of a budget; a target that was not reached is infinitely far."""
    return f"{100 * share:.0f} %" if math.isfinite(share) else "never"


def in_one_sentence(rows: Sequence[TimeToTarget]) -> str:
    """Say it of all other methods; empty if there are none with a seed."""
    others = [row for row in rows if row.method != row.reference and row.n]
    if not others:
        return ""
    return f"As good as {others[0].reference} at its end: {'; '.join(map(_in_words, others))}."


def _in_words(row: TimeToTarget) -> str:
    seeds = f"{row.reached} of {row.n} seed{'s' * (row.n != 1)}"
    if not math.isfinite(row.median):
        return f"{row.method} on {seeds}"
    within = f"95 % interval {percent(row.low)} to {percent(row.high)}, "
    return (
        f"{row.method} after {percent(row.median)} of {row.reference}'s {row.unit} "
        f"(median, {'' if math.isnan(row.low) else within}{seeds})"
    )


def times_to_target(runs: Sequence[Run], reference: str) -> list[TimeToTarget]:
    """Return a row a method, the reference's own too, in the order of `tables.by_method`.

    Args:
        runs: Of one comparison. Runs of a method that share a seed count as one, by their mean.
        reference: The method whose final values are the targets.
    """
    groups = by_method(runs)
    targets = best_by_seed(runs)[reference]
    is_timed = all(run.seconds > 0 for run in runs)

    def spent(row: Row) -> float:
        return row.seconds if is_timed else row.position

    budgets = _mean_by_seed(groups[reference], [spent(run.rows[-1]) for run in groups[reference]])
    found = []
    for method, group in groups.items():
        group = [run for run in group if run.seed in targets]
        reached = _mean_by_seed(
            group,
            [
                next(
                    (
                        spent(row)
                        for row in run.incumbents
                        if run.metric.cost(row.value) <= run.metric.cost(targets[run.seed])
                    ),
                    math.inf,
                )
                for run in group
            ],
        )
        shares = [time / budgets[seed] for seed, time in reached.items()]
        interval = stats.quantile_test(shares or [math.nan], p=0.5).confidence_interval(0.95)
        found.append(
            TimeToTarget(
                method=method,
                reference=reference,
                unit="training time" if is_timed else "trials",
                n=len(shares),
                reached=sum(map(math.isfinite, shares)),
                median=float(np.median(shares)) if shares else math.nan,
                low=float(interval.low),
                high=float(interval.high),
            )
        )
    return found


def _mean_by_seed(runs: Sequence[Run], numbers: Sequence[float]) -> Mapping[int, float]:
    by_seed: dict[int, list[float]] = {}
    for run, number in zip(runs, numbers, strict=True):
        by_seed.setdefault(run.seed, []).append(number)
    return {seed: sum(found) / len(found) for seed, found in by_seed.items()}
