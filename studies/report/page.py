"""One HTML page with every table and plot, which needs no network and no other file."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from html import escape
from importlib.resources import files
import json
import math
from string import Template
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from studies.report import plots
from studies.report import tables
from studies.report.runs import Run


@dataclass(frozen=True)
class Section:
    """A heading with a sentence, and a table or a plot; several plots get a menu.

    Attributes:
        name: Short, for the link at the top.
        title: The heading.
        text: What is shown and how to read it.
        table: HTML of a table.
        figures: Label to figure; the first is shown.
    """

    name: str
    title: str
    text: str
    table: str = ""
    figures: Mapping[str, go.Figure] = field(default_factory=dict)


def build_page(runs: Sequence[Run], reference: str, title: str) -> str:
    """The report of some runs.

    Args:
        runs: At least one.
        reference: The method that the others are compared with.
        title: Heading of the page.
    """
    sections = list(_sections(runs, reference))
    drawn = {
        f"{i}-{j}": figure
        for i, section in enumerate(sections)
        for j, figure in enumerate(section.figures.values())
    }
    # "</" would end the script element that the JSON lies in.
    figures = ", ".join(
        f"{json.dumps(key)}: {figure.to_json()}" for key, figure in drawn.items()
    ).replace("</", "<\\/")
    trials = sum(len(run.rows) for run in runs)
    return Template(files("studies.report").joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(title),
        subtitle=f"{len(runs)} runs of {len(tables.by_method(runs))} methods, {trials} trials. "
        "Lower values are better.",
        nav="".join(f'<a href="#s{i}">{escape(s.name)}</a>' for i, s in enumerate(sections)),
        sections="\n".join(_section(i, section) for i, section in enumerate(sections)),
        plotly=get_plotlyjs(),
        figures=f"{{{figures}}}",
    )


def _sections(runs: Sequence[Run], reference: str) -> Iterator[Section]:
    groups = tables.by_method(runs)
    # A run per method for the plots that show single trials: the one with the best value.
    shown = {
        f"{method}, seed {run.seed}": run
        for method, group in groups.items()
        for run in [min(group, key=lambda r: (math.isnan(r.best()), r.best()))]
    }
    yield Section(
        "Methods",
        "Methods",
        "Best value of a run (mean over runs, sample standard deviation, 95 % interval of the "
        "mean), what failed, and what it took. Revalidated: the best configuration trained again "
        "with fresh seeds; the best of many noisy trials is lucky, its mean on repetition is not.",
        table=_methods_table(tables.method_rows(runs)),
    )
    if len(groups) > 1:
        yield Section(
            "Tests",
            f"Against {reference}",
            "Wilcoxon's signed-rank test on runs paired by seed; p of the two-sided test is also "
            "given corrected by Holm for the number of methods. Effect: rank-biserial "
            "correlation, -1 if the method is better on every seed.",
            table=_tests_table(tables.comparisons(runs, reference)),
        )
    yield Section(
        "Time",
        "Best so far against training time",
        "A value counts from the moment when its trial ended.",
        figures={"": plots.best_so_far(runs, against="hours")},
    )
    yield Section(
        "Trials",
        "Best so far against trials",
        "Failed trials count.",
        figures={"": plots.best_so_far(runs, against="trials")},
    )
    yield Section(
        "Runs", "Every run's best", "One point a run; lines join the runs of a seed.",
        figures={"": plots.final_values(runs)},
    )  # fmt: skip
    yield Section(
        "Traces",
        "Trials and incumbents",
        "Every trial of each method's best run.",
        figures={label: plots.incumbent_trace(run) for label, run in shown.items()},
    )
    yield Section(
        "Parameters",
        "Parameters over trials",
        "Where each method's best run searched.",
        figures={label: plots.hyperparameters(run) for label, run in shown.items()},
    )
    yield Section(
        "Pairs",
        "Two parameters",
        "Every method's best run; the menus choose the axes. Crosses failed.",
        figures={"": plots.pair(list(shown.values()))},
    )
    yield Section(
        "Parallel",
        "All parameters",
        "The successful trials of every method's best run. Drag along an axis to filter.",
        figures={"": plots.parallel_coordinates(list(shown.values()))},
    )
    yield Section("Failures", "Failures by class", "All runs.", figures={"": plots.failures(runs)})
    if any(row.source for run in runs for row in run.rows):
        yield Section(
            "Sources",
            "Who found the incumbents",
            "Share of the trials that each source proposed, beside its share of the improvements.",
            figures={"": plots.incumbents_by_source(runs)},
        )
    if any(row.attrs.get("llm_prompt_tokens") for run in runs for row in run.rows):
        yield Section(
            "Language model",
            "Tokens and seconds",
            "One point per trial that the language model was asked for.",
            figures={"": plots.language_model(runs)},
        )


def _section(i: int, section: Section) -> str:
    parts = [f'<section id="s{i}" aria-label="{escape(section.title)}">']
    parts += [f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.text)}</p>"]
    if section.table:
        parts.append(f'<div class="scroll">{section.table}</div>')
    if len(section.figures) > 1:
        options = "".join(
            f'<option value="{i}-{j}">{escape(label)}</option>'
            for j, label in enumerate(section.figures)
        )
        parts.append(f'<select data-for="f{i}" aria-label="Run">{options}</select>')
    if section.figures:
        parts.append(f'<div class="figure" id="f{i}" data-figure="{i}-0"></div>')
    return "\n".join([*parts, "</section>"])


def _methods_table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "method", "best", "sd", "95 % interval", "n", "revalidated", "trials", "failed",
        "classes", "distinct", "duplicates", "LLM turns", "answered", "duplicates refused",
        "errors", "tokens", "LLM s", "hours",
    )  # fmt: skip
    cells = [
        [
            row["method"],
            _number(row["best_mean"]),
            _number(row["best_sd"]),
            f"{_number(row['best_low'])} .. {_number(row['best_high'])}" if row["n"] > 1 else "",
            f"{row['n']}/{row['runs']}",
            _number(row["revalidated_mean"]),
            row["trials"],
            f"{row['failed_share']:.0%}",
            ", ".join(f"{name} {n}" for name, n in sorted(row["failures"].items())),
            row["distinct"],
            row["duplicates"],
            row["llm_turns"],
            row["llm_answered"],
            row["llm_refused"],
            row["llm_errors"],
            row["tokens"],
            f"{row['llm_seconds']:.0f}",
            f"{row['hours']:.2f}",
        ]
        for row in rows
    ]
    return _table(columns, cells)


def _tests_table(rows: Sequence[Any]) -> str:
    columns = (
        "method",
        "difference",
        "n",
        "p (better)",
        "p (two-sided)",
        "p (Holm)",
        "effect",
        "",
    )
    cells = [
        [
            row.method,
            _number(row.difference),
            row.n,
            _number(row.p_less),
            _number(row.p_two_sided),
            _number(row.p_holm),
            _number(row.effect),
            row.sentence,
        ]
        for row in rows
    ]
    return _table(columns, cells)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(
        f'<th scope="col"><button type="button" title="sort">{escape(c)}</button></th>'
        for c in columns
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    text = escape(str(value))
    return f'<td class="text">{text}</td>' if len(text) > 40 else f"<td>{text}</td>"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
