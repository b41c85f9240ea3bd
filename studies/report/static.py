"""Drawings as static pictures for papers, by matplotlib.

Not by plotly: its kaleido drives a whole browser. matplotlib is what Optuna's own optional
extras install, needs no display, and writes SVG, PDF and PNG.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import fields
from dataclasses import is_dataclass
from dataclasses import replace
import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from studies.printable import printable
from studies.report.drawing import Drawing
from studies.report.drawing import HeatMap
from studies.report.drawing import Marks
from studies.report.drawing import Plot
from studies.report.style import DASHES
from studies.report.style import FAILED
from studies.report.style import MEAN
from studies.report.style import SYMBOLS


_DASHES: Mapping[str, Any] = dict(zip(DASHES, ("-", "--", ":", "-.", (0, (8, 3)))))
_MARKERS = {**dict(zip(SYMBOLS, "osD^P*h")), MEAN: "_", FAILED: "x"}
# The same input gives the same bytes, so that pictures can be committed; fonts that a paper's
# publisher accepts (not Type 3).
_SETTINGS: Any = {
    "svg.hashsalt": "autoresearch",
    "pdf.fonttype": 42,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
}
_FAINT = 0.5  # opacity
_BREADTH = {"bars": 0.8, "points": 0.5}  # of all parts of a category
_MOST_INSIDE = 7  # entries of a legend that finds room in a plot
_PANEL = 3.4, 2.6  # inches
_METADATA: Mapping[str, Any] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}


def save(pictures: Mapping[str, Sequence[Drawing]], folder: Path, format_: str) -> list[Path]:
    """Write pictures of drawings by name as ``svg``, ``pdf`` or ``png``, the same bytes every time."""
    written = []
    with matplotlib.rc_context(_SETTINGS):
        for name, drawings in pictures.items():
            path = folder / f"{name}.{format_}"
            draw(_literal(drawings)).savefig(path, format=format_, metadata=_METADATA[format_])
            written.append(path)
    return written


def _literal(drawing: Any) -> Any:
    """Return drawings whose names are drawn as they are: matplotlib takes ``$`` for a formula."""
    if isinstance(drawing, str):
        return printable(drawing).replace("$", r"\$")
    if is_dataclass(drawing) and not isinstance(drawing, type):
        parts = {each.name: _literal(getattr(drawing, each.name)) for each in fields(drawing)}
        return replace(drawing, **parts)
    if isinstance(drawing, dict):
        return {_literal(name): _literal(value) for name, value in drawing.items()}
    if isinstance(drawing, (list, tuple)):
        return type(drawing)(_literal(part) for part in drawing)
    return drawing


def draw(drawings: Sequence[Drawing]) -> Figure:
    """Draw a single drawing, or several as panels with one legend."""
    if len(drawings) > 1:
        return _draw_panels(drawings)
    (drawing,) = drawings
    figure = Figure(_size(drawing))
    axes = figure.add_subplot()
    _draw(axes, drawing)
    labels = axes.get_legend_handles_labels()[1]
    has_bars = isinstance(drawing, Plot) and any(m.kind == "bars" for m in drawing.marks)
    if labels and (has_bars or len(labels) > _MOST_INSIDE):
        axes.legend(bbox_to_anchor=(1, 1), loc="upper left")
    elif labels:
        axes.legend()
    return figure


def _draw_panels(drawings: Sequence[Drawing]) -> Figure:
    columns = math.ceil(math.sqrt(len(drawings)))
    lines = math.ceil(len(drawings) / columns)
    first = drawings[0]
    width, height = _size(first) if isinstance(first, Plot) and first.across else _PANEL
    figure = Figure((columns * width, lines * height), layout="constrained")
    alike = all(isinstance(drawing, Plot) and drawing.limits for drawing in drawings)
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=alike).flat)
    while len(panels) > len(drawings):
        panels.pop().set_visible(False)
    entries: dict[str, Any] = {}
    for axes, drawing in zip(panels, drawings):
        _draw(axes, drawing)
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
    titles = {axes.get_ylabel() for axes in panels}
    if len(titles) == 1 and any(titles):
        figure.supylabel(titles.pop())
        for axes in panels:
            axes.set_ylabel("")
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=3)
        figure.set_figheight(lines * height + 0.2 * (1 + math.ceil(len(entries) / 3)))
    return figure


def _size(drawing: Drawing) -> tuple[float, float]:
    """Return the width and height in inches of a drawing that stands alone."""
    if isinstance(drawing, HeatMap):
        return 5.5, 1.0 + 0.25 * len(drawing.rows)
    if drawing.across:
        return 4.2, 0.6 + 0.32 * len(drawing.categories)
    return max(4.0, 0.8 * len(drawing.categories)) if drawing.categories else 6.0, 3.6


def _draw(axes: Axes, drawing: Drawing) -> None:
    axes.set_title(drawing.title)
    if isinstance(drawing, HeatMap):
        _draw_map(axes, drawing)
        return
    parts = list(dict.fromkeys(marks.part for marks in drawing.marks))
    places = {category: i for i, category in enumerate(drawing.categories)}
    tops: dict[float, float] = {}  # of the bars so far
    for marks in drawing.marks:
        breadth = _BREADTH.get(marks.kind, 0.0) / len(parts)
        shift = breadth * (parts.index(marks.part) - (len(parts) - 1) / 2)
        x = [places.get(place, place) + shift for place in marks.x]
        if marks.kind == "bars":
            axes.grid(axis="x", visible=False)
            bottom = [tops.get(place, 0.0) for place in x]
            tops |= {place: low + y for place, low, y in zip(x, bottom, marks.y)}
            more: dict[str, Any] = {"width": breadth, "bottom": bottom, "edgecolor": "white"}
            axes.bar(x, marks.y, hatch=marks.style.pattern * 2, **more, **_look(marks))
        elif marks.kind == "steps":
            line, color = _DASHES[marks.style.dash], marks.style.color
            width = 0.8 if marks.faint else 1.5
            axes.step(x, marks.y, where="post", linestyle=line, linewidth=width, **_look(marks))
            if marks.low and not math.isnan(marks.low[0]):
                band: dict[str, Any] = {"step": "post", "color": color, "alpha": 0.15, "lw": 0}
                axes.fill_between(x, marks.low, marks.high, **band)
        else:
            _draw_points(axes, marks, x, across=drawing.across)
    if drawing.across:
        axis, title = "x", drawing.values
        axes.set_ylabel(drawing.x)
        axes.set_yticks(range(len(places)), drawing.categories)
        axes.invert_yaxis()
    else:
        axis, title = "y", drawing.values.replace(f" ({drawing.note})", f"\n({drawing.note})")
        axes.set_xlabel(drawing.x)
        if places:
            axes.set_xticks(range(len(places)), drawing.categories, rotation=30, ha="right")
    axes.set(**{f"{axis}label": title, f"{axis}scale": "log" if drawing.log else "linear"})
    if drawing.zero:
        (axes.axvline if drawing.across else axes.axhline)(0, color="#7F7F7F", linewidth=1)
    if drawing.limits:
        axes.set(**{f"{axis}lim": drawing.limits})


def _draw_points(axes: Axes, marks: Marks, x: Sequence[float], *, across: bool) -> None:
    style = marks.style
    errors: dict[str, Any] = {}
    if marks.low:
        y, low, high = map(np.asarray, (marks.y, marks.low, marks.high))
        errors["xerr" if across else "yerr"] = np.nan_to_num([y - low, high - y])
    first, second = (marks.y, x) if across else (x, marks.y)
    axes.errorbar(
        first,
        second,
        **errors,
        **_look(marks),
        marker=_MARKERS[style.symbol],
        markersize=12 if style.symbol == MEAN else 5 if marks.low else 4,
        linestyle=_DASHES[style.dash] if marks.kind == "line" else "none",
        linewidth=1.5 if marks.low else 0.8,
        capsize=4,
    )


def _look(marks: Marks) -> dict[str, Any]:
    label = marks.label if marks.in_legend else "_nolegend_"
    return {"color": marks.style.color, "label": label, "alpha": _FAINT if marks.faint else 1}


def _draw_map(axes: Axes, drawing: HeatMap) -> None:
    shares = np.array(drawing.shares, dtype=float)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        color = "black" if share > 50 else "white"
        axes.text(j, i, drawing.texts[i][j], color=color, ha="center", va="center", fontsize=7)
    axes.set_yticks(range(len(drawing.rows)), drawing.rows)
    axes.set(xticks=[], xlabel=drawing.x)
    axes.grid(visible=False)
    axes.figure.colorbar(image, label=drawing.y)
