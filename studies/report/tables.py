"""A row per method, per run and per trial: what the runs came to, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
import json
import math
from typing import Any

from studies.facts import LLM_SOURCES
from studies.printable import cell
from studies.report.runs import metric_of
from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.statistics import compare
from studies.report.statistics import Comparison
from studies.report.statistics import summarize


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, in any currency; ``None`` is unknown."""

    prompt: float | None = None
    completion: float | None = None

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of the tokens; NaN without any price."""
        if self.prompt is None and self.completion is None:
            return math.nan
        total = prompt_tokens * (self.prompt or 0) + completion_tokens * (self.completion or 0)
        return total / 1e6


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Map each method to its runs, the best mean first and methods without a success last."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run)

    def place(method: str) -> tuple[bool, float, str]:
        mean = summarize(finite(run.best for run in groups[method])).mean
        return math.isnan(mean), metric_of(runs).cost(mean), method

    return {method: groups[method] for method in sorted(groups, key=place)}


def finite(values: Any) -> list[float]:
    """Return the values that are finite numbers."""
    return [value for value in values if math.isfinite(value)]


def best_by_seed(runs: Sequence[Run], *, revalidated: bool = False) -> dict[str, dict[int, float]]:
    """Map each method to its seeds' best values, where there are any.

    Args:
        runs: Runs of a method that share a seed count as one, by their mean.
        revalidated: Take the mean of the best configuration's repetitions instead.
    """
    values: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        value = run.revalidated_best if revalidated else run.best
        seeds = values.setdefault(run.method, defaultdict(list))
        if math.isfinite(value):
            seeds[run.seed].append(value)
    return {
        method: {seed: sum(found) / len(found) for seed, found in seeds.items()}
        for method, seeds in values.items()
    }


def comparisons(
    runs: Sequence[Run], reference: str, *, revalidated: bool = False
) -> list[Comparison]:
    """Compare every other method with the reference method, in the order of `by_method`."""
    best, groups = best_by_seed(runs, revalidated=revalidated), by_method(runs)
    rows = compare({method: best[method] for method in groups}, reference, metric_of(runs))
    if not revalidated:
        return rows
    failed = {method: failed_repetitions(method, group) for method, group in groups.items()}
    return [
        replace(row, caveat=" and ".join(filter(None, (failed[row.method], failed[reference]))))
        for row in rows
    ]


def failed_repetitions(method: str, runs: Sequence[Run]) -> str:
    """Say how many repetitions of a method's runs failed, as a clause; empty if none did."""
    failed = sum(run.revalidated_failed for run in runs)
    if not failed:
        return ""
    repetitions = sum(run.repetitions for run in runs)
    return f"{failed} of {repetitions} repetitions of {method}'s best configurations failed"


def all_comparisons(runs: Sequence[Run], reference: str) -> dict[str, list[Comparison]]:
    """Compare the ``best`` values and, if any were repeated, the ``revalidated`` ones."""
    kinds = ["best", "revalidated"] if any(run.repetitions for run in runs) else ["best"]
    return {k: comparisons(runs, reference, revalidated=k == "revalidated") for k in kinds}


def comparison_rows(tests: Mapping[str, Sequence[Comparison]]) -> list[dict[str, Any]]:
    """Return the tests of `all_comparisons` as rows, with the value compared and the sentence."""
    return [
        {"value": kind, **asdict(row), "sentence": row.sentence}
        for kind, rows in tests.items()
        for row in rows
    ]


def method_rows(runs: Sequence[Run], prices: Prices = Prices()) -> list[dict[str, Any]]:
    """Return one row per method, in the order of `by_method`.

    Keys: ``method``, ``runs``, ``n`` (runs with a value), ``best_mean``, ``best_sd`` (sample),
    ``best_low`` and ``best_high`` (95 % interval); the same four of ``revalidated`` over the
    ``revalidated_n`` runs whose best configuration was run again with success, and ``luck``, by how
    much those runs' revalidated mean is worse than their best; ``repetitions`` of best
    configurations in all runs, and ``revalidated_failed``, how many of these failed; ``trials``,
    ``failed_share``, ``failures`` (class to count), ``distinct`` (configurations, summed over runs),
    ``duplicates`` (trials that repeated one of their run); ``llm_asked`` (NaN: unknown), the sum of
    ``llm_answered`` (its proposal was run), ``llm_screened`` (the critic preferred another),
    ``llm_refused`` (it was a duplicate) and ``llm_errors``, in trials;
    ``prompt_tokens``, ``completion_tokens``, ``llm_seconds``, ``cost``, ``hours`` (charged training
    time): sums, NaN where unknown.
    """
    return [_method_row(method, group, prices) for method, group in by_method(runs).items()]


def _method_row(method: str, runs: Sequence[Run], prices: Prices) -> dict[str, Any]:
    best = summarize(finite(run.best for run in runs))
    repeated = [run for run in runs if run.revalidated]
    again = summarize([run.revalidated_best for run in repeated])
    luck = summarize(
        [run.metric.cost(run.revalidated_best) - run.metric.cost(run.best) for run in repeated]
    ).mean
    trials = [row for run in runs for row in run.rows]
    failures = Counter(row.status for row in trials if row.failed)
    sources = Counter(row.source for row in trials)
    distinct = sum(run.distinct for run in runs)

    # Other programs' files need not say who proposed what, and what that took.
    imported = any("imported_from" in run.metadata for run in runs)
    unknown = imported and not any(sources.keys())

    def total(key: str) -> Any:
        known = [row.attrs[key] for row in trials if key in row.attrs]
        return math.nan if imported and not known else sum(known)

    return {
        "method": method,
        "runs": len(runs),
        "n": best.n,
        "best_mean": best.mean,
        "best_sd": best.sd,
        "best_low": best.low,
        "best_high": best.high,
        **{f"revalidated_{key}": value for key, value in asdict(again).items()},
        "repetitions": sum(run.repetitions for run in runs),
        "revalidated_failed": sum(run.revalidated_failed for run in runs),
        "luck": luck,
        "trials": len(trials),
        "failed_share": sum(failures.values()) / len(trials) if trials else math.nan,
        "failures": dict(failures),
        "distinct": distinct,
        "duplicates": len(trials) - distinct,
        "llm_asked": math.nan if unknown else sum(sources[source] for source in LLM_SOURCES),
        "llm_answered": sources["llm"],
        "llm_screened": sources["llm-screened"],
        "llm_refused": sources["llm-duplicate"],
        "llm_errors": sources["llm-error"],
        "prompt_tokens": total("llm_prompt_tokens"),
        "completion_tokens": total("llm_completion_tokens"),
        "llm_seconds": total("llm_seconds"),
        "cost": prices.of(total("llm_prompt_tokens"), total("llm_completion_tokens")),
        "hours": _seconds(runs) / 3600,
    }


def _seconds(runs: Sequence[Run]) -> float:
    """Sum the charged training time; NaN where another program's file says nothing of it."""
    total = sum(run.seconds for run in runs)
    is_unknown = not total and any("imported_from" in run.metadata for run in runs)
    return math.nan if is_unknown else total


def run_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per run, flat."""
    return [
        {
            "method": run.method,
            "seed": run.seed,
            "study": run.study,
            "best": run.best,
            "best_trial": run.incumbents[-1].number if run.incumbents else None,
            "revalidated": run.revalidated_best,
            "revalidated_n": len(run.revalidated),
            "revalidated_failed": run.revalidated_failed,
            "trials": len(run.rows),
            "failed": sum(row.failed for row in run.rows),
            "distinct": run.distinct,
            "training_seconds": _seconds([run]),
            "model": run.model,
        }
        for run in runs
    ]


def trial_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per trial of every run, flat, a column for each parameter.

    ``training_seconds`` are what the trial was charged; those of a run sum up to its own. A
    parameter that has the name of another column, such as ``status``, is ``param:status``.
    """
    names = parameters(runs)

    def flat_row(run: Run, row: Row, before: float) -> dict[str, Any]:
        known = {
            "method": run.method,
            "seed": run.seed,
            "study": run.study,
            "trial": row.number,
            run.metric.name: row.value,
            "status": row.status,
            "source": row.source,
            "training_seconds": round(row.seconds - before, 3),
            "training_seconds_so_far": round(row.seconds, 3),
        }
        params = {f"param:{n}" if n in known else n: row.params.get(n) for n in names}
        return {**known, **params}

    return [
        flat_row(run, row, before)
        for run in runs
        for row, before in zip(run.rows, [0.0, *(row.seconds for row in run.rows)])
    ]


def parameters(runs: Sequence[Run]) -> list[str]:
    """Return the parameters that the runs' trials have, each once, in their order."""
    return list(dict.fromkeys(name for run in runs for name in run.space))


def flat(row: dict[str, Any]) -> list[Any]:
    """Return a row's values for CSV: NaN and None as empty cells, dictionaries as JSON.

    Texts, which may be anybody's, are no formulas to a spreadsheet.
    """
    return [
        json.dumps(value, sort_keys=True)
        if isinstance(value, dict)
        else ""
        if value is None or (isinstance(value, float) and math.isnan(value))
        else cell(value)
        if isinstance(value, str)
        else value
        for value in row.values()
    ]
