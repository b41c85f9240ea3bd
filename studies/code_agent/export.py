"""Exports of a code study: Karpathy's results.tsv, a series of patches, a table, JSON."""

from __future__ import annotations

from collections import Counter
import csv
from dataclasses import asdict
from pathlib import Path
import re
from typing import Any

from rich.console import Group
from rich.text import Text

from samplers._trials.internals import first_number
from studies.code_agent.files import SCRIPT
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import is_baseline
from studies.code_agent.history import KEPT
from studies.code_agent.history import OVERTIME
from studies.code_agent.history import REVERTED
from studies.code_agent.history import Step
from studies.code_agent.sources import diff
from studies.code_agent.sources import Sources
from studies.code_agent.structures import structures
from studies.printable import decimals
from studies.rows import Rows


# Statuses of karpathy/autoresearch's results.tsv.
_KARPATHY = {
    "baseline": "keep",
    KEPT: "keep",
    REVERTED: "discard",
    OVERTIME: "discard",
}


def write_results(history: CodeHistory, path: Path) -> None:
    """Write results.tsv: commit (here the script's hash), metric, memory_gb, status, description.

    As in karpathy/autoresearch, a failure has the value 0.000000 and status ``crash``; so has a gain
    that is still doubted, which has no value yet.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(
            file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
        )
        table.writerow(("commit", history.metric.name, "memory_gb", "status", "description"))
        for step in history.steps:
            attrs = step.trial.user_attrs
            table.writerow(
                (
                    attrs.get("source_sha256", "-" * 7)[:7],
                    _shown(step.value or 0.0),
                    f"{attrs.get('peak_memory_mb', 0.0) / 1024:.1f}",
                    "crash" if step.value is None else _KARPATHY[step.outcome],
                    re.sub(r"[\t\r\n\\]+", " ", _description(step)),
                )
            )


def _shown(value: float) -> str:
    """Format a value with six decimals, as there, and with six digits where these are more."""
    return f"{value:.6f}" if abs(value) >= 0.1 or not value else f"{value:#.6g}"


def write_patches(
    history: CodeHistory, sources: Sources, folder: Path, script: str = SCRIPT
) -> list[Path]:
    """Write the accepted steps from the baseline to the best script, a patch each.

    They apply in the order of their names to the script, of this name, with ``patch -p1`` or ``git apply``.

    Raises:
        SourceLost: If a script is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    line = history.lineage()
    gains = {step.trial.number: step.gain for step in history.steps}
    for number, (old, new) in enumerate(zip(line, line[1:]), start=1):
        attrs = new.user_attrs
        name = re.sub(r"[^a-z0-9]+", "-", attrs.get("description", "").lower())[:50].strip("-")
        path = folder / f"{number:04d}-{name or 'change'}.patch"
        change = diff(
            sources.load(old.user_attrs["source_sha256"]),
            sources.load(attrs["source_sha256"]),
            script=script,
        )
        value = (
            f"trial {new.number}: {history.metric.name} {decimals(new.values[0])},"
            f" gain {decimals(gains[new.number])}"
        )
        text = [attrs.get("description", ""), "", value, "", *change, ""]
        path.write_text("\n".join(text), encoding="utf-8")
        paths.append(path)
    return paths


def agent_facts(history: CodeHistory) -> dict[str, Any]:
    """Return the facts of a code study as plain values.

    ``proposals`` = ``rejected`` + ``applied``; of the applied, ``measured`` ran to a value and
    ``kept`` improved by more than ``min_gain``. ``tuned`` counts trials of other constants, and
    ``tuned_kept`` those of them that improved by more than half of that. ``structures`` is the tree
    of edits, see `studies.code_agent.structures.Structure`.
    """
    proposals = history.proposals
    outcomes = Counter(step.outcome for step in proposals)
    rejected = outcomes["rejected"]
    tokens = ("llm_prompt_tokens", "llm_cached_tokens", "llm_completion_tokens", "llm_seconds")
    return {
        "metric": history.metric.name,
        "baseline": history.baseline,
        "noise": history.noise,
        "min_gain": history.min_gain,
        "best": history.best_value,
        "best_trial": first_number(history.best) if history.best else None,
        "proposals": len(proposals),
        "rejected": rejected,
        "applied": len(proposals) - rejected,
        "measured": sum(step.value is not None for step in proposals),
        "kept": outcomes[KEPT],
        "outcomes": dict(outcomes),
        "tuned": len(history.tuned),
        "tuned_kept": sum(step.outcome == KEPT for step in history.tuned),
        "llm": {key[4:]: sum(s.trial.user_attrs.get(key, 0) for s in proposals) for key in tokens},
        "structures": [asdict(structure) for structure in structures(history)],
        "trials": [_trial_facts(step, history.metric.name) for step in history.steps],
    }


def agent_table(facts: dict[str, Any]) -> Group:
    """Show the facts: a row per trial, then the counts."""
    metric = facts["metric"]
    table = Rows("", "from", "change", "lines", "outcome", metric, "why")
    for row in facts["trials"]:
        added, removed = row["lines_added"], row["lines_removed"]
        table.add_row(
            str(row["trial"]),
            "" if row["parent"] is None else str(row["parent"]),
            Text(row["description"]),
            "" if added is None else f"+{added} -{removed}",
            Text(row["outcome"], style="bold" if row["outcome"] == KEPT else ""),
            "" if row[metric] is None else decimals(row[metric]),
            Text(row["reason"]),
        )
    noise = ""
    if facts["noise"] is not None:
        noise = f", repeated: standard deviation {decimals(facts['noise'])}"
    if facts["noise"] == 0:
        noise = ", the same each time, which says nothing about luck"
    baseline, best = facts["baseline"], facts["best"]
    lines = [
        f"{facts['proposals']} proposals: {facts['applied']} applied, {facts['measured']} ran to a"
        f" value, {facts['kept']} improved by more than {decimals(facts['min_gain'])} and were"
        " kept",
    ]
    if facts["tuned"]:
        lines.append(
            f"{facts['tuned']} trials of other constants, {facts['tuned_kept']} of which were kept"
        )
    if baseline is not None:
        lines.append(f"{metric} {decimals(baseline)} (unedited{noise}) -> {decimals(best)}")
    llm = facts["llm"]
    for row in facts["trials"]:
        if row["doubted"]:
            lines.append(f"trial {row['trial']} {row['reason']}")
    if facts["proposals"]:
        cached = f" ({llm['cached_tokens']} cached)" if llm["cached_tokens"] else ""
        lines.append(
            f"{llm['prompt_tokens']} prompt tokens{cached}, {llm['completion_tokens']} reply tokens,"
            f" {llm['seconds']:.1f} s of the model's time"
        )
    return Group(table, *lines)


def _trial_facts(step: Step, metric: str) -> dict[str, Any]:
    attrs = step.trial.user_attrs
    return {
        "trial": first_number(step.trial),
        "parent": attrs.get("parent"),
        "description": _description(step),
        "lines_added": attrs.get("lines_added"),
        "lines_removed": attrs.get("lines_removed"),
        "outcome": step.outcome,
        metric: step.value,
        "reason": step.reason,
        "doubted": step.was_doubted,
        "isolation": attrs.get("isolation"),
        "seconds": attrs.get("total_seconds"),
    }


def _description(step: Step) -> str:
    if is_baseline(step.trial):
        return "baseline"
    return str(step.trial.user_attrs.get("description", ""))
