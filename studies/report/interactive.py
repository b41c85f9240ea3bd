"""Drawings as plotly figures, for the page and for optuna-dashboard.

``meta.methods`` of a trace are its marks' methods (one for each, or one for all), by which the
page hides them.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import plotly.graph_objects as go

from studies.best_so_far.plot import add_mean_curve
from studies.report.drawing import Drawing
from studies.report.drawing import HeatMap
from studies.report.drawing import Marks
from studies.report.style import FAILED
from studies.report.style import MEAN


TEMPLATE = "simple_white"
_SYMBOLS = {MEAN: "line-ew-open", FAILED: "x-thin-open"}


def draw(drawing: Drawing) -> go.Figure:
    """Return the figure of a drawing, without its title and the template.

    A template takes longer than all else of a figure, and a page needs it once.
    """
    margin = {"l": 70, "r": 20, "t": 30, "b": 50}
    figure = go.Figure(layout={"template": "none", "height": 440, "margin": margin})
    if isinstance(drawing, HeatMap):
        return _draw_map(figure, drawing)
    for marks in drawing.marks:
        if marks.kind == "steps":
            _add_steps(figure, marks)
            figure.update_layout(hovermode="x unified")
        elif marks.kind == "bars":
            _add_bars(figure, marks)
        else:
            _add_points(figure, marks, "x" if drawing.across else "y")
    places: dict[str, Any] = {"title_text": drawing.x}
    values: dict[str, Any] = {
        "title_text": drawing.values,
        "showgrid": True,
        "exponentformat": "power",  # not 100µ
    }
    # Bars of parts have two categories each, which plotly can't be given the order of.
    if drawing.categories and not any(m.part and m.kind == "bars" for m in drawing.marks):
        places |= {"categoryorder": "array", "categoryarray": list(drawing.categories), "dtick": 1}
    if drawing.zero:
        values |= {"zeroline": True, "zerolinecolor": "#7F7F7F", "rangemode": "tozero"}
    if drawing.log:
        values["type"] = "log"
    if drawing.limits is not None:
        values["range"] = [math.log10(v) if drawing.log else v for v in drawing.limits]
    if drawing.across:
        figure.update_layout(height=min(440, 140 + 60 * len(drawing.categories)))
        return figure.update_layout(xaxis=values, yaxis={**places, "autorange": "reversed"})
    return figure.update_layout(xaxis=places, yaxis=values)


def _add_steps(figure: go.Figure, marks: Marks) -> None:
    if marks.faint:
        figure.add_scatter(
            x=marks.x,
            y=marks.y,
            mode="lines",
            hoverinfo="skip",
            legendgroup=marks.label,
            showlegend=False,
            opacity=0.5,
            line={"color": marks.style.color, "width": 1, "shape": "hv"},
            meta={"methods": marks.methods},
        )
        return
    none = [math.nan] * len(marks.y)
    add_mean_curve(
        figure,
        marks.x,
        marks.y,
        (marks.low or none, marks.high or none),
        name=marks.label,
        color=marks.style.color,
        dash=marks.style.dash,
        meta={"methods": marks.methods},
    )


def _add_points(figure: go.Figure, marks: Marks, values: str) -> None:
    is_mean, style = marks.style.symbol == MEAN, marks.style
    errors = {}
    if not all(map(math.isnan, marks.low)):  # which would be caps without a length
        errors[f"error_{values}"] = {
            "array": _lengths(marks.y, marks.high),
            "arrayminus": _lengths(marks.low, marks.y),
            "thickness": 2,
            "width": 10,
        }
    figure.add_scatter(
        **_common(marks),
        **errors,
        x=marks.x if values == "y" else marks.y,
        y=marks.y if values == "y" else marks.x,
        mode="markers" if marks.kind == "points" else "lines+markers",
        line={"color": style.color, "dash": style.dash, "width": 2 if is_mean else 1},
        marker={
            "symbol": _SYMBOLS.get(style.symbol, style.symbol),
            "size": 24 if is_mean else 8 if marks.kind == "points" else 6,
            "color": style.color,
            "line_width": 3 if is_mean else 0,
        },
        opacity=0.6 if marks.faint else 1.0,
    )


def _add_bars(figure: go.Figure, marks: Marks) -> None:
    figure.add_bar(
        **_common(marks),
        x=[marks.x, [marks.part] * len(marks.x)] if marks.part else marks.x,
        y=marks.y,
        marker={"color": marks.style.color, "pattern_shape": marks.style.pattern},
        opacity=0.6 if marks.faint else 1.0,
    )
    figure.update_layout(barmode="stack", showlegend=marks.in_legend)


def _common(marks: Marks) -> dict[str, Any]:
    return {
        "name": marks.label,
        "legendgroup": marks.label,
        "showlegend": marks.in_legend,
        "meta": {"methods": marks.methods},
        "hovertext": marks.said,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _lengths(low: Sequence[float], high: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(b - a) else b - a for a, b in zip(low, high)]


def _draw_map(figure: go.Figure, drawing: HeatMap) -> go.Figure:
    figure.add_heatmap(
        z=drawing.shares,
        y=drawing.rows,
        text=drawing.texts,
        texttemplate="%{text}",
        hovertext=drawing.said,
        hovertemplate="%{hovertext}<extra></extra>",
        colorscale="Cividis",
        zmin=0,
        zmax=100,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": drawing.y}},
    )
    return figure.update_layout(
        height=120 + 28 * len(drawing.rows),
        margin={"l": 170},
        xaxis={"title_text": drawing.x, "showticklabels": False},
        yaxis={"autorange": "reversed", "dtick": 1},
    )
