"""The report's plots, as plotly figures. Lower is better in all of them.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; line styles and
markers repeat what the colours say.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.statistics import summarize
from studies.report.tables import by_method


_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B",
    "#7F7F7F",
)  # fmt: skip
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_FAILURE = {"color": "#B00000", "symbol": "x-thin-open", "size": 7}
_STEPS = 200  # points of a mean curve


def best_so_far(runs: Sequence[Run], *, against: str) -> go.Figure:
    """Mean best value with its 95 % interval, against ``"hours"`` or ``"trials"``.

    True steps: a value counts from the moment that its trial has ended. A curve begins when every
    run of its method has a value, and ends where the first of them ends.
    """
    figure = go.Figure()
    for i, (method, group) in enumerate(by_method(runs).items()):
        if any(not run.incumbents for run in group):
            continue
        x_of = _position(against)
        start = max(x_of(run, run.incumbents[0]) for run in group)
        end = min(x_of(run, run.rows[-1]) for run in group)
        if end < start:
            continue
        steps = sorted({x_of(run, row) for run in group for row in run.incumbents})
        grid = [start, *(x for x in steps if start < x <= end), end]
        if len(grid) > _STEPS:
            grid = list(np.linspace(start, end, _STEPS))
        summaries = [
            summarize([min(r.value for r in run.incumbents if x_of(run, r) <= x) for run in group])
            for x in grid
        ]
        style = {"color": _COLORS[i % len(_COLORS)], "shape": "hv"}
        name = f"{method} (n={len(group)})"
        if len(group) > 1:
            band = [*(s.high for s in summaries), *(s.low for s in reversed(summaries))]
            figure.add_scatter(
                x=[*grid, *reversed(grid)],
                y=band,
                fill="toself",
                mode="none",
                fillcolor=_translucent(style["color"]),
                line_shape="hv",
                hoverinfo="skip",
                showlegend=False,
                legendgroup=method,
            )
        figure.add_scatter(
            x=grid,
            y=[s.mean for s in summaries],
            name=name,
            legendgroup=method,
            mode="lines",
            line={**style, "dash": _DASHES[i % len(_DASHES)], "width": 2.5},
        )
    title = {"hours": "training time (hours)", "trials": "trials"}[against]
    return _finish(figure, title, "best val_bpb so far (mean, 95 % interval)")


def _position(against: str) -> Callable[[Run, Row], float]:
    if against == "hours":
        return lambda run, row: row.hours
    order: dict[int, dict[int, int]] = {}

    def trials_ended(run: Run, row: Row) -> float:
        numbers = order.setdefault(id(run), {r.number: i + 1 for i, r in enumerate(run.rows)})
        return numbers[row.number]

    return trials_ended


def incumbent_trace(run: Run) -> go.Figure:
    """Every trial of a run: successes, failures at the top, and the staircase of incumbents."""
    ok = [row for row in run.rows if row.ok]
    failed = [row for row in run.rows if not row.ok]
    figure = go.Figure()
    figure.add_scattergl(
        x=[row.hours for row in ok],
        y=[row.value for row in ok],
        mode="markers",
        name="trials",
        marker={"color": "#999999", "size": 6},
        hovertext=[_hover(row) for row in ok],
        hoverinfo="text",
    )
    top = max((row.value for row in ok), default=1.0)
    figure.add_scattergl(
        x=[row.hours for row in failed],
        y=[top] * len(failed),
        mode="markers",
        name="failed (drawn at the top)",
        marker=_FAILURE,
        hovertext=[_hover(row) for row in failed],
        hoverinfo="text",
    )
    figure.add_scatter(
        x=[*(row.hours for row in run.incumbents), run.hours],
        y=[*(row.value for row in run.incumbents), run.best()],
        mode="lines+markers",
        line={"shape": "hv", "color": _COLORS[0], "width": 2.5},
        name="best so far",
        hovertext=[*map(_hover, run.incumbents), ""],
        hoverinfo="text",
    )
    return _finish(figure, "training time (hours)", "val_bpb")


def hyperparameters(run: Run) -> go.Figure:
    """Each parameter of a run against the trial number, coloured by the value."""
    names = _parameters([run])
    columns = 4
    rows = math.ceil(len(names) / columns) or 1
    from plotly.subplots import make_subplots

    figure = make_subplots(rows, columns, subplot_titles=names, vertical_spacing=0.4 / rows)
    ok = [row for row in run.rows if row.ok]
    for i, name in enumerate(names):
        shown = [row for row in ok if name in row.params]
        figure.add_trace(
            go.Scattergl(
                x=[row.number for row in shown],
                y=[row.params[name] for row in shown],
                mode="markers",
                marker={
                    "color": [row.value for row in shown],
                    "coloraxis": "coloraxis",
                    "size": 5,
                },
                hovertext=[_hover(row) for row in shown],
                hoverinfo="text",
                showlegend=False,
            ),
            i // columns + 1,
            i % columns + 1,
        )
        if _spans_decades([row.params[name] for row in shown]):
            figure.update_yaxes(type="log", row=i // columns + 1, col=i % columns + 1)
    figure.update_layout(coloraxis={"colorscale": "Viridis", "colorbar_title": "val_bpb"})
    figure.update_layout(template="simple_white", height=190 * rows + 60, margin={"t": 40})
    return figure


def pair(runs: Sequence[Run]) -> go.Figure:
    """Any two parameters against each other, failures marked; menus choose which."""
    names = _parameters(runs)
    rows = [row for run in runs for row in run.rows if set(names) <= row.params.keys()]
    ok, failed = [r for r in rows if r.ok], [r for r in rows if not r.ok]
    if len(names) < 2:
        return go.Figure()
    figure = go.Figure()
    for name, group, marker in (
        ("ok", ok, {"color": [r.value for r in ok], "coloraxis": "coloraxis", "size": 6}),
        ("failed", failed, _FAILURE),
    ):
        figure.add_scattergl(
            x=[row.params[names[0]] for row in group],
            y=[row.params[names[1]] for row in group],
            mode="markers",
            marker=marker,
            name=name,
            hovertext=[_hover(row) for row in group],
            hoverinfo="text",
        )

    def menu(axis: str, x: float, chosen: int) -> dict[str, Any]:
        buttons = [
            {
                "label": name,
                "method": "update",
                "args": [
                    {axis: [[row.params[name] for row in group] for group in (ok, failed)]},
                    {f"{axis}axis.title.text": name},
                ],
            }
            for name in names
        ]
        return {"buttons": buttons, "x": x, "y": 1.15, "active": chosen}

    figure.update_layout(
        updatemenus=[menu("x", 0.0, 0), menu("y", 0.35, 1)],
        coloraxis={"colorscale": "Viridis", "colorbar_title": "val_bpb"},
        legend={"orientation": "h", "x": 0.7, "y": 1.12},
    )
    return _finish(figure, names[0], names[1])


def parallel_coordinates(runs: Sequence[Run]) -> go.Figure:
    """All successful trials, one line each over the parameters' axes; drag on an axis to filter."""
    names = _parameters(runs)
    rows = [r for run in runs for r in run.rows if r.ok and set(names) <= r.params.keys()]
    dimensions = []
    for name in names:
        values = [row.params[name] for row in rows]
        if all(isinstance(value, (int, float)) for value in values):
            if _spans_decades(values):
                dimensions.append(
                    {"label": f"log10 {name}", "values": [math.log10(v) for v in values]}
                )
            else:
                dimensions.append({"label": name, "values": values})
        else:
            labels = sorted(set(map(str, values)))
            dimensions.append(
                {
                    "label": name,
                    "values": [labels.index(str(v)) for v in values],
                    "tickvals": list(range(len(labels))),
                    "ticktext": labels,
                }
            )
    color = [row.value for row in rows]
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            labelangle=-25,
            line={"color": color, "colorscale": "Viridis", "showscale": True},
        )
    )
    return figure.update_layout(margin={"t": 120, "l": 70, "r": 70}, height=460)


def failures(runs: Sequence[Run]) -> go.Figure:
    """Share of each method's trials that failed, by class."""
    groups = by_method(runs)
    classes = sorted({row.status for run in runs for row in run.rows if not row.ok})
    figure = go.Figure()
    for i, status in enumerate(classes):
        shares = []
        for group in groups.values():
            rows = [row for run in group for row in run.rows]
            shares.append(100 * sum(row.status == status for row in rows) / len(rows))
        figure.add_bar(
            x=list(groups),
            y=shares,
            name=status,
            marker={"color": _COLORS[i % len(_COLORS)], "pattern_shape": "/\\x-|+."[i % 7]},
        )
    figure.update_layout(barmode="stack")
    return _finish(figure, "", "failed trials (%)")


def incumbents_by_source(runs: Sequence[Run]) -> go.Figure:
    """Who proposed the incumbents after the first one, beside who proposed the trials."""
    groups = by_method(runs)
    sources = sorted({row.source or "unnamed" for run in runs for row in run.rows})
    figure = go.Figure()
    for i, source in enumerate(sources):
        for what, opacity in (("trials", 0.45), ("incumbents", 1.0)):
            shares = []
            for group in groups.values():
                rows = [
                    row
                    for run in group
                    for row in (run.rows if what == "trials" else run.incumbents[1:])
                ]
                found = sum((row.source or "unnamed") == source for row in rows)
                shares.append(100 * found / len(rows) if rows else 0.0)
            figure.add_bar(
                x=[list(groups), [what] * len(groups)],
                y=shares,
                name=source,
                legendgroup=source,
                showlegend=what == "incumbents",
                opacity=opacity,
                marker_color=_COLORS[i % len(_COLORS)],
            )
    figure.update_layout(barmode="stack")
    return _finish(figure, "", "share (%)")


def final_values(runs: Sequence[Run]) -> go.Figure:
    """Every run's best value by method, a point each, joined over methods by seed."""
    groups = by_method(runs)
    figure = go.Figure()
    for seed in sorted({run.seed for run in runs}):
        ends = [(run.method, run.best()) for run in runs if run.seed == seed]
        figure.add_scatter(
            x=[method for method, _ in ends],
            y=[value if math.isfinite(value) else None for _, value in ends],
            mode="lines+markers",
            line={"color": "#999999", "width": 1},
            marker={"size": 8, "color": _COLORS[0]},
            name=f"seed {seed}",
            showlegend=False,
        )
    means = [summarize([r.best() for r in g if math.isfinite(r.best())]) for g in groups.values()]
    figure.add_scatter(
        x=list(groups),
        y=[s.mean for s in means],
        error_y={"array": [s.high - s.mean for s in means], "thickness": 2, "width": 8},
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 26, "color": _COLORS[1], "line_width": 3},
        name="mean, 95 % interval",
    )
    return _finish(figure, "", "best val_bpb of a run")


def language_model(runs: Sequence[Run]) -> go.Figure:
    """Tokens and seconds of the language model per turn, by method."""
    figure = go.Figure()
    for i, (method, group) in enumerate(by_method(runs).items()):
        turns = [r for run in group for r in run.rows if r.attrs.get("llm_prompt_tokens")]
        if turns:
            figure.add_scattergl(
                x=[r.attrs["llm_prompt_tokens"] for r in turns],
                y=[r.attrs.get("llm_seconds", 0.0) for r in turns],
                mode="markers",
                name=method,
                marker={"color": _COLORS[i % len(_COLORS)], "symbol": i, "size": 7},
                hovertext=[_hover(r) for r in turns],
                hoverinfo="text",
            )
    return _finish(figure, "prompt tokens of a trial", "seconds")


def _parameters(runs: Sequence[Run]) -> list[str]:
    """Names of the parameters that all trials of the runs have."""
    common: dict[str, None] | None = None
    for run in runs:
        for row in run.rows:
            names = dict.fromkeys(row.params)
            common = names if common is None else {n: None for n in common if n in names}
    return list(common or {})


def _spans_decades(values: Sequence[Any]) -> bool:
    """Whether positive numbers are better drawn on a logarithmic axis."""
    if not values or not all(isinstance(v, (int, float)) and v > 0 for v in values):
        return False
    return bool(max(values) / min(values) > 20)


def _hover(row: Row) -> str:
    head = f"trial {row.number} {row.source}: " + (f"{row.value:.4f}" if row.ok else row.status)
    return "<br>".join([head, *(f"{name} = {_short(v)}" for name, v in row.params.items())])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _translucent(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _finish(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_layout(
        template="simple_white",
        height=420,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        legend_title_text="",
    )
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, showgrid=True)
    return figure
