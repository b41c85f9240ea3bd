"""Ranks and regrets of samplers that were run on the same problems with the same seeds.

A *block* is a problem with a seed. Within a block samplers are ranked by the regret that they
reached in so many trials, equal ones by the mean of their ranks; 1 is the best. Only blocks that
all of the ranked samplers ran count, so that nobody is judged by easier problems.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np
from scipy import stats

from studies.scoreboard.problems import normalize
from studies.scoreboard.runs import Result
from studies.scoreboard.samplers import label_of
from studies.scoreboard.suites import suite_of


N_RESAMPLES = 2000

ALL = "all"

Block = tuple[str, int]


@dataclass(frozen=True)
class Standing:
    """A sampler among others, after so many trials.

    Attributes:
        sampler: Label, see `label`.
        blocks: That it was judged by.
        rank: Mean rank, problems weighing the same.
        rank_low, rank_high: Its 95 % interval.
        regret: Mean normalized regret.
        regret_low, regret_high: Its 95 % interval.
    """

    sampler: str
    blocks: int
    rank: float
    rank_low: float
    rank_high: float
    regret: float
    regret_low: float
    regret_high: float


def label(result: Result) -> str:
    """Name of a run's sampler with what it asks, in tables and plots."""
    name = label_of(result.sampler)
    return f"{name} ({result.asks})" if result.asks else name


class Board:
    """The results of any runs by sampler and block.

    Args:
        results: What regrets are normalized by, whoever ran it.
        samplers: Those that are looked at, as METHODS names them; None: all.
    """

    def __init__(self, results: Sequence[Result], samplers: Collection[str] | None = None) -> None:
        self._least: dict[str, float] = {}
        for result in results:
            reached = result.regret(result.trials)
            self._least[result.problem] = min(reached, self._least.get(result.problem, math.inf))
        if samplers is not None:
            results = [result for result in results if result.sampler in samplers]
        self.results: dict[str, dict[Block, Result]] = {}
        for result in results:
            blocks = self.results.setdefault(label(result), {})
            blocks[result.problem, result.seed] = result
        self.samplers = sorted(self.results)
        self.problems = sorted({result.problem for result in results})
        self.suites = sorted({suite_of(name) for name in self.problems})
        # What is shown: all problems together, and each suite; a single suite is all there is.
        self.shown = [ALL, *self.suites] if len(self.suites) > 1 else self.suites

    def normalized(self, result: Result, trials: int) -> float:
        """Return the normalized regret of a run after so many trials."""
        return normalize(result.regret(trials), self._least[result.problem], result.scale)

    def in_suite(self, suite: str) -> list[str]:
        """Return the problems of a suite; all for `ALL`."""
        return [name for name in self.problems if suite in (ALL, suite_of(name))]

    def ranked(self, problems: Sequence[str], trials: int) -> tuple[list[str], list[Block]]:
        """Return the samplers that can be compared on problems, and the blocks that all ran.

        A sampler that lacks one of the problems, or has no run of so many trials, is left out.
        None can be compared if there is a problem that they have no seed of in common.
        """
        ran = {
            sampler: {
                block
                for block, result in blocks.items()
                if block[0] in problems and result.has(trials)
            }
            for sampler, blocks in self.results.items()
        }
        complete = [s for s in self.samplers if {name for name, _ in ran[s]} >= set(problems)]
        common = set.intersection(*(ran[s] for s in complete)) if complete else set()
        if {name for name, _ in common} < set(problems):
            return [], []
        return complete, sorted(common)

    def standings(self, problems: Sequence[str], trials: int) -> list[Standing]:
        """Return the mean ranks and regrets with their intervals, the best first.

        Intervals are those of the bootstrap over seeds, drawn anew within each problem: they tell
        what other seeds would, on the same problems. (A seed is also an instance of a COCO
        function.)
        """
        samplers, blocks = self.ranked(problems, trials)
        if len(samplers) < 2:
            return []
        per_problem = []
        for name in problems:
            seeds = [block for block in blocks if block[0] == name]
            found = [[self.results[s][b] for s in samplers] for b in seeds]
            regrets = np.array([[r.regret(trials) for r in row] for row in found])
            normalized = np.array([[self.normalized(r, trials) for r in row] for row in found])
            ranks = stats.rankdata(regrets, axis=1)
            per_problem.append(np.stack([ranks, normalized]))  # (2, n_seeds, n_samplers)
        rng = np.random.default_rng(0)
        resampled = np.zeros((2, N_RESAMPLES, len(samplers)))
        for table in per_problem:
            n_seeds = table.shape[1]
            drawn = rng.integers(n_seeds, size=(N_RESAMPLES, n_seeds))
            resampled += table[:, drawn].mean(axis=2) / len(per_problem)
        mean = np.mean([table.mean(axis=1) for table in per_problem], axis=0)  # (2, n_samplers)
        low, high = np.percentile(resampled, (2.5, 97.5), axis=1)
        # With one seed all three are the same number, but for how they are rounded.
        low, high = np.minimum(low, mean), np.maximum(high, mean)
        rows = [
            Standing(
                sampler,
                len(blocks),
                *map(float, (mean[0, i], low[0, i], high[0, i])),
                *map(float, (mean[1, i], low[1, i], high[1, i])),
            )
            for i, sampler in enumerate(samplers)
        ]
        return sorted(rows, key=lambda row: (row.rank, row.sampler))

    def curve(
        self, sampler: str, problems: Sequence[str], blocks: Sequence[Block], trials: int
    ) -> list[float]:
        """Return the mean normalized regret after 1, 2, ... trials, problems weighing the same."""
        runs = [self.results[sampler][block] for block in blocks if block[0] in problems]
        weight = {name: 0 for name in problems}
        for result in runs:
            weight[result.problem] += 1
        return [
            sum(self.normalized(r, n) / weight[r.problem] for r in runs) / len(problems)
            for n in range(1, trials + 1)
        ]
