"""The comparison's plots, described by what `series` computed."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
import math
from statistics import fmean
from typing import Any

from objective.failure import INFEASIBLE
from studies.library import is_library_study
from studies.printable import decimals
from studies.report.drawing import Drawing
from studies.report.drawing import HeatMap
from studies.report.drawing import Kind
from studies.report.drawing import limits_without_worst
from studies.report.drawing import Marks
from studies.report.drawing import Plot
from studies.report.runs import metric_of
from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.series import LLM_MEASURES
from studies.report.series import Record
from studies.report.series import summaries
from studies.report.statistics import FEW
from studies.report.style import BROKEN
from studies.report.style import COLORS
from studies.report.style import FAILURE
from studies.report.style import MEAN
from studies.report.style import PRUNED
from studies.report.style import Style
from studies.report.style import styles
from studies.report.style import TRIAL
from studies.report.tables import by_method
from studies.report.tree import tree_plots


_TRIALS = "trials that ended"
_MEAN = "mean"
_INTERVAL = f"{_MEAN}, 95 % interval"
_SETTLED = 0.1  # of the horizontal axis: the curves' beginnings are before it
_FLATTENED = 4  # a plot this many times as high as its later part shows nothing of that


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
    time = f"{time_title(runs)} ({unit})"
    plots: dict[str, Sequence[Drawing]] = {
        "time": [_best_so_far(runs, series["time"], looks, best, time, seconds)]
        if is_timed(runs)
        else [],
        "trials": [_best_so_far(runs, series["trials"], looks, best, _TRIALS)],
        "runs": [_final_values(series["final"], methods, best)],
        "differences": [_differences(series["differences"], series["final"], best)],
        "seeds": [_by_seed(series["final"], methods, best)],
        "importance": [
            _importance(method or "all methods", records)
            for method, records in _grouped(series["importance"], "method")
        ],
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
        "structures": tree_plots(runs),
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


def is_timed(runs: Sequence[Run]) -> bool:
    """Return whether any run has a training time, which other programs' files need not tell."""
    return any(run.seconds > 0 for run in runs)


def time_title(runs: Sequence[Run]) -> str:
    """Return what the time of the runs is: that of Optuna has all that belongs to a trial."""
    is_foreign = any(is_library_study(run.metadata) for run in runs)
    return "time of the trials" if is_foreign else "training time"


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
    values = [row.value for run in shown for row in run.rows if row.ok]
    worst = max(limits_without_worst(values, cost, room=0.0), key=cost)
    (unit, seconds), timed = time_unit(shown), is_timed(shown)

    def at(rows: Sequence[Row]) -> list[float]:
        return [row.seconds / seconds if timed else row.position for row in rows]

    plots = []
    for run in shown:
        ok = [row for row in run.rows if row.ok]
        failed = [row for row in run.rows if row.failed]
        others = {
            status: [row for row in run.rows if row.status == status]
            for status in ("pruned", INFEASIBLE)
        }
        found, best = run.incumbents, Style(COLORS[0])
        ends, values = at([*found, run.rows[-1]]), [*(row.value for row in found), run.best]
        marks = [
            Marks("points", "trial", at(ok), [row.value for row in ok], TRIAL),
            Marks("points", "failed trial", at(failed), [worst] * len(failed), FAILURE),
            *(
                Marks("points", f"{status} trial", at(rows), [worst] * len(rows), look)
                for (status, rows), look in zip(others.items(), (PRUNED, BROKEN))
            ),
            Marks("points", "", ends[:-1], values[:-1], best, in_legend=False),
            Marks("steps", "best so far", ends, values, best),
        ]
        plots.append(
            Plot(
                [each for each in marks if each.x],
                x=f"{time_title(runs)} ({unit})" if timed else _TRIALS,
                y=metric_of(runs).name,
                title=run.label,
                limits=limits_without_worst(values, cost),
            )
        )
    return plots


def _best_so_far(
    runs: Sequence[Run],
    records: Sequence[Record],
    looks: Mapping[str, Style],
    best: str,
    x: str,
    unit: float | None = None,
) -> Plot:
    """Plot the mean best value, see `series.best_so_far`, with its interval.

    An interval of three runs or fewer would hide everything: the runs stand in its place.

    Args:
        runs: All runs.
        records: Of their means.
        looks: By method.
        best: What the values are.
        x: Title of the horizontal axis.
        unit: Seconds that are one on it; None if it counts trials.
    """
    marks, groups, few = [], by_method(runs), False
    for method, points in _grouped(records, "method"):
        n, final = points[0]["n"], points[-1]["mean"]
        label = f"{method}: {decimals(final)} (n={n})"
        singles = [run for run in groups[method] if run.incumbents] if 1 < n <= FEW else []
        few = few or bool(singles)
        for run in singles:
            ends = [*run.incumbents, run.rows[-1]]
            at = [row.position if unit is None else row.seconds / unit for row in ends]
            values = [*(row.value for row in run.incumbents), run.best]
            marks.append(
                Marks("steps", label, at, values, looks[method], methods=[method], faint=True,
                      in_legend=False)
            )  # fmt: skip
        scaled = [{**point, "x": point["x"] / (unit or 1)} for point in points]
        mean = _marks("steps", label, scaled, "x", "mean", looks[method], methods=[method])
        marks.append(replace(mean, low=(), high=()) if singles else mean)
    settled = _SETTLED * max((x for curve in marks for x in curve.x), default=0.0)
    late = [
        y
        for curve in marks
        for x, y in zip(curve.x, curve.y)
        if (x >= settled or x == curve.x[-1]) and not curve.faint  # where it ends is always shown
    ]
    limits = _limits([y for curve in marks for y in curve.y], late)
    note = _note(marks)
    note = f"{note}; pale: single runs" if few else note
    return Plot(marks, x, f"{best} so far", note, limits=limits)


def _limits(values: Sequence[float], late: Sequence[float]) -> tuple[float, float] | None:
    """Return limits that show what curves came to, if their beginnings would flatten all else."""
    if not late:
        return None
    low, high = min(late), max(late)
    room = (high - low) or abs(high) * 0.01
    if not room or max(values) - min(values) < _FLATTENED * room:
        return None
    return low - 0.5 * room, high + 1.5 * room


def _note(marks: Sequence[Marks]) -> str:
    """Say what is drawn beside the means."""
    return _MEAN if all(math.isnan(low) for m in marks for low in m.low) else _INTERVAL


def _range(record: Record, spec: str) -> str:
    low, high = record["low"], record["high"]
    return "" if math.isnan(low) else f" ({low:{spec}} to {high:{spec}})"


def _differences(records: Sequence[Record], finals: Sequence[Record], best: str) -> Plot:
    """Plot how far each method is from the reference on the same seeds: of few seeds each, too."""
    said = "{method}: {mean:+.4g}{range} on {n} seeds"
    records = [{**r, "range": _range(r, "+.4g")} for r in records]
    few = [pair for r in records if r["n"] <= FEW for pair in _pairs(r, finals)]
    singles = _marks("points", "seed", few, "method", "difference", Style(COLORS[0]),
                     "{method}, seed {seed}: {difference:+.4g}")  # fmt: skip
    mean = Style(COLORS[1], symbol="diamond")
    marks = _marks("points", "difference", records, "method", "mean", mean, said)
    reference, value = (records[0]["reference"], records[0]["value"]) if records else ("", "")
    kind = f"{value} " if value != "best" else ""
    drawn = [replace(singles, faint=True), marks] if few else [marks]
    return Plot(
        [replace(each, in_legend=False) for each in drawn] if records else [],
        y=f"{kind}{best}, minus that of {reference} on the same seed",
        note=f"{_note([marks])}; pale: single seeds" if few else _note([marks]),
        categories=_names(records, "method"),
        across=True,
        zero=True,
    )


def _pairs(record: Record, finals: Sequence[Record]) -> Iterator[Record]:
    """Yield a method's difference from the reference on each seed that both have."""
    of: dict[str, dict[int, list[float]]] = {record["method"]: {}, record["reference"]: {}}
    for run in finals:
        if run["method"] in of and math.isfinite(run[record["value"]]):
            of[run["method"]].setdefault(run["seed"], []).append(run[record["value"]])
    own, others = of[record["method"]], of[record["reference"]]
    for seed in sorted(own.keys() & others.keys()):
        difference = fmean(own[seed]) - fmean(others[seed])
        yield {"method": record["method"], "seed": seed, "difference": difference}


def _by_seed(records: Sequence[Record], methods: Sequence[str], best: str) -> Plot:
    """Join the best values of a seed: where lines cross, the better method depends on the seed."""
    shown = [record for record in records if math.isfinite(record["best"])]
    marks = []
    looks = styles([str(seed) for seed in _names(shown, "seed")])
    for seed, of_seed in sorted(_grouped(shown, "seed")):
        if len(of_seed) > 1 and len(_names(of_seed, "method")) > 1:
            of_seed.sort(key=lambda record: methods.index(record["method"]))
            said = "{method}, seed {seed}: {best:.5g}"
            label, look = f"seed {seed}", looks[str(seed)]
            marks.append(_marks("line", label, of_seed, "method", "best", look, said))
    return Plot(marks if len(marks) > 1 else [], "", f"{best} of a run", categories=methods)


def _importance(title: str, records: Sequence[Record]) -> Plot:
    said = "{parameter}: {percent:.1f} % (of {trials} trials)"
    shown = [{**record, "percent": 100 * record["importance"]} for record in records]
    bars = _marks("bars", title, shown, "parameter", "percent", Style(COLORS[0]), said, [])
    return Plot(
        [replace(bars, in_legend=False)],
        "",
        "importance (%)",
        title=title,
        categories=_names(records, "parameter"),
    )


def _final_values(records: Sequence[Record], methods: Sequence[str], best: str) -> Plot:
    """Plot every run's best value and its revalidated one, if any, with their means."""
    marks: list[Marks] = []
    kinds = {"best": Style(COLORS[0]), "revalidated": Style(COLORS[1], symbol="diamond")}
    for kind, style in kinds.items():
        shown = [{**record, "best": record[kind]} for record in records]
        marks += _values(shown, "method", kind, style, part=kind)
    return Plot(marks, "", f"{best} of a run", _note(marks), categories=methods)


def _varied(records: Sequence[Record], key: str, best: str) -> Plot:
    """Plot best values against an LLM ratio or a model: runs, and a line of means."""
    marks: list[Marks] = []
    looks = styles(_names(records, "method"))
    for method, shown in _grouped(records, "method"):
        marks += _values(shown, key, method, looks[method])
    title, places = ("", _names(records, key)) if key == "model" else ("LLM ratio", ())
    return Plot(marks, title, f"{best} of a run", _note(marks), categories=places)


def _values(
    records: Sequence[Record], key: str, label: str, style: Style, part: str = ""
) -> list[Marks]:
    """Return marks for ``best`` of each record at its ``key``, and for means with intervals.

    Parts are kinds of values of one method, and their means aren't joined.
    """
    shown = [record for record in records if math.isfinite(record["best"])]
    means = [{**m, "range": _range(m, ".5g")} for m in summaries(shown, key)]
    runs = _marks("points", label, shown, key, "best", style, "{method}, seed {seed}: {best:.5g}")
    mean = _marks(
        "points" if part else "line",
        label,
        means,
        key,
        "mean",
        replace(style, symbol=MEAN),
        "mean of {n}: {mean:.5g}{range}",
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
        if r["low"] is None:  # a choice, which may be None
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
