"""The tree of a code study: structure by structure, what was kept and what tuning added."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from studies.code_agent.structures import structures
from studies.report.layout import figure
from studies.report.layout import Section
from studies.report.page_tables import cell
from studies.report.page_tables import number
from studies.report.page_tables import table
from studies.report.page_tables import text
from studies.report.runs import Run
from studies.report.tree import code_runs


TITLE = "Structures and their constants"
_INDENT = "\u00b7 "  # for each edit that lies between a structure and the unedited script


def structure_sections(runs: Sequence[Run]) -> Iterator[Section]:
    """Yield the section of the runs of the code agent, if there are any."""
    shown = code_runs(runs)
    if shown:
        keys = {f"structures-{i}": f"{r.method}, seed {r.seed}" for i, r in enumerate(shown)}
        yield Section(
            "Structures",
            TITLE,
            "An edit of the script makes a structure out of the one above it; between edits its "
            "constants are tuned. Gains are over the best value so far: of the edit, and of the "
            "trials of tuning that were kept. Those with a star lead to the best script, in the "
            "order in which `agent --patches` writes them. In the plot each trial with a value is "
            "joined to the one whose script was changed; values far worse than the others lie "
            "outside: double-click shows them.",
            figure(TITLE, keys, "Run") + "".join(map(_table, shown)),
        )


def _table(run: Run) -> str:
    assert run.history is not None
    metric = run.metric.name
    columns: dict[str, Any] = {
        "trial": lambda r: cell(r["trial"], r["trial"]),
        "from": lambda r: cell("" if r["parent"] is None else r["parent"]),
        "edit": lambda r: text(_INDENT * r["depth"] + r["description"]),
        "outcome": lambda r: text(r["outcome"] + (" \u2605" if r["is_in_best"] else "")),
        metric: lambda r: cell("") if r["value"] is None else number(r["value"]),
        "gain": lambda r: cell("") if r["parent"] is None else number(r["gain"]),
        "tuned": lambda r: cell(r["tuned"], r["tuned"]),
        "kept": lambda r: cell(r["tuned_kept"], r["tuned_kept"]),
        "gain by tuning": lambda r: number(r["tuning_gain"]),
    }
    rows = [{**asdict(s), "method": run.method} for s in structures(run.history)]
    return table(run.study, columns, rows)
