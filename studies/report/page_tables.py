"""The tables of the page: sortable, with the numbers that a reader compares side by side."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
import math
from typing import Any

from studies.printable import decimals
from studies.report.statistics import Comparison
from studies.report.statistics import FEW
from studies.report.time_to_target import percent
from studies.report.time_to_target import TimeToTarget


def values_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Show the methods' best values, from `tables.method_rows`."""
    repeated = {
        "revalidated (mean)": lambda r: number(r["revalidated_mean"]),
        "SD of it": lambda r: number(r["revalidated_sd"]),
        "its 95 % interval": lambda r: interval(
            r["revalidated_low"], r["revalidated_high"], r["revalidated_n"]
        ),
        "its n": lambda r: cell(r["revalidated_n"] or "", r["revalidated_n"]),
        "repetitions failed": _repetitions_failed,
        "luck": lambda r: number(r["luck"]),
    }
    cells = {
        "method": lambda r: text(r["method"]),
        "best (mean)": lambda r: number(r["best_mean"]),
        "SD": lambda r: number(r["best_sd"]),
        "95 % interval": lambda r: interval(r["best_low"], r["best_high"], r["n"]),
        "n": lambda r: cell(f"{r['n']} of {r['runs']}", r["n"]),
        **(repeated if any(row["repetitions"] for row in rows) else {}),
        "trials": lambda r: cell(f"{r['trials']:,}", r["trials"]),
        "training hours": lambda r: number(r["hours"], ".3g"),
    }
    return table("Values", cells, rows)


def cost_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Show failures, duplicates, and the language model's answers, tokens and seconds."""

    def llm(key: str, spec: str = ",.0f") -> Any:
        return lambda r: number(r[key], spec) if r["llm_asked"] > 0 else cell("")

    def classes(row: Mapping[str, Any]) -> str:
        return text(", ".join(f"{name} {n}" for name, n in sorted(row["failures"].items())))

    cells = {
        "method": lambda r: text(r["method"]),
        "failed": lambda r: _share(r["failed_share"]),
        "by class": classes,
        "distinct": lambda r: cell(f"{r['distinct']:,}", r["distinct"]),
        "duplicates": lambda r: cell(f"{r['duplicates']:,}", r["duplicates"]),
    }
    asked = {
        "LLM asked": lambda r: _share(r["llm_asked"] / r["trials"]),
        "proposal run": lambda r: _part(r, "llm_answered"),
        "critic preferred another": lambda r: _part(r, "llm_screened"),
        "refused": lambda r: _part(r, "llm_refused"),
        "errors": lambda r: _part(r, "llm_errors"),
        "prompt tokens": llm("prompt_tokens"),
        "reply tokens": llm("completion_tokens"),
        "LLM seconds": llm("llm_seconds"),
    }
    if any(row["llm_asked"] != 0 for row in rows):  # not a number: unknown
        cells |= asked
    if any(not math.isnan(row["cost"]) for row in rows):
        cells["cost"] = llm("cost", ".4g")
    return table("Failures and repetitions", cells, rows)


def tests_table(rows: Sequence[Comparison], kind: str) -> str:
    """Compare each method with the reference; ``kind`` is a key of `tables.all_comparisons`."""
    cells = {
        "method": lambda r: text(r["method"]),
        "difference": lambda r: number(r["difference"], sign="+"),
        "95 % interval": lambda r: interval(r["low"], r["high"], r["n"], "+"),
        "better on": lambda r: cell(f"{r['wins']} of {r['n']}", r["wins"]),
        "effect": lambda r: number(r["effect"], "+.2f"),
        "p one-sided": lambda r: number(r["p_less"]),
        "Holm": lambda r: number(r["p_less_holm"]),
        "p two-sided": lambda r: number(r["p_two_sided"]),
        "Holm, two-sided": lambda r: number(r["p_two_sided_holm"]),
    }
    title = {"best": "Best values", "revalidated": "Revalidated best values"}[kind]
    return table(title, cells, [asdict(row) for row in rows])


def times_table(rows: Sequence[TimeToTarget]) -> str:
    """Show after what share of the reference's budget each method is as good as it at its end.

    Empty if the reference has no value on any seed.
    """
    rows = [row for row in rows if row.n]
    if not rows:
        return ""

    def interval(row: Mapping[str, Any]) -> str:
        low, high = row["low"], row["high"]
        if math.isnan(low):
            return cell("")
        shown = f"{percent(low)} to {percent(high)}" if math.isfinite(low) else percent(low)
        return cell(shown, low)

    cells = {
        "method": lambda r: text(r["method"]),
        f"of its {rows[0].unit}": lambda r: cell(percent(r["median"]), r["median"]),
        "95 % interval": interval,
        "reached on": lambda r: cell(f"{r['reached']} of {r['n']}", r["reached"]),
    }
    title = f"As good as {rows[0].reference} at its end after"
    return table(title, cells, [asdict(row) for row in rows])


def table(title: str, columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a sortable table.

    Args:
        title: Its caption.
        columns: Heading to what makes a row's cell.
        rows: Each with a ``method``, by which the page can hide it.
    """
    head = "".join(
        f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in columns
    )
    body = "".join(
        f'<tr data-method="{escape(row["method"])}">'
        f"{''.join(cell(row) for cell in columns.values())}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(shown: object, value: float | None = None) -> str:
    """Return a table's cell; ``value`` is the number that it is sorted by."""
    if value is None:
        return f"<td>{escape(str(shown))}</td>"
    number = "Infinity" if value == math.inf else value  # as the page's script reads it
    return f'<td data-value="{number}">{escape(str(shown))}</td>'


def text(shown: str) -> str:
    """Return a cell of words."""
    return f'<td class="text">{escape(shown)}</td>'


def number(value: float, spec: str = "", sign: str = "") -> str:
    """Return a cell of a number, as `decimals` shows it without a format; empty for NaN."""
    if math.isnan(value):
        return cell("")
    return cell(format(value, spec) if spec else decimals(value, sign), value)


def _share(share: float) -> str:
    return cell("") if math.isnan(share) else cell(f"{100 * share:.0f} %", share)


def _repetitions_failed(row: Mapping[str, Any]) -> str:
    failed, repetitions = row["revalidated_failed"], row["repetitions"]
    return cell(f"{failed} of {repetitions}", failed / repetitions) if repetitions else cell("")


def _part(row: Mapping[str, Any], key: str) -> str:
    asked = row["llm_asked"]
    return cell(f"{row[key]} of {asked}", row[key] / asked) if asked > 0 else cell("")


def interval(low: float, high: float, n: int, sign: str = "") -> str:
    """Return a cell of the interval of n values, sorted by its lower end; empty of few."""
    if n <= FEW:
        return cell("")
    return cell(f"{decimals(low, sign)} to {decimals(high, sign)}", low)
