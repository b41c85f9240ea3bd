"""The scoreboard's plots as plotly figures; see `studies.report.plots` for their ``meta``."""

from __future__ import annotations

import plotly.graph_objects as go

from studies.report.plots import finish
from studies.report.plots import percent_map
from studies.report.style import styles
from studies.scoreboard.analysis import ALL
from studies.scoreboard.analysis import Board


def curves(board: Board, suite: str, trials: int) -> go.Figure:
    """Mean normalized regret against trials, of the samplers that ran all of a suite."""
    figure = go.Figure()
    problems = board.in_suite(suite)
    samplers, blocks = board.ranked(problems, trials)
    looks = styles(board.samplers)
    for sampler in samplers:
        look = looks[sampler]
        figure.add_scatter(
            x=list(range(1, trials + 1)),
            y=board.curve(sampler, problems, blocks, trials),
            name=sampler,
            meta={"method": sampler},
            mode="lines",
            line={"color": look.color, "dash": look.dash, "width": 2, "shape": "hv"},
            hovertemplate="%{y:.4f}",
        )
    figure.update_layout(hovermode="x unified")
    finish(figure, "trials", f"mean normalized regret ({len(blocks)} runs of each sampler)")
    return figure.update_yaxes(type="log")


def ranks(board: Board, trials: int) -> go.Figure:
    """Mean ranks with their intervals, by suite."""
    figure = go.Figure()
    looks = styles(board.samplers)
    suites = board.shown
    rows = {
        suite: {row.sampler: row for row in board.standings(board.in_suite(suite), trials)}
        for suite in suites
    }
    for sampler in board.samplers:
        shown = [suite for suite in suites if sampler in rows[suite]]
        if not shown:
            continue
        found = [rows[suite][sampler] for suite in shown]
        figure.add_scatter(
            x=shown,
            y=[row.rank for row in found],
            error_y={
                "array": [row.rank_high - row.rank for row in found],
                "arrayminus": [row.rank - row.rank_low for row in found],
                "thickness": 1,
            },
            name=sampler,
            meta={"method": sampler},
            mode="markers",
            marker={"color": looks[sampler].color, "symbol": looks[sampler].symbol, "size": 9},
            text=[f"{r.rank:.2f} ({r.rank_low:.2f} to {r.rank_high:.2f})" for r in found],
            hovertemplate="%{x}: %{text}",
        )
    figure.update_layout(scattermode="group")
    figure.update_xaxes(categoryorder="array", categoryarray=suites)
    return finish(figure, "", f"mean rank after {trials} trials (95 % interval)")


def wins(board: Board, trials: int) -> go.Figure:
    """How often the sampler of a row is better than that of a column."""
    samplers, shares = board.wins(board.in_suite(ALL), trials)
    percent = (100 * shares).round().tolist()
    figure = percent_map(
        [[None if i == j else v for j, v in enumerate(row)] for i, row in enumerate(percent)],
        "better (%)",
        x=samplers,
        y=samplers,
        texttemplate="%{z:.0f}",
        hovertemplate="%{y} better than %{x}: %{z:.0f} %<extra></extra>",
    )
    return figure.update_layout(height=160 + 40 * len(samplers), margin={"l": 220, "b": 160})
