"""The results as Markdown tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
import math
from pathlib import Path
from typing import Any

import numpy as np

from studies.random_steps import NAME as RANDOM_STEPS
from studies.scoreboard.analysis import ALL
from studies.scoreboard.analysis import Board
from studies.scoreboard.analysis import label
from studies.scoreboard.analysis import Standing
from studies.scoreboard.plots import curves
from studies.scoreboard.plots import ranks
from studies.scoreboard.runs import Result
from studies.scoreboard.suites import suite_of
from studies.scoreboard.suites import SURROGATE


BUDGETS = (50, 200)

_READING = (
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
    """Return the numbers of trials to compare at: the most of two samplers, `BUDGETS` below."""

    def compares(n: int) -> bool:
        return len({label(result) for result in results if result.has(n)}) > 1

    lengths = {result.trials for result in results}
    longest = max(filter(compares, lengths), default=max(lengths))
    return [*(n for n in BUDGETS if n < longest), longest]


def write_report(
    results: Sequence[Result], commands: Sequence[Mapping[str, str]], folder: Path
) -> dict[str, Any]:
    """Write README.md and the pictures, and return the facts that ``--json`` prints."""
    from studies.report.static import save  # matplotlib is slow to import

    board = Board(results)
    standings = {
        n: {
            suite: board.standings(board.in_suite(suite), n)
            for suite in dict.fromkeys([ALL, *board.shown])
        }
        for n in budgets(results)
    }
    (folder / "README.md").write_text(markdown(board, standings, commands), encoding="utf-8")
    overall = {n: of[ALL] for n, of in standings.items()}
    drawn = {"curves": curves(board, list(standings)), "ranks": ranks(board, overall)}
    save(drawn, folder, "png")
    return {
        "runs": len(results),
        "standings": {
            str(n): {suite: [asdict(row) for row in rows] for suite, rows in of.items()}
            for n, of in standings.items()
        },
        "samplers": [_cost(board, sampler) for sampler in board.samplers],
    }


def markdown(
    board: Board,
    standings: Mapping[int, Mapping[str, Sequence[Standing]]],
    commands: Sequence[Mapping[str, str]],
) -> str:
    """Write the tables, and the commands that made the results.

    Args:
        board: The results.
        standings: By the number of trials and the suite.
        commands: That the results come from, with their date, machine and versions.
    """
    lines = ["# Scoreboard", "", _READING]
    if any(sampler.endswith(f"({RANDOM_STEPS})") for sampler in board.samplers):
        lines += ["", _STEPS]
    lines += ["", "![Mean normalized regret against trials](curves.png)", ""]
    lines += ["![Mean ranks](ranks.png)", ""]
    for n, of in standings.items():
        lines += [f"## After {n} trials", ""]
        for suite in board.shown:
            rows = of[suite]
            if not rows:
                continue
            n_problems, n_runs = len(board.in_suite(suite)), rows[0].blocks
            counted = f"{n_problems} problem{'s' * (n_problems != 1)}"
            each = f"{n_runs} run{'s' * (n_runs != 1)} of each sampler"
            lines += [f"### {suite}: {counted}, {each}", ""]
            # A single seed has no interval.
            ranks, regrets = (
                ("{:.2f} [{:.2f}, {:.2f}]", "{:.3g} [{:.3g}, {:.3g}]")
                if n_runs > n_problems
                else ("{:.2f}", "{:.3g}")
            )
            lines += _table(
                ("sampler", "mean rank", "mean normalized regret"),
                [
                    (
                        row.sampler,
                        ranks.format(row.rank, row.rank_low, row.rank_high),
                        regrets.format(row.regret, row.regret_low, row.regret_high),
                    )
                    for row in rows
                ],
            )
            lines += [""]
    lines += ["## What the samplers take", "", _COSTS, ""]
    lines += _table(
        list(_COST_COLUMNS.values()), [_cost_row(_cost(board, s)) for s in board.samplers]
    )
    for n in standings:
        lines += ["", f"## Problems, after {n} trials", "", _PROBLEMS, ""]
        lines += _table(
            ("problem", *_heading(board, n)),
            [(name, *_regrets(board, name, n)) for name in board.problems],
        )
    lines += ["", "## How this was made", ""]
    lines += ["Each command added the runs that were not there yet.", ""]
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
