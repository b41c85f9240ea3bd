"""A row per method: what its runs came to, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import json
import math
from typing import Any

from studies.facts import LLM_SOURCES
from studies.report.runs import Run
from studies.report.statistics import compare
from studies.report.statistics import Comparison
from studies.report.statistics import summarize


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Method to its runs, both in the order of the runs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run)
    return groups


def best_by_seed(runs: Sequence[Run]) -> dict[str, dict[int, float]]:
    """Method to seed to the best value, where something succeeded."""
    return {
        method: {run.seed: run.best() for run in group if math.isfinite(run.best())}
        for method, group in by_method(runs).items()
    }


def method_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per method, the best mean first; the methods in which nothing succeeded last.

    Keys: ``method``, ``runs``, ``n`` (runs with a value), ``best_mean``, ``best_sd`` (sample),
    ``best_low`` and ``best_high`` (95 % interval), ``revalidated_mean`` and ``revalidated_n``
    (the runs whose best configuration was run again), ``trials``, ``failed_share``, ``failures``
    (class to count), ``distinct`` (configurations), ``duplicates`` (trials that repeated one),
    ``llm_turns``, ``llm_answered``, ``llm_refused`` (duplicates), ``llm_errors``, ``tokens``,
    ``llm_seconds``, ``hours`` (charged training time). All but the first eight are sums.
    """
    rows = [_method_row(method, group) for method, group in by_method(runs).items()]
    return sorted(rows, key=lambda row: (math.isnan(row["best_mean"]), row["best_mean"]))


def _method_row(method: str, runs: Sequence[Run]) -> dict[str, Any]:
    values = [run.best() for run in runs if math.isfinite(run.best())]
    summary = summarize(values)
    again = summarize(
        [float(run.facts["revalidated"]) for run in runs if "revalidated" in run.facts]
    )
    trials = [row for run in runs for row in run.rows]
    failures = Counter(row.status for row in trials if not row.ok)
    sources = Counter(row.source for row in trials)
    distinct = sum(run.distinct() for run in runs)

    def total(key: str) -> float:
        return sum(row.attrs.get(key, 0) for row in trials)

    return {
        "method": method,
        "runs": len(runs),
        "n": summary.n,
        "best_mean": summary.mean,
        "best_sd": summary.sd,
        "best_low": summary.low,
        "best_high": summary.high,
        "revalidated_mean": again.mean,
        "revalidated_n": again.n,
        "trials": len(trials),
        "failed_share": sum(failures.values()) / len(trials),
        "failures": dict(failures),
        "distinct": distinct,
        "duplicates": len(trials) - distinct,
        "llm_turns": sum(sources[source] for source in LLM_SOURCES),
        "llm_answered": sources["llm"],
        "llm_refused": sources["llm-duplicate"],
        "llm_errors": sources["llm-error"],
        "tokens": int(total("llm_prompt_tokens") + total("llm_completion_tokens")),
        "llm_seconds": total("llm_seconds"),
        "hours": sum(run.hours for run in runs),
    }


def comparisons(runs: Sequence[Run], reference: str) -> list[Comparison]:
    """Every other method against the reference method."""
    return compare(best_by_seed(runs), reference)


def trial_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per trial of every run, flat, for CSV."""
    return [
        {
            "method": run.method,
            "seed": run.seed,
            "study": run.study,
            "trial": row.number,
            "val_bpb": row.value if row.ok else "",
            "status": row.status,
            "source": row.source,
            "training_hours": round(row.hours, 6),
            "params": json.dumps(row.params, sort_keys=True),
        }
        for run in runs
        for row in run.rows
    ]
