"""The scoreboard's plots, described."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from studies.report.drawing import Marks
from studies.report.drawing import Plot
from studies.report.style import styles
from studies.scoreboard.analysis import Board
from studies.scoreboard.analysis import Standing


def curves(board: Board, budgets: Sequence[int]) -> list[Plot]:
    """Plot mean normalized regrets by suite: samplers with the longest runs, then the others."""
    looks = styles(board.samplers)
    plots = []
    for suite in board.suites:
        problems = board.in_suite(suite)
        drawn: dict[str, Marks] = {}
        for trials in reversed(budgets):
            samplers, blocks = board.ranked(problems, trials)
            for sampler in samplers:
                if sampler not in drawn:
                    y = board.curve(sampler, problems, blocks, trials)
                    x = range(1, trials + 1)
                    drawn[sampler] = Marks("steps", sampler, x, y, looks[sampler])
        plots.append(
            Plot(
                list(drawn.values()),
                x="trials",
                y="mean normalized regret",
                title=f"{suite} ({len(problems)} problem{'s' * (len(problems) != 1)})",
                log=True,
            )
        )
    return plots


def ranks(board: Board, standings: Mapping[int, Sequence[Standing]]) -> list[Plot]:
    """Plot mean ranks with their intervals, over all problems, by the number of trials."""
    looks = styles(board.samplers)
    return [
        Plot(
            [
                Marks(
                    "points",
                    row.sampler,
                    [row.sampler],
                    [row.rank],
                    looks[row.sampler],
                    [row.rank_low],
                    [row.rank_high],
                    in_legend=False,
                )
                for row in rows
            ],
            y="mean rank, 1 is the best",
            note="95 % interval",
            title=f"after {trials} trials",
            categories=[row.sampler for row in rows],
            across=True,
        )
        for trials, rows in standings.items()
    ]
