"""The comparison's plots as plotly figures, for the page and for optuna-dashboard.

A trace that belongs to one method says so in ``meta.method``, and one with a point per method in
``meta.methods``: by these the page's filter hides methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from studies.best_so_far.curves import MeanCurve
from studies.best_so_far.plot import add_mean_curve
from studies.report import series
from studies.report.runs import metric_of
from studies.report.runs import Run
from studies.report.series import Record
from studies.report.style import COLORS
from studies.report.style import PATTERNS
from studies.report.style import Style
from studies.report.style import styles
from studies.report.tables import by_method


INTERVAL = "mean, 95 % interval"

TITLES = {
    "time": "Best so far against training time",
    "trials": "Best so far against trials",
    "runs": "Every run's best",
    "ratios": "LLM ratio",
    "models": "Model against model",
    "sources": "Who found the incumbents",
    "failures": "Failures by class",
    "llm": "Tokens and seconds of the language model",
}


def comparison_plots(runs: Sequence[Run]) -> dict[str, go.Figure]:
    """Key of `TITLES` to figure, of the plots that the runs have something to show in."""
    figures = {
        "time": best_so_far(runs, "seconds"),
        "trials": best_so_far(runs, "trials"),
        "runs": final_values(runs),
        "failures": failures(runs),
        "sources": sources(runs),
        "ratios": varied(series.ratios(runs), "ratio", runs),
        "models": varied(series.models(runs), "model", runs),
        "llm": language_model(runs),
    }
    return {name: figure for name, figure in figures.items() if figure.data}


def best_so_far(runs: Sequence[Run], against: str) -> go.Figure:
    """Mean best value with its 95 % interval, see `series.best_so_far`."""
    figure = go.Figure()
    unit, divisor = time_unit(runs) if against == "seconds" else ("", 1.0)
    for method, style, points in _grouped(series.best_so_far(runs, against), runs):
        x, mean, low, high = (np.array(_column(points, k)) for k in ("x", "mean", "low", "high"))
        n = points[0]["n"]
        add_mean_curve(
            figure,
            MeanCurve(n, x / divisor, mean, low, high),
            name=f"{method} (n={n})",
            color=style.color,
            dash=style.dash,
            meta={"method": method},
        )
    figure.update_layout(hovermode="x unified")
    title = f"training time ({unit})" if unit else "trials that ended"
    return finish(figure, title, f"best {metric_of(runs).name} so far ({INTERVAL})")


def final_values(runs: Sequence[Run]) -> go.Figure:
    """Every run's best and, where it was run again, revalidated value; with their means."""
    figure = go.Figure()
    records = series.final_values(runs)
    kinds = {"best": ("circle", COLORS[0]), "revalidated": ("diamond-open", COLORS[1])}
    for kind, (symbol, color) in kinds.items():
        shown = [{**r, "best": r[kind]} for r in records if math.isfinite(r[kind])]
        if not shown:
            continue
        figure.add_scatter(
            x=_column(shown, "method"),
            y=_column(shown, "best"),
            meta={"methods": _column(shown, "method")},
            name=kind,
            mode="markers",
            marker={"symbol": symbol, "color": color, "size": 8, "opacity": 0.7},
            text=[f"seed {r['seed']}" for r in shown],
            hovertemplate="%{x}, %{text}: %{y:.4f}",
        )
        figure.add_trace(
            _means(series.summaries(shown, "method"), "method", color, f"{kind}: {INTERVAL}")
        )
    figure.update_xaxes(categoryorder="array", categoryarray=list(by_method(runs)))
    return finish(figure, "", f"best {metric_of(runs).name} of a run")


def failures(runs: Sequence[Run]) -> go.Figure:
    """Share of each method's trials that failed, by class."""
    records = series.failures(runs)
    figure = go.Figure()
    for i, status in enumerate(dict.fromkeys(_column(records, "status"))):
        shown = [r for r in records if r["status"] == status]
        figure.add_bar(
            x=_column(shown, "method"),
            y=[100 * r["share"] for r in shown],
            meta={"methods": _column(shown, "method")},
            name=status,
            customdata=_column(shown, "count"),
            hovertemplate="%{x}: %{customdata} trials, %{y:.1f} %",
            marker={"color": COLORS[i % len(COLORS)], "pattern_shape": PATTERNS[i % 8]},
        )
    figure.update_layout(barmode="stack", showlegend=True)
    return finish(figure, "", "failed trials (%)")


def sources(runs: Sequence[Run]) -> go.Figure:
    """Who proposed the improvements, beside who proposed the trials."""
    records = series.sources(runs)
    figure = go.Figure()
    for i, source in enumerate(dict.fromkeys(_column(records, "source"))):
        shown = [r for r in records if r["source"] == source]
        for what in ("trials", "incumbents"):
            figure.add_bar(
                x=[_column(shown, "method"), [what] * len(shown)],
                y=[100 * r[f"{what}_share"] for r in shown],
                meta={"methods": _column(shown, "method")},
                name=source,
                legendgroup=source,
                showlegend=what == "incumbents",
                customdata=_column(shown, what),
                hovertemplate="%{x}: %{customdata} " + what + ", %{y:.1f} %",
                opacity=1.0 if what == "incumbents" else 0.6,
                marker={"color": COLORS[i % len(COLORS)], "pattern_shape": PATTERNS[i % 8]},
            )
    figure.update_layout(barmode="stack")
    return finish(figure, "", "share (%)")


def varied(records: Sequence[Record], key: str, runs: Sequence[Run]) -> go.Figure:
    """Best value against what was varied, an LLM ratio or a model: runs and means."""
    figure = go.Figure()
    style = styles(list(dict.fromkeys(_column(records, "method"))))
    for method, look in style.items():
        shown = [r for r in records if r["method"] == method and math.isfinite(r["best"])]
        figure.add_scatter(
            x=_column(shown, key),
            y=_column(shown, "best"),
            name=f"{method}, a run",
            mode="markers",
            marker={"symbol": look.symbol, "color": look.color, "size": 7, "opacity": 0.5},
            text=[f"seed {r['seed']}" for r in shown],
            hovertemplate="%{text}: %{y:.4f}",
        )
        means = _means(series.summaries(shown, key), key, look.color, f"{method}: {INTERVAL}")
        means.update(mode="lines+markers", line={"color": look.color, "dash": look.dash})
        figure.add_trace(means)
    title = {"ratio": "LLM ratio", "model": ""}[key]
    return finish(figure, title, f"best {metric_of(runs).name} of a run")


def language_model(runs: Sequence[Run]) -> go.Figure:
    """Tokens and seconds of a trial that asked the model, against its number; a menu chooses."""
    figure = go.Figure()
    for method, style, points in _grouped(series.language_model(runs), runs):
        for i, key in enumerate(LLM_MEASURES):
            figure.add_scatter(
                x=_column(points, "trial"),
                y=_column(points, key),
                name=method,
                legendgroup=method,
                meta={"method": method, "measure": key},
                visible=i == 0,
                mode="lines+markers",
                line={"color": style.color, "dash": style.dash, "width": 1},
                marker={"symbol": style.symbol, "size": 6},
                customdata=_column(points, "n"),
                hovertemplate="trial %{x}: %{y:.5~g} (mean of %{customdata} runs)",
            )
    return finish(figure, "trial", "prompt tokens (mean of a trial that asked)")


LLM_MEASURES = ("prompt_tokens", "seconds", "completion_tokens", "cached_tokens")


def failure_map(records: Sequence[Record]) -> go.Figure:
    """Share of the trials that failed in each part of each parameter's range, of one method."""
    names = list(dict.fromkeys(_column(records, "parameter")))
    width = 1 + max((r["bin"] for r in records), default=0)
    shares: list[list[float | None]] = [[None] * width for _ in names]
    texts = [[""] * width for _ in names]
    labels = [[""] * width for _ in names]
    for r in records:
        row, place = names.index(r["parameter"]), r["bin"]
        span = r["choice"] if r["low"] is None else f"{r['low']:.3g} to {r['high']:.3g}"
        texts[row][place] = f"{r['parameter']} {span}: {r['failed']} of {r['trials']} failed"
        if r["trials"]:
            shares[row][place] = 100 * r["share"]
            labels[row][place] = f"{100 * r['share']:.0f}"
        if r["choice"] is not None:
            labels[row][place] = f"{r['choice']} {labels[row][place]}".strip()
    figure = percent_map(
        shares,
        "failed (%)",
        "part of the range, from low to high (or the choice)",
        y=names,
        text=labels,
        hovertext=texts,
        texttemplate="%{text}",
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.update_xaxes(showticklabels=False)
    return figure.update_layout(height=120 + 28 * len(names), margin={"l": 170})


def percent_map(
    z: Sequence[Sequence[float | None]], title: str, x_title: str = "", **options: Any
) -> go.Figure:
    """Rows of percentages as colours, the first row above; ``None`` is left empty."""
    figure = go.Figure(
        go.Heatmap(
            z=z,
            colorscale="Cividis",
            zmin=0,
            zmax=100,
            xgap=2,
            ygap=2,
            colorbar={"title": {"text": title}},
            **options,
        )
    )
    finish(figure, x_title, "")
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def time_unit(runs: Sequence[Run]) -> tuple[str, float]:
    """A unit in which the longest run's training time reads well, and its seconds."""
    longest = max((run.seconds for run in runs), default=0.0)
    if longest >= 2 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest >= 120 else ("seconds", 1.0)


def _means(points: Sequence[Record], key: str, color: str, name: str) -> go.Scatter:
    half = [
        None if math.isnan(point["high"]) else point["high"] - point["mean"] for point in points
    ]
    meta = {"methods": _column(points, "method")} if key == "method" else None
    return go.Scatter(
        x=_column(points, key),
        y=_column(points, "mean"),
        error_y={"array": half, "thickness": 2, "width": 10, "color": color},
        meta=meta,
        name=name,
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 24, "color": color, "line_width": 3},
        customdata=[[p["n"], _number(p["low"]), _number(p["high"])] for p in points],
        hovertemplate="mean of %{customdata[0]}: %{y:.4f} "
        "(%{customdata[1]} to %{customdata[2]})<extra></extra>",
    )


def _grouped(
    records: Sequence[Record], runs: Sequence[Run]
) -> list[tuple[str, Style, list[Record]]]:
    looks: Mapping[str, Style] = styles(list(by_method(runs)))
    methods = dict.fromkeys(_column(records, "method"))
    return [(m, looks[m], [r for r in records if r["method"] == m]) for m in methods]


def _column(records: Sequence[Record], key: str) -> list[Any]:
    return [record[key] for record in records]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def finish(figure: go.Figure, x: str, y: str) -> go.Figure:
    """What all figures have in common, and the axes' titles."""
    figure.update_layout(
        template="simple_white",
        height=440,
        margin={"l": 70, "r": 20, "t": 30, "b": 50},
        legend_title_text="",
    )
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, showgrid=True)
    return figure
