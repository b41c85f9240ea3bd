"""What the results say, as Markdown, as one page and as pictures."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
import math
from pathlib import Path
from typing import Any

import numpy as np

from studies.random_steps import NAME as RANDOM_STEPS
from studies.report.page import figure_menu
from studies.report.page import method_boxes
from studies.report.page import plot
from studies.report.page import render
from studies.report.page import Section
from studies.report.page_tables import cell
from studies.report.page_tables import interval
from studies.report.page_tables import number
from studies.report.page_tables import table
from studies.report.page_tables import text
from studies.scoreboard import plots
from studies.scoreboard.analysis import ALL
from studies.scoreboard.analysis import Board
from studies.scoreboard.analysis import label
from studies.scoreboard.runs import Result
from studies.scoreboard.suites import suite_of
from studies.scoreboard.suites import SURROGATE


BUDGETS = (50, 200)

READING = (
    "A regret is a run's lowest value minus the problem's optimum: the suite's own for COCO "
    "functions, the least entry of a table, the least value that any run or stored trial has for "
    "the surrogate. Normalized, it is divided by the median regret of 1,000 random points (of those "
    "that neither fail nor violate a constraint), and at most 1. Ranks are among the samplers of the "
    "same table, on the same problem with the same seed; equal regrets share their mean rank. "
    "Intervals are 95 % of the bootstrap over seeds, the problems being as they are."
)
_STEPS = (
    f"({RANDOM_STEPS}): no language model. In its place are random steps from the best "
    "configuration that the request shows, so that the method's machinery is measured alone; a "
    "model is worth what it adds to that."
)


def budgets(results: Sequence[Result]) -> list[int]:
    """Numbers of trials to compare after: the most that two samplers have; 50 and 200 below it."""

    def compares(n: int) -> bool:
        return len({label(result) for result in results if result.has(n)}) > 1

    lengths = {result.trials for result in results}
    longest = max(filter(compares, lengths), default=max(lengths))
    return [*(n for n in BUDGETS if n < longest), longest]


def write_report(
    results: Sequence[Result], commands: Sequence[Mapping[str, str]], folder: Path
) -> dict[str, Any]:
    """Write README.md, page.html and the pictures; the facts that ``--json`` prints."""
    from studies.report.pictures import save  # matplotlib is slow to import
    from studies.scoreboard.pictures import pictures

    board, compared = Board(results), budgets(results)
    (folder / "README.md").write_text(markdown(board, compared, commands), encoding="utf-8")
    (folder / "page.html").write_text(page(board, compared, commands), encoding="utf-8")
    save(pictures(board, compared), folder, "png")
    return {
        "runs": len(results),
        "standings": {
            str(n): {
                suite: [asdict(row) for row in board.standings(board.in_suite(suite), n)]
                for suite in [ALL, *board.suites]
            }
            for n in compared
        },
        "samplers": [_cost(board, sampler) for sampler in board.samplers],
    }


def markdown(board: Board, compared: Sequence[int], commands: Sequence[Mapping[str, str]]) -> str:
    """The tables, and how they were made."""
    lines = ["# Scoreboard", "", READING]
    if _asks_random_steps(board):
        lines += ["", _STEPS]
    lines += ["", "![Mean normalized regret against trials](curves.png)", ""]
    lines += ["![Mean ranks](ranks.png)", ""]
    for n in compared:
        lines += [f"## After {n} trials", ""]
        for suite in board.shown:
            problems = board.in_suite(suite)
            rows = board.standings(problems, n)
            if not rows:
                continue
            counted = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
            lines += [f"### {suite}: {counted}, {rows[0].blocks} runs of each sampler", ""]
            lines += _table(
                ("sampler", "mean rank", "mean normalized regret"),
                [
                    (
                        row.sampler,
                        f"{row.rank:.2f} [{row.rank_low:.2f}, {row.rank_high:.2f}]",
                        f"{row.regret:.3g} [{row.regret_low:.3g}, {row.regret_high:.3g}]",
                    )
                    for row in rows
                ],
            )
            lines += [""]
    lines += ["## What the samplers take", "", _COSTS, ""]
    lines += _table(
        list(_COST_COLUMNS.values()), [_cost_row(_cost(board, s)) for s in board.samplers]
    )
    for n in compared:
        lines += ["", f"## Problems, after {n} trials", "", _PROBLEMS, ""]
        lines += _table(
            ("problem", *_heading(board, n)),
            [(name, *_regrets(board, name, n)) for name in board.problems],
        )
    lines += ["", "## How this was made", "", _HOW, ""]
    for command in commands:
        lines += [
            f"{command['date']}, {command['machine']}; {command['versions']}:",
            "",
            f"    {command['command']}",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


_COSTS = (
    "Milliseconds are of the processor, per trial; evaluations are not counted. Failed trials are "
    "of the problems that have failures, infeasible ones of those with constraints. Of the trials "
    "for which a model was asked, some it did not decide: its reply repeated a trial or could not "
    "be used, and the base method's proposal was run."
)
_PROBLEMS = "Median normalized regret of the seeds; the lowest of each line is bold."
_HOW = "Each command added the runs that were not there yet."
_COST_COLUMNS = {
    "sampler": "sampler",
    "runs": "runs",
    "trials": "trials of the longest",
    "milliseconds": "ms a trial",
    "failed": "failed",
    "infeasible": "infeasible",
    "asked": "asked",
    "unanswered": "not decided",
    "broke": "runs that broke",
}


def _results(board: Board) -> list[Result]:
    return [result for blocks in board.results.values() for result in blocks.values()]


def _cost(board: Board, sampler: str) -> dict[str, Any]:
    results = list(board.results[sampler].values())

    def share(part: Callable[[Result], float], of: Sequence[Result]) -> float | None:
        whole = sum(r.trials for r in of)
        return sum(map(part, of)) / whole if whole else None

    failing = [r for r in results if "+" in r.problem or suite_of(r.problem) == SURROGATE]
    constrained = [r for r in results if suite_of(r.problem) == "bbob-constrained"]
    asked = sum(r.asked for r in results)
    return {
        "sampler": sampler,
        "runs": len(results),
        "trials": max(r.trials for r in results),
        "milliseconds": share(lambda r: 1000 * r.cpu_seconds, results),
        "failed": share(lambda r: r.failed, failing),
        "infeasible": share(lambda r: r.infeasible, constrained),
        "asked": share(lambda r: r.asked, results) if asked else None,
        "unanswered": sum(r.unanswered for r in results) / asked if asked else None,
        "broke": sum(bool(r.error) for r in results),
    }


def _cost_row(cost: Mapping[str, Any]) -> list[str]:
    def shown(key: str) -> str:
        value = cost[key]
        if value is None or (key == "broke" and not value):
            return ""
        if key in ("failed", "infeasible", "asked", "unanswered"):
            return f"{100 * value:.0f} %"
        return f"{value:.1f}" if key == "milliseconds" else str(value)

    return [shown(key) for key in _COST_COLUMNS]


def _heading(board: Board, trials: int) -> list[str]:
    return [s for s in board.samplers if any(r.has(trials) for r in board.results[s].values())]


def _regrets(board: Board, problem: str, trials: int) -> list[str]:
    medians = []
    for sampler in _heading(board, trials):
        found = [
            board.normalized(result, trials)
            for (name, _), result in board.results[sampler].items()
            if name == problem and result.has(trials)
        ]
        medians.append(float(np.median(found)) if found else math.nan)
    least = min((m for m in medians if not math.isnan(m)), default=math.nan)
    return ["" if math.isnan(m) else f"**{m:.3g}**" if m == least else f"{m:.3g}" for m in medians]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]


def page(board: Board, compared: Sequence[int], commands: Sequence[Mapping[str, str]]) -> str:
    """Everything in one file that needs no network."""
    figures = {f"ranks-{n}": plots.ranks(board, n) for n in compared}
    figures |= {f"wins-{n}": plots.wins(board, n) for n in compared}
    drawn = [(suite, n) for suite in board.shown for n in compared]
    figures |= {f"curve-{i}": plots.curves(board, s, n) for i, (s, n) in enumerate(drawn)}
    after = [f"after {n} trials" for n in compared]
    sections = [
        Section(
            "Ranks",
            "Mean ranks",
            READING + (" " + _STEPS if _asks_random_steps(board) else ""),
            method_boxes("Samplers shown", board.samplers)
            + plot(
                "Mean ranks",
                f'data-figure="ranks-{compared[0]}"',
                figure_menu("After", [(f"ranks-{n}", name) for n, name in zip(compared, after)]),
            )
            + "".join(_standings(board, suite, n) for n in compared for suite in board.shown),
        ),
        Section(
            "Curves",
            "Regret against trials",
            "Only samplers that ran all of the problems so far; choose fewer trials or a suite to "
            "see others.",
            plot(
                "Regret against trials",
                'data-figure="curve-0"',
                figure_menu(
                    "Of", [(f"curve-{i}", f"{s}, {n} trials") for i, (s, n) in enumerate(drawn)]
                ),
            ),
        ),
        Section(
            "Pairs",
            "Against each other",
            "How often the sampler of a row reaches a lower regret than that of a column; equal "
            "ones count half. Over all problems.",
            plot(
                "Against each other",
                f'data-figure="wins-{compared[0]}"',
                figure_menu("After", [(f"wins-{n}", name) for n, name in zip(compared, after)]),
            ),
        ),
        Section("Costs", "What the samplers take", _COSTS, _cost_table(board)),
        Section(
            "How",
            "How this was made",
            _HOW,
            "".join(
                f"<p>{escape(c['date'])}, {escape(c['machine'])}; {escape(c['versions'])}:</p>"
                f"<pre>{escape(c['command'])}</pre>"
                for c in commands
            ),
        ),
    ]
    results = _results(board)
    subtitle = (
        f"{len(results):,} runs of {len(board.samplers)} samplers on {len(board.problems)} "
        f"problems, {sum(r.trials for r in results):,} trials. Lower is better."
    )
    return render("Scoreboard", subtitle, sections, figures)


def _asks_random_steps(board: Board) -> bool:
    return any(result.asks == RANDOM_STEPS for result in _results(board))


def _standings(board: Board, suite: str, trials: int) -> str:
    rows = board.standings(board.in_suite(suite), trials)
    if not rows:
        return ""
    return table(
        f"{suite}, after {trials} trials, {rows[0].blocks} runs of each sampler",
        {
            "sampler": lambda r: text(r["method"]),
            "mean rank": lambda r: number(r["rank"], ".2f"),
            "95 % interval": lambda r: interval(r["rank_low"], r["rank_high"], ".2f"),
            "mean normalized regret": lambda r: number(r["regret"], ".3g"),
            "its 95 % interval": lambda r: interval(r["regret_low"], r["regret_high"], ".3g"),
        },
        [{**asdict(row), "method": row.sampler} for row in rows],
    )


def _cost_table(board: Board) -> str:
    rows = []
    for sampler in board.samplers:
        cost = _cost(board, sampler)
        shown = dict(zip(_COST_COLUMNS, _cost_row(cost)))
        rows.append({"method": sampler, "shown": shown, "cost": cost})

    def column(key: str) -> Callable[[Mapping[str, Any]], str]:
        if key == "sampler":
            return lambda row: text(row["method"])
        return lambda row: cell(row["shown"][key], row["cost"][key])

    return table("Costs", {heading: column(key) for key, heading in _COST_COLUMNS.items()}, rows)
