"""The comparison's plots, described by what `series` computed."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

from studies.report.drawing import Drawing
from studies.report.drawing import HeatMap
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


TITLES = {
    "time": "Best so far against training time",
    "trials": "Best so far against trials",
    "runs": "Every run's best",
    "ratios": "LLM ratio",
    "models": "Model against model",
    "sources": "Who found the incumbents",
    "failures": "Failures by class",
    "llm": "Tokens and seconds of the language model",
    "failure-map": "Where trials failed",
}
_INTERVAL = "mean, 95 % interval"


def comparison_plots(
    runs: Sequence[Run], series: Mapping[str, Sequence[Record]]
) -> dict[str, Sequence[Drawing]]:
    """Key of `TITLES` to drawings: of each measure for ``llm``, of all methods and then of each
    for ``failure-map``, and else one. A plot that would be empty is left out.

    Args:
        runs: The runs.
        series: From `series.all_series`, of these runs.
    """
    methods, best = list(by_method(runs)), f"best {metric_of(runs).name}"
    looks = styles(methods)
    unit, seconds = time_unit(runs)
    plots: dict[str, Sequence[Drawing]] = {
        "time": [_best_so_far(series["time"], looks, best, f"training time ({unit})", seconds)],
        "trials": [_best_so_far(series["trials"], looks, best, "trials that ended")],
        "runs": [_final_values(series["final"], methods, best)],
        "failures": [
            Plot(_shares(series["failures"], "status", "count"), y="failed trials (%)",
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
    """A unit in which the longest run's training time reads well, and its seconds."""
    longest = max((run.seconds for run in runs), default=0.0)
    if longest >= 2 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if longest >= 120 else ("seconds", 1.0)


def traces(runs: Sequence[Run]) -> list[Drawing]:
    """Every trial of each method's best run, with its incumbents.

    Of any run the page draws them itself, by the choices of its menus.
    """
    groups = [[run for run in group if run.incumbents] for group in by_method(runs).values()]
    shown = [min(group, key=lambda run: run.best) for group in groups if group]
    if not shown:
        return []
    low = min(run.best for run in shown)
    values = sorted(row.value for run in shown for row in run.rows if row.ok)
    # The worst tenth would flatten all else; it lies above the picture.
    high = values[int(0.9 * (len(values) - 1))]
    room = 0.08 * (high - low or 1.0)
    unit, seconds = time_unit(shown)

    def at(rows: Sequence[Row]) -> list[float]:
        return [row.seconds / seconds for row in rows]

    def trace(run: Run) -> Plot:
        ok, failed = ([row for row in run.rows if row.ok is ok] for ok in (True, False))
        found = [row.value for row in run.incumbents]
        best = Style(COLORS[0])
        return Plot(
            [
                Marks("points", "trial", at(ok), [row.value for row in ok], TRIAL),
                Marks("points", "failed trial", at(failed), [high] * len(failed), FAILURE),
                Marks("points", "", at(run.incumbents), found, best, in_legend=False),
                Marks(
                    "steps",
                    "best so far",
                    at([*run.incumbents, run.rows[-1]]),
                    [*found, run.best],
                    best,
                ),
            ],
            x=f"training time ({unit})",
            y=metric_of(runs).name,
            title=f"{run.method}, seed {run.seed}",
            limits=(low - room, high + room),
        )

    return [trace(run) for run in shown]


def _best_so_far(
    records: Sequence[Record], looks: Mapping[str, Style], best: str, x: str, unit: float = 1.0
) -> Plot:
    """Mean best value with its interval, see `series.best_so_far`."""
    return Plot(
        [
            Marks(
                "steps",
                f"{method} (n={points[0]['n']})",
                [point["x"] / unit for point in points],
                _column(points, "mean"),
                looks[method],
                _column(points, "low"),
                _column(points, "high"),
                methods=[method],
            )
            for method, points in _grouped(records, "method")
        ],
        x=x,
        y=f"{best} so far",
        note=_INTERVAL,
    )


def _final_values(records: Sequence[Record], methods: Sequence[str], best: str) -> Plot:
    """Every run's best and, where it was run again, revalidated value; with their means."""
    marks: list[Marks] = []
    kinds = {"best": Style(COLORS[0]), "revalidated": Style(COLORS[1], symbol="diamond")}
    for kind, style in kinds.items():
        shown = [{**record, "best": record[kind]} for record in records]
        marks += _values(shown, "method", kind, style, part=kind)
    return Plot(marks, y=f"{best} of a run", note=_INTERVAL, categories=methods)


def _varied(records: Sequence[Record], key: str, best: str) -> Plot:
    """Best value against what was varied, an LLM ratio or a model: runs, and a line of means."""
    marks: list[Marks] = []
    looks = styles(list(dict.fromkeys(_column(records, "method"))))
    for method, shown in _grouped(records, "method"):
        marks += _values(shown, key, method, looks[method])
    if key == "model":
        return Plot(marks, y=f"{best} of a run", note=_INTERVAL, categories=_names(records, key))
    return Plot(marks, x="LLM ratio", y=f"{best} of a run", note=_INTERVAL)


def _values(
    records: Sequence[Record], key: str, label: str, style: Style, part: str = ""
) -> list[Marks]:
    """``best`` of each record at its ``key``, and the means with their intervals.

    Parts are kinds of values of one method, and their means aren't joined.
    """
    shown = [record for record in records if math.isfinite(record["best"])]
    if not shown:
        return []
    means = summaries(shown, key)
    by_key = key == "method"
    return [
        Marks(
            "points",
            label,
            _column(shown, key),
            _column(shown, "best"),
            style,
            said=[f"{r['method']}, seed {r['seed']}: {r['best']:.4f}" for r in shown],
            methods=_column(shown, "method") if by_key else (),
            part=part,
            faint=True,
            in_legend=bool(part),
        ),
        Marks(
            "points" if part else "line",
            label,
            _column(means, key),
            _column(means, "mean"),
            Style(style.color, style.dash, MEAN),
            _column(means, "low"),
            _column(means, "high"),
            said=[
                f"mean of {m['n']}: {m['mean']:.4f} ({_number(m['low'])} to {_number(m['high'])})"
                for m in means
            ],
            methods=_column(means, "method") if by_key else (),
            part=part,
            in_legend=not part,
        ),
    ]


def _sources(records: Sequence[Record]) -> Plot:
    """Who proposed the improvements, beside who proposed the trials."""
    marks = [
        mark
        for what in ("trials", "incumbents")
        for mark in _shares(records, "source", what, f"{what}_share", what)
    ]
    return Plot(
        marks,
        y="share (%)",
        note="pale: trials, full: incumbents",
        categories=_names(records, "method"),
    )


def _shares(
    records: Sequence[Record], key: str, count: str, share: str = "share", part: str = ""
) -> list[Marks]:
    """Bars of the kinds of trials, one upon the other; the pale part is that of the trials."""
    looks = styles(_names(records, key))
    return [
        Marks(
            "bars",
            kind,
            _column(shown, "method"),
            [100 * record[share] for record in shown],
            looks[kind],
            said=[
                f"{r['method']}, {kind}: {r[count]} {part or 'trials'}, {100 * r[share]:.1f} %"
                for r in shown
            ],
            methods=_column(shown, "method"),
            part=part,
            faint=part == "trials",
            in_legend=part != "trials",
        )
        for kind, shown in _grouped(records, key)
    ]


def _language_model(records: Sequence[Record], looks: Mapping[str, Style], measure: str) -> Plot:
    """A measure of the trials that asked the model against their numbers; no marks if it's 0."""
    return Plot(
        [
            Marks(
                "line",
                method,
                _column(points, "trial"),
                _column(points, measure),
                looks[method],
                said=[
                    f"{method}, trial {p['trial']}: {p[measure]:.5g} (mean of {p['n']} runs)"
                    for p in points
                ],
                methods=[method],
            )
            for method, points in _grouped(records, "method")
            if any(_column(points, measure))
        ],
        x="trial",
        y=measure.replace("_", " "),
        note="mean of a trial that asked",
    )


def _failure_map(title: str, records: Sequence[Record]) -> HeatMap:
    """Share of the trials that failed in each part of each parameter's range."""
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


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
