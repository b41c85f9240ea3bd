"""The first thing that a report shows: the best configuration of all runs, beside the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from html import escape
import math
import statistics
from typing import Any

from studies.report.layout import bullets
from studies.report.layout import Section
from studies.report.page_tables import cell
from studies.report.page_tables import table
from studies.report.page_tables import text
from studies.report.runs import metric_of
from studies.report.runs import Row
from studies.report.runs import Run


def best_section(runs: Sequence[Run]) -> Section:
    """Return the section of the best trial: value, gain, what repetitions say, and what was run."""
    body = f"<p>{escape(' '.join(best_sentences(runs)))}</p>"
    run = best_run(runs)
    if run is None:
        return Section("Best", "The best so far", "", body)
    best = run.incumbents[-1]
    if best.params:
        body += _values(run, best, baseline(run))
    elif kept := [str(row.attrs.get("description", "")) for row in run.incumbents[1:]]:
        body += f"<p>Changes that made it better, in their order:</p>{bullets(kept)}"
    return Section("Best", "The best so far", "", body)


def best_sentences(runs: Sequence[Run]) -> list[str]:
    """Say what the best trial came to, what it gained, and whether to believe it."""
    run = best_run(runs)
    if run is None:
        return ["No trial has succeeded yet."]
    return list(_sentences(runs, run, run.incumbents[-1], baseline(run)))


def best_run(runs: Sequence[Run]) -> Run | None:
    """Return the run with the best measured value; None if nothing succeeded."""
    cost = metric_of(runs).cost
    return min(
        (run for run in runs if run.incumbents), key=lambda run: cost(run.best), default=None
    )


def baseline(run: Run) -> Row | None:
    """Return a run's first trial, if that was given and measured."""
    return next(
        (r for r in run.rows if r.number == 0 and r.ok and r.source in ("enqueued", "startup")),
        None,
    )


def _sentences(runs: Sequence[Run], run: Run, best: Row, first: Row | None) -> Iterator[str]:
    metric = metric_of(runs)
    who = f", seed {run.seed}" if len(runs) > 1 else ""
    by = f", proposed by {best.source}" if best.source else ""
    yield f"{metric.name} {best.value:.4f} in trial {best.number} of {run.method}{who}{by}."
    if first is not None and first is not best:
        gain = metric.cost(first.value) - metric.cost(best.value)
        yield f"The script as it was came to {first.value:.4f}: a gain of {gain:.4f}."
    again = run.revalidated
    if len(again) > 1:
        mean, sd = statistics.fmean(again), statistics.stdev(again)
        error = sd / math.sqrt(len(again))
        yield (
            f"Trained again {len(again)} times with fresh seeds it came to {mean:.4f} on average"
            f" (standard deviation {sd:.4f}, standard error {error:.4f}): believe that."
        )
        if first is not None and metric.cost(mean) + 2 * error > metric.cost(first.value):
            yield "That is not clearly better than the script as it was."
    elif again:
        yield f"Trained again once with a fresh seed it came to {again[0]:.4f}."
    else:
        yield (
            "It is the luckiest of its trials, too, and was not repeated:"
            " `optuna-autoresearch revalidate` trains it again with fresh seeds."
        )
    hours = sum(r.seconds for r in runs) / 3600
    trials = sum(len(r.rows) for r in runs)
    yield f"All of it took {trials:,} trials and {hours:.2g} hours of training."


def _values(run: Run, best: Row, first: Row | None) -> str:
    """Show the parameters as they were run, those that differ from the baseline's first."""
    before = {} if first is None else first.params
    rows: list[dict[str, Any]] = [
        {"method": run.method, "name": name, "value": value, "was": before.get(name)}
        for name, value in best.params.items()
    ]
    rows.sort(key=lambda row: row["value"] == row["was"])
    cells = {
        "parameter": lambda row: text(row["name"]),
        "best": lambda row: _shown(row["value"]),
    }
    if before:
        cells["baseline"] = lambda row: _shown(row["was"])
        cells["changed"] = lambda row: cell("yes" if row["value"] != row["was"] else "")
    return table("As it was run", cells, rows)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return cell(f"{value:.5g}", value)
    if isinstance(value, int) and not isinstance(value, bool):
        return cell(value, value)
    return cell("" if value is None else value)
