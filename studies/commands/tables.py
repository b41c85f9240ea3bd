"""A study's facts (`studies.facts`) as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from rich.console import Group
from rich.text import Text

from objective import Testbed
from studies.commands.progress import clock
from studies.facts import RUN_ERROR
from studies.rows import Rows


def final_table(facts: Mapping[str, Any]) -> Group:
    """Show a study's result: best and baseline side by side, then the counts."""
    best, baseline, metric = facts["best"] or {}, facts["baseline"] or {}, facts["metric"]
    params = Rows("", "baseline", "best")
    params.add_row("trial", cell(baseline.get("trial")), cell(best.get("trial")))
    params.add_row(
        metric,
        baseline.get("status", "-")
        if baseline.get(metric) is None
        else cell(baseline.get(metric)),
        Text(cell(best.get(metric)), style="bold"),
        end_section=True,
    )
    # A testbed's baseline may have failed before it was asked for any value.
    for name in best.get("params") or baseline.get("params") or {}:
        old, new = baseline.get("params", {}).get(name), best.get("params", {}).get(name)
        style = "bold" if old != new and new is not None else ""
        params.add_row(name, cell(old), Text(cell(new), style=style))
    classes = ", ".join(f"{name} {n}" for name, n in sorted(facts["failures"].items()))
    pruned = f", {facts['pruned']} pruned" if facts["pruned"] else ""
    lines = [
        f"{facts['ok']} trial{'s' * (facts['ok'] != 1)} ok, {facts['failed']} failed{classes and f' ({classes})'}{pruned}"
    ]
    if (failure := facts["common_failure"]) is not None:
        lines.append(failure_line(failure, facts["failed"]))
    charged = facts["charged_seconds"]
    if charged:
        lines.append(f"{charged:.1f} s ({clock(charged)}) charged to the training budget")
    parts: list[Rows] = []
    if facts["llm"]["turns"]:
        llm = facts["llm"]
        kinds = ", ".join(f"{k} {n}" for k, n in facts["sources"].items() if k.startswith("llm"))
        lines.append(f"{llm['turns']} LLM turns ({kinds})")
        parts.append(_llm_table(llm))
    return Group(f"study {facts['study']}", params, *lines, *parts)


def _llm_table(llm: dict[str, Any]) -> Rows:
    """Show requests, tokens and seconds of the language model, in all and a turn."""
    table = Rows("language model", "in all", "a turn")
    for label, key in (
        ("requests", "requests"),
        ("prompt tokens", "prompt_tokens"),
        ("of them cached", "cached_tokens"),
        ("completion tokens", "completion_tokens"),
        ("seconds", "seconds"),
    ):
        total = llm[key]
        if key == "cached_tokens" and not total:
            continue  # the server doesn't tell
        whole = f"{total:,.1f}" if isinstance(total, float) else f"{total:,}"
        table.add_row(label, whole, f"{total / llm['turns']:,.1f}")
    return table


def dry_run_report(facts: dict[str, Any]) -> Group:
    """Show the facts that `studies.commands.dry_run` returns."""
    from studies.played import how_counted  # with samplers, which other tables do without

    parts: list[Any] = [space_table(facts["space"])]
    llm = facts["llm"]
    if llm is None:
        return Group(*parts, f"{facts['method']} asks no language model.")
    if not llm["first_prompt"]:
        return Group(*parts, f"The language model has no turn in {llm['trials']} trials.")
    if llm["problem"]:
        parts.append(f"The language model can't be asked just now: {llm['problem']}")
    parts.append("The first prompt (its measured values are placeholders):\n")
    parts += [Text(f"[{m['role']}]\n{m['content']}\n") for m in llm["first_prompt"]]
    parts.append(
        f"{llm['first_prompt_tokens']} tokens, {how_counted(llm['tokens_counted'])}."
        f" {llm['trials']} trials:"
        f" {llm['calls']} calls, {llm['prompt_tokens']} prompt tokens,"
        f" {llm['completion_tokens']} completion tokens."
    )
    if not llm["trials_known"]:
        parts.append("How many trials the budget is enough for shows when one has run.")
    if llm["cost"] is None:
        parts.append("Their cost: --price-in and --price-out, per million tokens.")
    else:
        parts.append(
            f"They cost {llm['cost']:.4f}, without what the model thinks, which is charged as"
            " completion."
        )
    return Group(*parts)


def status_table(studies: list[dict[str, Any]]) -> Rows:
    """Show one row per study of a storage."""
    headings = ("study", "state", "trials", "baseline", "best", "charged", "LLM")
    table = Rows(*headings, padding=(0, 1, 0, 0))
    for facts in studies:
        states = facts["trials"]
        counts = {"ok": facts["ok"], **facts["failures"]}
        counts |= {kind: facts[kind] for kind in ("pruned", "infeasible")}
        counts |= {s: states.get(s, 0) for s in ("running", "waiting", "interrupted")}
        table.add_row(
            facts["study"],
            facts["state"],
            ", ".join(f"{n} {what}" for what, n in counts.items() if n),
            cell((facts["baseline"] or {}).get(facts["metric"])),
            cell((facts["best"] or {}).get(facts["metric"]))
            if facts["objectives"] == 1
            else f"{facts['objectives']} objectives",
            clock(facts["charged_seconds"]),
            f"{facts['llm']['turns']} ({facts['llm']['share']:.0%})"
            if facts["llm"]["turns"]
            else "-",
        )
    return table


def failure_line(failure: Mapping[str, Any], failed: int) -> str:
    """Say what the commonest of the failures is."""
    n, status, reason = failure["trials"], failure["status"], failure["reason"]
    return f"commonest failure ({n} of {failed}): {status}: {reason} (trial {failure['trial']})"


def status_lines(studies: list[dict[str, Any]]) -> list[str]:
    """Say what a table of studies doesn't: why most trials of one fail, what its best is worth."""
    lines = [
        f"{facts['study']}: {failure_line(failure, facts['failed'])}"
        for facts in studies
        if (failure := facts["common_failure"]) is not None and failure["is_usual"]
    ]
    if any("revalidates" in facts for facts in studies):
        lines.append(
            "best: the best value of a single training; the command `best --study NAME` goes by"
            " repetitions"
        )
    return lines + _comparison_lines(studies)


def _comparison_lines(studies: list[dict[str, Any]]) -> list[str]:
    """Summarize the states of each comparison's runs, and say why some failed."""
    lines = []
    runs: dict[str, list[dict[str, Any]]] = {}
    for facts in studies:
        if "comparison" in facts:
            runs.setdefault(facts["comparison"], []).append(facts)
    for name, members in runs.items():
        states = Counter(facts["state"] for facts in members)
        said = ", ".join(f"{n} {state}" for state, n in states.most_common())
        lines.append(f"comparison {name}: {len(members)} runs, {said}")
        lines += [
            f"  {facts['study']} failed: {facts[RUN_ERROR]}"
            for facts in members
            if facts["state"] == "failed"
        ]
        if states.keys() - {"done"}:
            lines.append("  The command that made it goes on with what is not done.")
        if any(facts["state"] == "missing" and "surrogate" in facts for facts in members):
            lines.append("  Without a language model, a surrogate's run is stored when it ends.")
    return lines


def space_rows(testbed: Testbed) -> list[dict[str, Any]]:
    """Return the search space as plain values; what a type doesn't have is ``None``."""
    rows = []
    for name, d in testbed.space.items():
        row: dict[str, Any] = dict.fromkeys(
            ("name", "type", "low", "high", "log", "step", "choices", "default")
        )
        row.update(name=name, default=testbed.baseline[name])
        if isinstance(d, CategoricalDistribution):
            row.update(type="categorical", choices=list(d.choices))
        elif isinstance(d, (FloatDistribution, IntDistribution)):
            kind = "int" if isinstance(d, IntDistribution) else "float"
            row.update(type=kind, low=d.low, high=d.high, log=d.log, step=d.step)
        rows.append(row)
    return rows


def left_out_table(reasons: Mapping[str, str]) -> Rows:
    """Show one row per constant that isn't tuned."""
    table = Rows("not tuned", "because")
    for name, why in reasons.items():
        table.add_row(name, why)
    return table


def space_table(rows: list[dict[str, Any]]) -> Rows:
    """Show one row per tunable constant."""
    table = Rows("name", "type", "range", "scale", "default")
    for row in rows:
        if row["choices"] is None:
            span = f"{cell(row['low'])} .. {cell(row['high'])}"
            scale = "log" if row["log"] else f"step {row['step']}" if row["step"] else "linear"
        else:
            span, scale = ", ".join(map(str, row["choices"])), ""
        table.add_row(row["name"], row["type"], span, scale, cell(row["default"]))
    return table


def cell(value: Any) -> str:
    """Format a value for people."""
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
