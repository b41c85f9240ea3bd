"""The scoreboard's plots as static pictures."""

from __future__ import annotations

import math

import matplotlib
from matplotlib.figure import Figure
import numpy as np

from studies.report.pictures import DASHES
from studies.report.pictures import MARKERS
from studies.report.pictures import SETTINGS
from studies.report.style import styles
from studies.scoreboard.analysis import ALL
from studies.scoreboard.analysis import Board


def pictures(board: Board, budgets: list[int]) -> dict[str, Figure]:
    """Name to picture."""
    with matplotlib.rc_context(SETTINGS):
        return {"curves": _curves(board, budgets), "ranks": _ranks(board, budgets)}


def _curves(board: Board, budgets: list[int]) -> Figure:
    """Mean normalized regret by suite; the samplers of the longest runs, then those of shorter."""
    looks = styles(board.samplers)
    columns = min(3, len(board.suites))
    lines = math.ceil(len(board.suites) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines + 0.8), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for suite, axes in zip(board.suites, grid.flat):
        problems = board.in_suite(suite)
        drawn: set[str] = set()
        for trials in reversed(budgets):
            samplers, blocks = board.ranked(problems, trials)
            for sampler in [s for s in samplers if s not in drawn]:
                drawn.add(sampler)
                look = looks[sampler]
                axes.step(
                    range(1, trials + 1),
                    board.curve(sampler, problems, blocks, trials),
                    where="post",
                    color=look.color,
                    linestyle=DASHES[look.dash],
                    linewidth=1.2,
                    label=sampler,
                )
        axes.set_yscale("log")
        axes.set_title(
            f"{suite} ({len(problems)} problem{'s' * (len(problems) != 1)})", fontsize=9
        )
        axes.set_xlabel("trials")
    for axes in list(grid.flat)[len(board.suites) :]:
        axes.set_visible(False)
    figure.supylabel("mean normalized regret", fontsize=9)
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels())
    }
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False
    )
    return figure


def _ranks(board: Board, budgets: list[int]) -> Figure:
    """Mean ranks with their intervals, over all problems, a panel for each number of trials."""
    looks = styles(board.samplers)
    figure = Figure(figsize=(4.2 * len(budgets), 0.6 + 0.32 * len(board.samplers)))
    figure.set_layout_engine("constrained")
    for trials, axes in zip(budgets, np.atleast_1d(figure.subplots(1, len(budgets)))):
        rows = board.standings(board.in_suite(ALL), trials)
        for place, row in enumerate(rows):
            look = looks[row.sampler]
            axes.errorbar(
                row.rank,
                place,
                xerr=[[row.rank - row.rank_low], [row.rank_high - row.rank]],
                color=look.color,
                marker=MARKERS[look.symbol],
                markersize=5,
                capsize=3,
            )
        axes.set_yticks(range(len(rows)), [row.sampler for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("mean rank, 1 is the best (95 % interval)")
        axes.set_title(f"after {trials} trials", fontsize=9)
    return figure
