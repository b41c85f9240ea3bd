"""One HTML page with every table and plot, which needs no network and no other file."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
import json
import math
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from studies.report import plots
from studies.report import series
from studies.report import tables
from studies.report import transcripts
from studies.report.notes import notes
from studies.report.page_data import page_transcripts
from studies.report.page_data import page_trials
from studies.report.page_data import script_json
from studies.report.page_tables import cost_table
from studies.report.page_tables import tests_table
from studies.report.page_tables import values_table
from studies.report.runs import metric_of
from studies.report.runs import Run
from studies.report.statistics import in_words


@dataclass(frozen=True)
class Section:
    """A heading, what it shows and how to read it.

    Attributes:
        name: Short, for the link at the top.
        title: The heading.
        text: Plain text under it.
        body: HTML of tables, controls and plots.
    """

    name: str
    title: str
    text: str
    body: str


@dataclass(frozen=True)
class Report:
    """What a page is made of.

    Attributes:
        runs: At least one.
        reference: The method that the others are compared with.
        title: Heading of the page.
        unstarted: Studies in which no trial has ended.
        prices: Of the language model's tokens.
        said: Transcripts, see `transcripts.load_transcripts`.
    """

    runs: Sequence[Run]
    reference: str
    title: str = "Comparison of methods"
    unstarted: Sequence[str] = ()
    prices: tables.Prices = tables.Prices()
    said: Sequence[Mapping[str, Any]] = ()


def build_page(report: Report) -> str:
    """The page of a report."""
    runs = report.runs
    figures, metric = _figures(runs), metric_of(runs)
    count = sum(len(run.rows) for run in runs)
    return render(
        report.title,
        f"{_count(len(runs), 'run')} of {_count(len(tables.by_method(runs)), 'method')}, "
        f"{_count(count, 'trial')}. Values are {metric}: {metric.better} is better.",
        list(_sections(report, figures)),
        figures,
        page_trials(runs),
        page_transcripts(report.said, runs),
    )


def render(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    figures: Mapping[str, go.Figure],
    trials: Mapping[str, Any] | None = None,
    said: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A page with everything in it that it needs.

    Args:
        title: Its heading.
        subtitle: What stands under it.
        sections: In their order.
        figures: What sections refer to by ``data-figure``.
        trials: Of single runs, see `page_data.page_trials`.
        said: Transcripts, see `page_data.page_transcripts`.
    """
    resources = files("studies.report")
    return Template(resources.joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        nav="".join(f'<a href="#s{i}">{escape(s.name)}</a>' for i, s in enumerate(sections)),
        sections="\n".join(_section(i, section) for i, section in enumerate(sections)),
        figures=script_json({key: json.loads(f.to_json()) for key, f in figures.items()}),
        trials=script_json(trials or {}),
        transcripts=script_json(said),
        plotly=get_plotlyjs(),
        script=resources.joinpath("page.js").read_text("utf-8"),
    )


def _figures(runs: Sequence[Run]) -> dict[str, go.Figure]:
    figures = plots.comparison_plots(runs)
    records = series.failure_map(runs)
    if not records:  # a code agent's runs only, which have no parameters
        return figures
    for i, method in enumerate(["", *tables.by_method(runs)]):
        shown = [record for record in records if record["method"] == method]
        figures[f"map-{i}"] = plots.failure_map(shown)
    return figures


def _sections(report: Report, figures: Mapping[str, go.Figure]) -> Iterator[Section]:
    yield from _result_sections(report)
    yield from _comparison_sections(figures, list(tables.by_method(report.runs)))
    yield from _run_sections(report.runs)
    if report.said:
        shown = sorted({entry["run"] for entry in report.said})
        menus = _menu("transcript-run", "Run", [(i, _name(report.runs[i])) for i in shown])
        yield Section(
            "Prompts",
            "Prompts and replies",
            f"{transcripts.counts(report.runs, report.said)}: the improvements and a sample of the "
            "others; long ones without their middle. All of them are artifacts of the trials.",
            f'<div class="controls">{menus}{_menu("transcript-trial", "Trial", [])}</div>'
            '<pre id="transcript" tabindex="0" aria-label="Prompt and reply"></pre>',
        )


def _result_sections(report: Report) -> Iterator[Section]:
    runs, methods = report.runs, list(tables.by_method(report.runs))
    tests = tables.all_comparisons(runs, report.reference)
    found = "".join(
        f"<p>By the {what}:</p>{_list(in_words(tests[kind]))}"
        for kind, what in (("revalidated", "revalidated best values"), ("best", "best values"))
        if tests.get(kind)
    )
    warnings = notes(runs, report.reference, report.unstarted)
    known = f"<p>To bear in mind:</p>{_list(warnings)}" if warnings else ""
    yield Section("Findings", "What can be said", "", found + known or "<p>One method only.</p>")
    rows = tables.method_rows(runs, report.prices)
    yield Section(
        "Methods",
        "Methods",
        "Best value of a run: mean over runs, sample standard deviation, 95 % interval of the "
        "mean (Student's t), and the number n of runs with a value. Revalidated: the best "
        "configuration trained again with fresh seeds; the best of many noisy trials is lucky, "
        "its mean on repetition is not. That is the mean of the repetitions that did not fail. "
        "Luck: by how much it was worse then.",
        method_boxes("Methods shown", methods) + values_table(rows) + cost_table(rows),
    )
    if len(methods) > 1:
        yield Section(
            "Tests",
            f"Against {report.reference}",
            "Wilcoxon's signed-rank test on runs paired by seed, one-sided (the method is better) "
            "and two-sided, each also corrected by Holm for the number of methods; those with too "
            "few seeds for any significance have no corrected value and don't count. Difference: "
            "mean of method minus reference, with its 95 % interval. Effect: rank-biserial "
            "correlation among the seeds that differ, -1 if the method is better on all of them.",
            "".join(tests_table(rows, kind) for kind, rows in tests.items()),
        )


def _comparison_sections(
    figures: Mapping[str, go.Figure], methods: Sequence[str]
) -> Iterator[Section]:
    texts = {
        "time": (
            "Time",
            "Steps: a value counts from the moment when its trial ended. A curve begins when all "
            "runs of its method have a value and ends where the first of them ends.",
        ),
        "trials": ("Trials", "Failed trials count."),
        "runs": ("Runs", "A point is a run; the bar is the mean."),
        "ratios": ("Ratio", "Share of the trials that the language model decides."),
        "models": ("Models", "The same method with several models."),
        "sources": (
            "Sources",
            "Share of the trials that each source proposed, beside its share of the improvements "
            "on a run's first value. base: the method without a language model (Centaur's CMA-ES).",
        ),
        "failures": ("Failures", "Share of all trials of a method."),
        "llm": ("Tokens", "Means over the runs that asked in that trial."),
    }
    for key, (name, text) in texts.items():
        if key in figures:
            title, controls = plots.TITLES[key], ""
            if key == "llm":
                measures = [(m, m.replace("_", " ")) for m in plots.LLM_MEASURES]
                controls = _menu("", "Measure", measures, 'data-chooses="measure"')
            yield Section(name, title, text, plot(title, f'data-figure="{key}"', controls))
    if "map-0" not in figures:
        return
    labels = [(f"map-{i}", label) for i, label in enumerate(["all methods", *methods])]
    yield Section(
        "Failure map",
        "Where trials failed",
        "Share of the trials that failed in each part of each parameter's range (of its logarithm "
        "where the range is logarithmic). Empty: no trial was there.",
        plot(
            "Where trials failed",
            'data-figure="map-0"',
            figure_menu("Method", labels),
        ),
    )


def _run_sections(runs: Sequence[Run]) -> Iterator[Section]:
    single = _run_menu(runs, groups=False)
    several = _run_menu(runs, groups=True)
    names = [(name, name) for name in tables.parameters(runs)]
    x = _menu("", "Against", [("time", "training time"), ("trials", "trials")], _setting("x"))
    yield Section(
        "Traces",
        "Trials and incumbents",
        "Every trial of a run by who proposed it; rings are incumbents. Failures are marked at "
        "the top, values far above the others lie outside: double-click shows them.",
        plot("Trials and incumbents", 'data-view="trace"', single + x),
    )
    if not names:
        return
    yield Section(
        "Parameters",
        "Parameters over trials",
        "Where a run searched, trial by trial; dark is good, crosses failed.",
        plot("Parameters over trials", 'data-view="evolution"', single),
    )
    if len(names) > 1:
        axes = _menu("", "x", names, _setting("x"))
        axes += _menu("", "y", [*names[1:], names[0]], _setting("y"))
        yield Section(
            "Pairs",
            "Any two parameters",
            "Crosses failed.",
            plot("Any two parameters", 'data-view="pair"', several + axes),
        )
    share = (
        "<label>Best % of the trials "
        f'<input type="number" min="1" max="100" value="100" {_setting("share")}></label>'
    )
    yield Section(
        "Parallel",
        "All parameters",
        "Trials that succeeded, a line each. Drag along an axis to filter.",
        plot("All parameters", 'data-view="parallel"', several + share, steps=False),
    )


def _run_menu(runs: Sequence[Run], *, groups: bool) -> str:
    """A menu of runs; the run with the best value is chosen. With groups, also of methods."""
    best = min(runs, key=lambda run: (math.isnan(run.best), run.best))
    options = []
    if groups:
        options.append('<option value="*">all runs</option>')
    for method in tables.by_method(runs):
        options.append(f'<optgroup label="{escape(method)}">')
        if groups:
            options.append(f'<option value="m:{escape(method)}">all of {escape(method)}</option>')
        for i, run in enumerate(runs):
            if run.method == method:
                selected = " selected" * (run is best)
                options.append(f'<option value="{i}"{selected}>{escape(_name(run))}</option>')
        options.append("</optgroup>")
    return f'<label>Run <select aria-label="Run" {_setting("run")}>{"".join(options)}</select></label>'


def _name(run: Run) -> str:
    best = "nothing succeeded" if math.isnan(run.best) else f"{run.best:.4f}"
    return f"{run.method}, seed {run.seed} ({best})"


def _setting(name: str) -> str:
    return f'data-setting="{name}"'


def method_boxes(legend: str, methods: Sequence[str]) -> str:
    """What hides methods in tables and plots."""
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{escape(m)}"> {escape(m)}</label>'
        for m in methods
    )
    return (
        f'<fieldset id="methods"><legend>{legend}</legend>{boxes}'
        '<button type="button" value="all">all</button> '
        '<button type="button" value="none">none</button></fieldset>'
    )


def figure_menu(label: str, options: Sequence[tuple[str, str]]) -> str:
    """What chooses among figures by their keys."""
    return _menu("", label, options, 'data-chooses="figure"')


def _menu(id_: str, label: str, options: Sequence[tuple[Any, str]], more: str = "") -> str:
    items = "".join(f'<option value="{escape(str(v))}">{escape(t)}</option>' for v, t in options)
    attribute = f'id="{id_}" ' if id_ else ""
    return (
        f'<label>{label} <select aria-label="{label}" {attribute}{more}>{items}</select></label>'
    )


def plot(title: str, source: str, controls: str = "", *, steps: bool = True) -> str:
    """The place of a plot.

    Args:
        title: What it is called to screen readers.
        source: Says which plot by ``data-figure`` or ``data-view``.
        controls: HTML of what stands above it.
        steps: Whether arrow keys step through its points; its label says so.
    """
    above = f'<div class="controls">{controls}</div>' if controls else ""
    keys = " Arrow keys step through its points." if steps else ""
    return (
        f'{above}<div class="figure" {source} tabindex="0" role="group" '
        f'aria-label="Plot: {escape(title)}.{keys}"></div>'
    )


def _section(i: int, section: Section) -> str:
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    return (
        f'<section id="s{i}" aria-label="{escape(section.title)}"><h2>{escape(section.title)}</h2>'
        f"{text}{section.body}</section>"
    )


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
