"""One HTML page with every table and plot of a report."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from html import escape
import json
import math

from plotly.io import templates

from objective.failure import INFEASIBLE
from studies.facts import LLM_SOURCES
from studies.facts import REPLACED
from studies.methods import METHODS
from studies.printable import decimals
from studies.report import tables
from studies.report import transcripts
from studies.report.best import best_run
from studies.report.best import best_section
from studies.report.content import Report
from studies.report.interactive import draw
from studies.report.interactive import TEMPLATE
from studies.report.layout import bullets
from studies.report.layout import figure
from studies.report.layout import menu
from studies.report.layout import plot
from studies.report.layout import render
from studies.report.layout import Section
from studies.report.layout import setting
from studies.report.page_data import page_transcripts
from studies.report.page_data import page_trials
from studies.report.page_tables import cost_table
from studies.report.page_tables import tests_table
from studies.report.page_tables import times_table
from studies.report.page_tables import values_table
from studies.report.plots import is_timed
from studies.report.plots import time_title
from studies.report.runs import metric_of
from studies.report.runs import Run
from studies.report.statistics import in_words
from studies.report.structures import structure_sections
from studies.report.time_to_target import in_one_sentence


PAPER = "https://arxiv.org/abs/2603.24647"
_FILTERS = ("State", "Source")  # of the table of trials

# Name in the report's plots to the name, title and text of its section, in their order.
PLOTS = {
    "time": (
        "Time",
        "Best so far against training time",
        "Steps: a value counts from the moment when its trial ended. A curve begins when all "
        "runs of its method have a value and ends where the first of them ends; the legend has "
        "its last value. Beginnings far from it lie outside: double-click shows them.",
    ),
    "trials": ("Trials", "Best so far against trials", "Failed trials count."),
    "differences": (
        "Differences",
        "Differences from the reference",
        "Mean of the differences on the same seeds, from four seeds on with its 95 % interval "
        "(Student's t), else beside those of the single seeds. Of the revalidated values, where "
        "every run has one, else of the best.",
    ),
    "seeds": (
        "Seeds",
        "Seed by seed",
        "Best values of runs with the same seed, joined. Where lines cross, which method is "
        "better depends on the seed.",
    ),
    "runs": ("Runs", "Every run's best", "A point is a run; the bar is the mean."),
    "ratios": ("Ratio", "LLM ratio", "Share of the trials that the language model decides."),
    "models": ("Models", "Model against model", "The same method with several models."),
    "sources": (
        "Sources",
        "Who found the incumbents",
        "Share of the trials that each source proposed, beside its share of the improvements "
        "on a run's first value. base: proposed without the language model, which may have been "
        "asked in vain: its own was of no use, or Centaur's critic preferred another.",
    ),
    "failures": ("Failures", "Failures by class", "Share of all trials of a method."),
    "importance": (
        "Importance",
        "Importance of parameters",
        "How much each matters for being among the best tenth of the trials that succeeded "
        "(PED-ANOVA); failures don't count.",
    ),
    "llm": (
        "Tokens",
        "Tokens and seconds of the language model",
        "Means over the runs that asked in that trial.",
    ),
    "failure-map": (
        "Failure map",
        "Where trials failed",
        "Share of the trials that failed in each part of each parameter's range (of its "
        "logarithm where the range is logarithmic). Empty: no trial was there.",
    ),
}


def build_page(report: Report) -> str:
    """Return the page of a report."""
    runs, metric = report.runs, metric_of(report.runs)
    trials = sum(len(run.rows) for run in runs)
    return render(
        report.title,
        f"{_count(len(runs), 'run')} of {_count(len(report.methods), 'method')}, "
        f"{_count(trials, 'trial')}. {metric.better.capitalize()} {metric} is better.",
        [
            *([] if report.winner is None else [best_section(runs, report.winner)]),
            *(_single_run_sections(report) if len(runs) == 1 else _several_run_sections(report)),
            *structure_sections(runs),
            *_transcript_sections(report),
        ],
        {
            "template": templates[TEMPLATE].to_plotly_json(),
            "figures": {
                f"{name}-{i}": json.loads(draw(drawing).to_json())
                for name, drawings in report.plots.items()
                for i, drawing in enumerate(drawings)
            },
            "trials": page_trials(runs, report.artifacts),
            "transcripts": page_transcripts(report.said, runs),
        },
        report.made,
    )


def _single_run_sections(report: Report) -> Iterator[Section]:
    """Show a run alone: there is nothing to compare it with."""
    traces, *others = _run_sections(report.runs)
    yield traces
    if report.notes:
        yield Section("Notes", "To bear in mind", "", bullets(report.notes))
    yield from others
    yield from _comparison_sections(report, without=("time", "trials", "runs", "failures"))
    yield Section("Costs", "What it cost", "", cost_table(report.methods))


def _several_run_sections(report: Report) -> Iterator[Section]:
    yield from _result_sections(report)
    yield from _comparison_sections(report)
    yield from _run_sections(report.runs)


def _result_sections(report: Report) -> Iterator[Section]:
    found = "".join(
        f"<p>By the {what}:</p>{bullets(in_words(report.tests[kind]))}"
        for kind, what in (("revalidated", "revalidated best values"), ("best", "best values"))
        if report.tests.get(kind)
    )
    found += f"<p>{escape(sentence)}</p>" if (sentence := in_one_sentence(report.times)) else ""
    known = f"<p>To bear in mind:</p>{bullets(report.notes)}" if report.notes else ""
    if found or known:
        yield Section("Findings", "What can be said", "", found + known)
    rows, runs = report.methods, report.runs
    yield Section(
        "Methods",
        "Methods",
        "Best value of a run: mean over runs, sample standard deviation, 95 % interval of the "
        "mean (Student's t, from four runs on), and the number n of runs with a value. Revalidated: the best "
        "configuration trained again with fresh seeds; the best of many noisy trials is lucky, "
        "its mean on repetition is not. That is the mean of the repetitions that did not fail. "
        "Luck: by how much it was worse then.",
        _method_boxes(runs) + values_table(rows) + cost_table(rows) + _descriptions(runs),
    )
    if len(rows) > 1:
        yield Section(
            "Tests",
            f"Against {report.reference}",
            "Wilcoxon's signed-rank test on runs paired by seed, one-sided (the method is better) "
            "and two-sided, each also corrected by Holm for the number of methods; those with too "
            "few seeds for any significance have no corrected value and don't count. Difference: "
            f"mean of method minus reference ({metric_of(report.runs).better} is better), with its "
            "95 % interval (from four seeds on). Effect: rank-biserial "
            "correlation among the seeds that differ, -1 if the method is better on all of them. "
            "Below: how much of the reference's budget a method needed for the reference's final "
            "value on the same seed, as it was observed; median over seeds with its interval from "
            "order statistics, never where half of the seeds did not get there.",
            "".join(tests_table(rows, kind) for kind, rows in report.tests.items())
            + times_table(report.times),
        )


def _comparison_sections(report: Report, without: Sequence[str] = ()) -> Iterator[Section]:
    menus = {"llm": "Measure", "failure-map": "Method", "importance": "Method"}
    for key, (name, title, text) in PLOTS.items():
        if key in report.plots and key not in without:
            keys = {f"{key}-{i}": d.title or d.y for i, d in enumerate(report.plots[key])}
            yield Section(name, title, text, figure(title, keys, menus.get(key, "")))


def _run_sections(runs: Sequence[Run]) -> Iterator[Section]:
    single = _run_menu(runs, groups=False)
    several = _run_menu(runs, groups=True)
    names = [(name, name) for name in tables.parameters(runs)]
    axes = [("time", time_title(runs)), ("trials", "trials")]
    x = menu("Against", axes if is_timed(runs) else axes[1:], setting("x"))
    replaced = [
        name for name in REPLACED if any(r.source == name for run in runs for r in run.rows)
    ]
    told = (
        f" ({', '.join(replaced)}: the model was asked, but another was run)" if replaced else ""
    )
    marked, orange = "failed or were pruned", ""
    if any(row.status == INFEASIBLE for run in runs for row in run.rows):
        marked, orange = "failed, were pruned or are infeasible", ", infeasible ones orange"
    crosses = f"Trials that failed are red crosses, pruned ones grey{orange}."
    yield Section(
        "Traces",
        "Trials and incumbents",
        f"Every trial of a run by who proposed it{told}; rings are incumbents. Those that {marked} "
        "are marked at the edge, values far worse than the others lie outside: double-click shows "
        "them.",
        plot("Trials and incumbents", 'data-view="trace"', single + x),
    )
    yield _table_section(runs)
    if any(row.curve for run in runs for row in run.rows):
        yield Section(
            "Curves",
            "Learning curves",
            "Values that trials reported while they trained; of a run with many the best 200.",
            plot("Learning curves", 'data-view="curves"', single),
        )
    if not names:
        return
    yield Section(
        "Parameters",
        "Parameters over trials",
        f"Where a run searched, trial by trial. {crosses}",
        plot("Parameters over trials", 'data-view="evolution"', single),
    )
    if len(names) > 1:
        pair = menu("x", names, setting("x")) + menu("y", [*names[1:], names[0]], setting("y"))
        yield Section(
            "Pairs",
            "Any two parameters",
            crosses,
            plot("Any two parameters", 'data-view="pair"', several + pair),
        )
    share = (
        "<label>Best % of the trials "
        f'<input type="number" min="1" max="100" value="100" {setting("share")}></label>'
    )
    yield Section(
        "Parallel",
        "All parameters",
        "Trials that succeeded, a line each. Drag along an axis to filter.",
        plot("All parameters", 'data-view="parallel"', several + share, steps=False),
    )


def _transcript_sections(report: Report) -> Iterator[Section]:
    if not report.said:
        return
    shown = sorted({entry["run"] for entry in report.said})
    menus = menu("Run", [(i, _name(report.runs[i])) for i in shown], 'id="transcript-run"')
    menus += menu("Trial", [], 'id="transcript-trial"')
    yield Section(
        "Prompts",
        "Prompts and replies",
        f"{transcripts.counts(report.runs, report.said)}: the improvements and a sample of the "
        "others; long ones without their middle. All of them are artifacts of the trials.",
        f'<div class="controls">{menus}</div>'
        '<pre id="transcript" tabindex="0" aria-label="Prompt and reply"></pre>',
    )


def _run_menu(runs: Sequence[Run], *, groups: bool) -> str:
    """Return a menu of runs, and of methods with ``groups``; the best run is chosen."""
    best = best_run(runs)
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
    return (
        f'<label>Run <select aria-label="Run" {setting("run")}>{"".join(options)}</select></label>'
    )


def _name(run: Run) -> str:
    best = "nothing succeeded" if math.isnan(run.best) else decimals(run.best)
    return f"{run.label} ({best})"


def _table_section(runs: Sequence[Run]) -> Section:
    """Return the place of the table of trials, which the page's script fills."""
    filters = "".join(menu(name, [("", "any")], setting(name.lower())) for name in _FILTERS)
    return Section(
        "Table",
        "All trials",
        "In the order in which they ended. Click a heading, or press Enter on it, to sort.",
        f'<div class="controls">{_run_menu(runs, groups=len(runs) > 1)}{filters}'
        '<button type="button" value="-1">previous</button>'
        '<button type="button" value="1">next</button>'
        '<span id="table-range" role="status"></span></div>'
        '<div class="scroll" id="table" tabindex="0" aria-label="Table of trials"></div>',
    )


def _descriptions(runs: Sequence[Run]) -> str:
    """Say in a line what each method is, and where the methods are described."""
    known = [name for name in dict.fromkeys(run.name for run in runs) if name in METHODS]
    if not known:
        return ""
    paper = f'<a href="{PAPER}">{PAPER.removeprefix("https://")}</a>'
    lines = bullets([f"{name}: {METHODS[name].summary}" for name in known])
    if not any(METHODS[name].uses_llm for name in known):
        return lines
    return f"{lines}<p>The methods that ask a language model follow {paper}.</p>"


def _method_boxes(runs: Sequence[Run]) -> str:
    """Return boxes that hide methods in tables and plots; empty where there is one."""
    groups = tables.by_method(runs)
    if len(groups) < 2:
        return ""
    kinds = {
        method: "llm" if any(_asks_llm(run) for run in group) else "classical"
        for method, group in groups.items()
    }
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{escape(m)}" data-kind="{kind}"> '
        f"{escape(m)}</label>"
        for m, kind in kinds.items()
    )
    buttons = {"all": "all", "none": "none"}
    if len(set(kinds.values())) == 2:
        buttons |= {"llm": "with a language model", "classical": "without one"}
    pressed = " ".join(
        f'<button type="button" value="{value}">{name}</button>' for value, name in buttons.items()
    )
    return f'<fieldset id="methods"><legend>Methods shown</legend>{boxes}{pressed}</fieldset>'


def _asks_llm(run: Run) -> bool:
    return any(row.source in LLM_SOURCES for row in run.rows)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
