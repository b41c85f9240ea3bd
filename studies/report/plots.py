"""The comparison's plots, described by what `series` computed."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
import math
from typing import Any

from studies.report.drawing import Drawing
from studies.report.drawing import HeatMap
from studies.report.drawing import Kind
from studies.report.drawing import Marks
from studies.report.drawing import Plot
from studies.report.runs import metric_of
from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.series import LLM_MEASURES
from studies.report.series import Record
from studies.report.series import summaries
from studies.report.style import COLORS
from studies.report.style import FAILURE
from studies.report.style import MEAN
from studies.report.style import Style
from studies.report.style import styles
from studies.report.style import TRIAL
from studies.report.tables import by_method


_INTERVAL = "mean, 95 % interval"


def comparison_plots(
    runs: Sequence[Run], series: Mapping[str, Sequence[Record]]
) -> dict[str, Sequence[Drawing]]:
    """Describe each plot of the runs and of what `series.all_series` computed of them, by name.

    ``llm`` has a drawing for each measure, ``failure-map`` one of all methods and then one of each,
    and every other name a single one. A plot that would be empty is left out.
    """
    methods, best = list(by_method(runs)), f"best {metric_of(runs).name}"
    looks = styles(methods)
    unit, seconds = time_unit(runs)
    plots: dict[str, Sequence[Drawing]] = {
        "time": [_best_so_far(series["time"], looks, best, f"training time ({unit})", seconds)],
        "trials": [_best_so_far(series["trials"], looks, best, "trials that ended")],
        "runs": [_final_values(series["final"], methods, best)],
        "failures": [
            Plot(_shares(series["failures"], "status", "count", "share"), "", "failed trials (%)",
                 categories=methods)
        ],
        "sources": [_sources(series["sources"])],
        "ratios": [_varied(series["ratios"], "ratio", best)],
        "models": [_varied(series["models"], "model", best)],
        "llm": [_language_model(series["llm"], looks, measure) for measure in LLM_MEASURES],
        "failure-map": [
            _failure_map(method or "all methods", records)
            for method, records in _grouped(series["failure-map"], "method")
            if any(record["failed"] for record in series["failure-map"])
        ],
    }  # fmt: skip
    kept = {
        name: [d for d in drawings if isinstance(d, HeatMap) or d.marks]
        for name, drawings in plots.items()
    }
    return {name: drawings for name, drawings in kept.items() if drawings}


def pictures(
    runs: Sequence[Run], plots: Mapping[str, Sequence[Drawing]]
) -> dict[str, Sequence[Drawing]]:
    """Name to drawings of the static pictures: `comparison_plots`, with the map of all methods
    alone, and each method's best run."""
    drawn = dict(plots)
    if "failure-map" in drawn:
        drawn["failure-map"] = drawn["failure-map"][:1]
    if best := traces(runs):
        drawn["traces"] = best
    return drawn


def time_unit(runs: Sequence[Run]) -> tuple[str, float]:
    """Return a unit in which the longest run's training time reads well, and its seconds."""
    longest = max((run.seconds for run in runs), default=0.0)
    if longest >= 2 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest >= 120 else ("seconds", 1.0)


def traces(runs: Sequence[Run]) -> list[Plot]:
    """Plot every trial of each method's best run, with its incumbents.

    Of any run the page draws them itself, by the choices of its menus.
    """
    groups = [[run for run in group if run.incumbents] for group in by_method(runs).values()]
    shown = [min(group, key=lambda run: run.metric.cost(run.best)) for group in groups if group]
    if not shown:
        return []
    cost = shown[0].metric.cost
    values = sorted((row.value for run in shown for row in run.rows if row.ok), key=cost)
    # The worst tenth would flatten all else; it lies outside of the picture.
    best_value, worst = values[0], values[int(0.9 * (len(values) - 1))]
    room = 0.08 * (worst - best_value or cost(1.0))
    limits = best_value - room, worst + room
    unit, seconds = time_unit(shown)

    def at(rows: Sequence[Row]) -> list[float]:
        return [row.seconds / seconds for row in rows]

    plots = []
    for run in shown:
        ok, failed = ([row for row in run.rows if row.ok is kind] for kind in (True, False))
        found, best = run.incumbents, Style(COLORS[0])
        ends, values = at([*found, run.rows[-1]]), [*(row.value for row in found), run.best]
        marks = [
            Marks("points", "trial", at(ok), [row.value for row in ok], TRIAL),
            Marks("points", "failed trial", at(failed), [worst] * len(failed), FAILURE),
            Marks("points", "", ends[:-1], values[:-1], best, in_legend=False),
            Marks("steps", "best so far", ends, values, best),
        ]
        plots.append(
            Plot(
                marks,
                x=f"training time ({unit})",
                y=metric_of(runs).name,
                title=f"{run.method}, seed {run.seed}",
                limits=(min(limits), max(limits)),
            )
        )
    return plots


def _best_so_far(
    records: Sequence[Record], looks: Mapping[str, Style], best: str, x: str, unit: float = 1.0
) -> Plot:
    """Plot the mean best value with its interval, see `series.best_so_far`."""
    marks = []
    for method, points in _grouped(records, "method"):
        label = f"{method} (n={points[0]['n']})"
        scaled = [{**point, "x": point["x"] / unit} for point in points]
        marks.append(_marks("steps", label, scaled, "x", "mean", looks[method], methods=[method]))
    return Plot(marks, x, f"{best} so far", _INTERVAL)


def _final_values(records: Sequence[Record], methods: Sequence[str], best: str) -> Plot:
    """Plot every run's best value and its revalidated one, if any, with their means."""
    marks: list[Marks] = []
    kinds = {"best": Style(COLORS[0]), "revalidated": Style(COLORS[1], symbol="diamond")}
    for kind, style in kinds.items():
        shown = [{**record, "best": record[kind]} for record in records]
        marks += _values(shown, "method", kind, style, part=kind)
    return Plot(marks, "", f"{best} of a run", _INTERVAL, categories=methods)


def _varied(records: Sequence[Record], key: str, best: str) -> Plot:
    """Plot best values against an LLM ratio or a model: runs, and a line of means."""
    marks: list[Marks] = []
    looks = styles(_names(records, "method"))
    for method, shown in _grouped(records, "method"):
        marks += _values(shown, key, method, looks[method])
    title, places = ("", _names(records, key)) if key == "model" else ("LLM ratio", ())
    return Plot(marks, title, f"{best} of a run", _INTERVAL, categories=places)


def _values(
    records: Sequence[Record], key: str, label: str, style: Style, part: str = ""
) -> list[Marks]:
    """Return marks for ``best`` of each record at its ``key``, and for means with intervals.

    Parts are kinds of values of one method, and their means aren't joined.
    """
    shown = [record for record in records if math.isfinite(record["best"])]
    means = [
        {**m, "range": "-" if math.isnan(m["low"]) else f"{m['low']:.4f} to {m['high']:.4f}"}
        for m in summaries(shown, key)
    ]
    runs = _marks("points", label, shown, key, "best", style, "{method}, seed {seed}: {best:.4f}")
    mean = _marks(
        "points" if part else "line",
        label,
        means,
        key,
        "mean",
        replace(style, symbol=MEAN),
        "mean of {n}: {mean:.4f} ({range})",
    )
    pair = [replace(runs, faint=True), mean] if shown else []
    return [
        replace(
            marks,
            part=part,
            methods=marks.x if key == "method" else (),
            in_legend=(marks is mean) == (not part),
        )
        for marks in pair
    ]


def _sources(records: Sequence[Record]) -> Plot:
    """Show the sources of the improvements beside those of the trials."""
    marks: list[Marks] = []
    for part, faint in (("trials", True), ("incumbents", False)):
        bars = _shares(records, "source", part, f"{part}_share")
        marks += [replace(bar, part=part, faint=faint, in_legend=not faint) for bar in bars]
    note = "pale: trials, full: incumbents"
    return Plot(marks, "", "share (%)", note, categories=_names(records, "method"))


def _shares(records: Sequence[Record], key: str, count: str, share: str) -> list[Marks]:
    """Return bars of the kinds of trials, stacked on one another."""
    looks = styles(_names(records, key))
    word = "incumbents" if count == "incumbents" else "trials"
    said = f"{{method}}, {{{key}}}: {{{count}}} {word}, {{percent:.1f}} %"
    return [
        _marks(
            "bars",
            kind,
            [{**record, "percent": 100 * record[share]} for record in shown],
            "method",
            "percent",
            looks[kind],
            said,
        )
        for kind, shown in _grouped(records, key)
    ]


def _language_model(records: Sequence[Record], looks: Mapping[str, Style], measure: str) -> Plot:
    """Plot a measure of the trials that asked the model; without marks if it is always 0."""
    said = f"{{method}}, trial {{trial}}: {{{measure}:.5g}} (mean of {{n}} runs)"
    marks = [
        _marks("line", method, points, "trial", measure, looks[method], said)
        for method, points in _grouped(records, "method")
        if any(_column(points, measure))
    ]
    return Plot(marks, "trial", measure.replace("_", " "), "mean of a trial that asked")


def _marks(
    kind: Kind,
    label: str,
    records: Sequence[Record],
    x: str,
    y: str,
    style: Style,
    said: str = "",
    methods: Sequence[str] | None = None,
) -> Marks:
    """Return marks of records by their keys; ``said`` is a format of a record."""
    low, high = (_column(records, key) if y == "mean" else [] for key in ("low", "high"))
    texts = [said.format_map(record) for record in records] if said else []
    if methods is None:
        methods = [record.get("method", "") for record in records]
    return Marks(
        kind, label, _column(records, x), _column(records, y), style, low, high, texts, methods
    )


def _failure_map(title: str, records: Sequence[Record]) -> HeatMap:
    """Map the share of the trials that failed in each part of each parameter's range."""
    names = _names(records, "parameter")
    width = 1 + max(record["bin"] for record in records)
    shares: list[list[float | None]] = [[None] * width for _ in names]
    texts = [[""] * width for _ in names]
    said = [[""] * width for _ in names]
    for r in records:
        row, place = names.index(r["parameter"]), r["bin"]
        span = r["choice"] if r["low"] is None else f"{r['low']:.3g} to {r['high']:.3g}"
        said[row][place] = f"{r['parameter']} {span}: {r['failed']} of {r['trials']} failed"
        if r["trials"]:
            shares[row][place] = 100 * r["share"]
            texts[row][place] = f"{100 * r['share']:.0f}"
        if r["choice"] is not None:
            texts[row][place] = f"{r['choice']} {texts[row][place]}".strip()
    x = "part of the range, from low to high (or the choice)"
    return HeatMap(names, shares, texts, said, x, "failed (%)", title)


def _grouped(records: Sequence[Record], key: str) -> Iterator[tuple[Any, list[Record]]]:
    for value in _names(records, key):
        yield value, [record for record in records if record[key] == value]


def _names(records: Sequence[Record], key: str) -> list[Any]:
    return list(dict.fromkeys(_column(records, key)))


def _column(records: Sequence[Record], key: str) -> list[Any]:
    return [record[key] for record in records]
