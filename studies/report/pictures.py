"""The comparison's plots as static pictures for papers, drawn by matplotlib.

Not by plotly: its kaleido drives a whole browser. matplotlib is what Optuna's own optional
extras install, needs no display, and writes SVG, PDF and PNG.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from studies.report import series
from studies.report.plots import INTERVAL
from studies.report.plots import time_unit
from studies.report.runs import metric_of
from studies.report.runs import Run
from studies.report.series import Record
from studies.report.style import COLORS
from studies.report.style import FAILURE
from studies.report.style import PATTERNS
from studies.report.style import styles
from studies.report.tables import by_method


DASHES: Mapping[str, Any] = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
}
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "cross": "P",
    "star": "*",
    "hexagon": "h",
}
# The same input gives the same bytes, so that pictures can be committed; fonts that a paper's
# publisher accepts (not Type 3).
SETTINGS: Any = {
    "svg.hashsalt": "autoresearch",
    "pdf.fonttype": 42,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
}
_METADATA: Mapping[str, Any] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}


def write_pictures(runs: Sequence[Run], folder: Path, format_: str) -> list[Path]:
    """Write every picture that the runs have something to show in.

    Args:
        runs: The runs.
        folder: Exists.
        format_: ``svg``, ``pdf`` or ``png``.
    """
    with matplotlib.rc_context(SETTINGS):
        return save(pictures(runs), folder, format_)


def save(figures: Mapping[str, Figure], folder: Path, format_: str) -> list[Path]:
    """Write each figure under its name, the same bytes every time."""
    written = []
    with matplotlib.rc_context(SETTINGS):
        for name, figure in figures.items():
            path = folder / f"{name}.{format_}"
            figure.savefig(path, format=format_, metadata=_METADATA[format_])
            written.append(path)
    return written


def pictures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Name to picture."""
    ratios, models = series.ratios(runs), series.models(runs)
    figures = {
        "time": _curves(runs, "seconds"),
        "trials": _curves(runs, "trials"),
        "runs": _final_values(runs),
        "traces": _traces(runs),
        "failures": _shares(series.failures(runs), "status", "share", "failed trials (%)"),
        "failure-map": _failure_map(runs),
        "sources": _shares(
            series.sources(runs),
            "source",
            "incumbents_share",
            "share of the improvements (%)",
        ),
        "ratios": _varied(ratios, "ratio", "LLM ratio", metric_of(runs).name),
        "models": _varied(models, "model", "", metric_of(runs).name),
        "llm": _language_model(runs),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _axes(width: float = 6.0, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _curves(runs: Sequence[Run], against: str) -> Figure | None:
    records = series.best_so_far(runs, against)
    if not records:
        return None
    unit, divisor = time_unit(runs) if against == "seconds" else ("", 1.0)
    figure, axes = _axes()
    looks = styles(list(by_method(runs)))
    for method, points in _grouped(records).items():
        look = looks[method]
        x = [point["x"] / divisor for point in points]
        axes.step(
            x,
            [point["mean"] for point in points],
            where="post",
            color=look.color,
            linestyle=DASHES[look.dash],
            label=f"{method} (n={points[0]['n']})",
        )
        if points[0]["n"] > 1:
            low, high = ([point[key] for point in points] for key in ("low", "high"))
            axes.fill_between(x, low, high, step="post", color=look.color, alpha=0.15, lw=0)
    axes.set_xlabel(f"training time ({unit})" if unit else "trials that ended")
    axes.set_ylabel(f"best {metric_of(runs).name} so far\n({INTERVAL})")
    axes.legend(frameon=False)
    return figure


def _final_values(runs: Sequence[Run]) -> Figure | None:
    records = series.final_values(runs)
    methods = list(by_method(runs))
    if not any(math.isfinite(record["best"]) for record in records):
        return None
    figure, axes = _axes(max(4.0, 0.8 * len(methods)))
    for kind, marker, color, shift in (
        ("best", "o", COLORS[0], -0.12),
        ("revalidated", "D", COLORS[1], 0.12),
    ):
        shown = [{**r, "best": r[kind]} for r in records if math.isfinite(r[kind])]
        if not shown:
            continue
        x = [methods.index(r["method"]) + shift for r in shown]
        y = [r["best"] for r in shown]
        axes.plot(x, y, marker, color=color, alpha=0.5, markersize=4, label=kind)
        means = series.summaries(shown, "method")
        _error_bars(axes, [methods.index(r["method"]) + shift for r in means], means, color)
    axes.set_xticks(range(len(methods)), methods, rotation=30, ha="right")
    axes.set_ylabel(f"best {metric_of(runs).name} of a run")
    axes.legend(frameon=False)
    return figure


def _traces(runs: Sequence[Run]) -> Figure | None:
    """Every trial of each method's best run, with its incumbents."""
    shown = [
        min(group, key=lambda run: run.best)
        for group in (
            [run for run in group if run.incumbents] for group in by_method(runs).values()
        )
        if group
    ]
    if not shown:
        return None
    columns = min(3, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(3.0 * columns, 2.4 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    low = min(run.best for run in shown)
    values = sorted(row.value for run in shown for row in run.rows if row.ok)
    # The worst tenth would flatten all else; it lies above the picture.
    high = values[int(0.9 * (len(values) - 1))]
    room = 0.08 * (high - low or 1.0)
    unit, divisor = time_unit(shown)
    for run, axes in zip(shown, grid.flat):
        ok = [row for row in run.rows if row.ok]
        failed = [row for row in run.rows if not row.ok]
        axes.plot(*_points(ok, divisor), "o", color="#999999", markersize=3)
        axes.plot(
            [r.seconds / divisor for r in failed], [high] * len(failed), "x", color=FAILURE, ms=4
        )
        ends = [*run.incumbents, run.rows[-1]]
        axes.step(
            [row.seconds / divisor for row in ends],
            [*(row.value for row in run.incumbents), run.best],
            where="post",
            color=COLORS[0],
        )
        axes.plot(*_points(run.incumbents, divisor), "o", color=COLORS[0], markersize=4)
        axes.set_title(f"{run.method}, seed {run.seed}", fontsize=9)
        axes.set_ylim(low - room, high + room)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel(f"training time ({unit}); x: failed", fontsize=9)
    figure.supylabel(metric_of(runs).name, fontsize=9)
    return figure


def _points(rows: Sequence[Any], divisor: float) -> tuple[list[float], list[float]]:
    return [row.seconds / divisor for row in rows], [row.value for row in rows]


def _shares(records: Sequence[Record], key: str, share: str, label: str) -> Figure | None:
    methods = list(_grouped(records))
    if not methods:
        return None
    figure, axes = _axes(max(4.0, 0.8 * len(methods)))
    bottom = np.zeros(len(methods))
    for i, kind in enumerate(dict.fromkeys(record[key] for record in records)):
        of = {r["method"]: 100 * r[share] for r in records if r[key] == kind}
        heights = np.array([of.get(method, 0.0) for method in methods])
        axes.bar(
            methods,
            heights,
            bottom=bottom,
            label=kind,
            color=COLORS[i % len(COLORS)],
            hatch=PATTERNS[i % len(PATTERNS)] * 2,
            edgecolor="white",
        )
        bottom += heights
    axes.set_xticks(range(len(methods)), methods, rotation=30, ha="right")
    axes.set_ylabel(label)
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return figure


def _failure_map(runs: Sequence[Run]) -> Figure | None:
    records = [record for record in series.failure_map(runs) if record["method"] == ""]
    if not any(record["failed"] for record in records):
        return None
    names = list(dict.fromkeys(record["parameter"] for record in records))
    shares = np.full((len(names), 1 + max(record["bin"] for record in records)), math.nan)
    for record in records:
        shares[names.index(record["parameter"]), record["bin"]] = 100 * record["share"]
    figure, axes = _axes(5.5, 1.0 + 0.25 * len(names))
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.set_xlabel("part of the range, from low to high (or the choice)")
    figure.colorbar(image, label="failed (%)")
    return figure


def _varied(records: Sequence[Record], key: str, label: str, metric: str) -> Figure | None:
    if not records:
        return None
    figure, axes = _axes(4.5)
    places = list(dict.fromkeys(record[key] for record in records))
    looks = styles(list(_grouped(records)))
    for method, group in _grouped(records).items():
        look = looks[method]
        shown = [r for r in group if math.isfinite(r["best"])]
        at = {place: place if key == "ratio" else i for i, place in enumerate(places)}
        axes.plot(
            [at[r[key]] for r in shown],
            [r["best"] for r in shown],
            MARKERS[look.symbol],
            color=look.color,
            alpha=0.4,
            markersize=4,
        )
        means = series.summaries(shown, key)
        x = [at[r[key]] for r in means]
        axes.plot(x, [r["mean"] for r in means], color=look.color, label=method)
        _error_bars(axes, x, means, look.color)
    if key == "model":
        axes.set_xticks(range(len(places)), places, rotation=30, ha="right")
    axes.set_xlabel(label)
    axes.set_ylabel(f"best {metric} of a run\n({INTERVAL})")
    axes.legend(frameon=False)
    return figure


def _language_model(runs: Sequence[Run]) -> Figure | None:
    records = series.language_model(runs)
    if not records:
        return None
    figure = Figure(figsize=(7.0, 3.0), layout="constrained")
    looks = styles(list(by_method(runs)))
    for axes, key in zip(figure.subplots(1, 2), ("prompt_tokens", "seconds")):
        for method, points in _grouped(records).items():
            look = looks[method]
            axes.plot(
                [point["trial"] for point in points],
                [point[key] for point in points],
                marker=MARKERS[look.symbol],
                linestyle=DASHES[look.dash],
                color=look.color,
                markersize=3,
                linewidth=0.8,
                label=method,
            )
        axes.set_xlabel("trial")
        axes.set_ylabel(key.replace("_", " "))
    axes.legend(frameon=False)
    return figure


def _error_bars(axes: Axes, x: Sequence[float], means: Sequence[Record], color: str) -> None:
    half = [0.0 if math.isnan(r["high"]) else r["high"] - r["mean"] for r in means]
    mean = [r["mean"] for r in means]
    axes.errorbar(x, mean, half, fmt="_", color=color, capsize=4, markersize=12, linewidth=1.5)


def _grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["method"], []).append(record)
    return groups
