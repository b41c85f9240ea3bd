"""The tree of a code study as a plot: each trial at its value, joined to what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
import math

from samplers._trials.internals import first_number
from studies.code_agent.history import is_baseline
from studies.code_agent.history import is_tuned
from studies.code_agent.history import KEPT
from studies.code_agent.history import parent_number
from studies.code_agent.history import Step
from studies.printable import decimals
from studies.report.drawing import limits_without_worst
from studies.report.drawing import Marks
from studies.report.drawing import Plot
from studies.report.runs import Run
from studies.report.style import COLORS
from studies.report.style import Style
from studies.report.style import TRIAL


# By who made a trial and whether it was kept.
_LOOKS = {
    "unedited": Style("#000000", symbol="diamond"),
    "edit, kept": Style(COLORS[0]),
    "edit, not kept": Style(COLORS[5]),
    "constants, kept": Style(COLORS[1], symbol="square"),
    "constants, not kept": Style(COLORS[4], symbol="square"),
}
_BEST = Style(COLORS[0])


def code_runs(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the code agent in which something was proposed."""
    return [run for run in runs if run.history is not None and run.history.proposals]


def tree_plots(runs: Sequence[Run]) -> list[Plot]:
    """Plot the tree of each of `code_runs`, in their order."""
    return [_tree(run) for run in code_runs(runs)]


def _tree(run: Run) -> Plot:
    assert run.history is not None
    by_number = {first_number(s.trial): s for s in run.history.steps if s.value is not None}
    in_best = {first_number(trial) for trial in run.history.lineage()}
    edges = [
        (parent, number)
        for number, step in by_number.items()
        if (parent := parent_number(step.trial)) in by_number
    ]
    groups: dict[str, list[int]] = {label: [] for label in _LOOKS}
    for number, step in by_number.items():
        groups[_group(step)].append(number)

    def value(number: int | None) -> float:
        step = by_number.get(number) if number is not None else None
        return math.nan if step is None or step.value is None else step.value

    def said(number: int) -> str:
        step = by_number[number]
        what = escape(str(step.trial.user_attrs.get("description", "the unedited script")))
        return f"trial {number}: {decimals(value(number))}, {step.outcome}<br>{what}"

    def lines(label: str, pairs: Sequence[tuple[int | None, int]], look: Style) -> Marks:
        ends = [end for pair in pairs for end in (*pair, None)]  # a gap after each
        return Marks(
            "line",
            label,
            [pairs[i // 3][1] if end is None else end for i, end in enumerate(ends)],
            [value(end) for end in ends],
            look,
            said=["" if end is None else said(end) for end in ends],
            methods=[run.method],
            faint=look is TRIAL,
            in_legend=look is not TRIAL,
        )

    best = [edge for edge in edges if edge[1] in in_best]
    marks = [
        lines("made from", [edge for edge in edges if edge not in best], TRIAL),
        lines("way to the best", best, _BEST),
        *(
            Marks(
                "points",
                label,
                numbers,
                [value(n) for n in numbers],
                _LOOKS[label],
                said=[said(n) for n in numbers],
                methods=[run.method],
            )
            for label, numbers in groups.items()
        ),
    ]
    shown: list[float] = []
    if by_number:
        shown += limits_without_worst(list(map(value, by_number)), run.metric.cost)
        shown += [value(number) for number in in_best]
    return Plot(
        [m for m in marks if m.x],
        x="trial",
        y=run.metric.name,
        title=f"{run.method}, seed {run.seed}",
        limits=(min(shown), max(shown)) if shown else None,
    )


def _group(step: Step) -> str:
    if is_baseline(step.trial):
        return "unedited"
    kind = "constants" if is_tuned(step.trial) else "edit"
    return f"{kind}, kept" if step.outcome == KEPT else f"{kind}, not kept"
