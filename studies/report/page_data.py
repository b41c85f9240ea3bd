"""The data of the page's script on single runs: trials as columns, and transcripts."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

from optuna.distributions import CategoricalDistribution

from samplers._llm.record import ENQUEUED
from studies.library import is_library_study
from studies.printable import decimals
from studies.report.plots import time_title
from studies.report.plots import time_unit
from studies.report.runs import metric_of
from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.tables import parameters


_MOST_POINTS = 100_000  # of all learning curves, each of which keeps at least two


def page_trials(runs: Sequence[Run], artifacts: str = "") -> dict[str, Any]:
    """Return the runs with a list for each column; ``params`` is one list per parameter.

    ``curves`` (steps and values) and ``artifacts`` (names and identifiers, in the folder of the
    address ``artifacts``) are left out of runs that have none. ``incumbents`` are the places of
    their trials, and from which place and second each counts.

    Values have six significant digits and parameters four, as many as a hover shows: a page of
    hundreds of studies holds a million of them. A choice is its place among the parameter's
    ``choices``, so that None may be one: what a trial lacks is null.
    """
    described = [_parameter(name, runs) for name in parameters(runs)]
    unit, seconds = time_unit(runs)
    # Nothing stored tells which a script's progress was: see `objective.run.printed.Progress`.
    is_foreign = any(is_library_study(run.metadata) for run in runs)
    curves = sum(bool(row.curve) for run in runs for row in run.rows)
    points = max(2, min(60, _MOST_POINTS // max(1, curves)))
    return {
        "metric": metric_of(runs).name,
        "higher_is_better": metric_of(runs).better == "higher",
        "unit": {"name": unit, "seconds": seconds, "title": time_title(runs)},
        "steps": "step"
        if is_foreign
        else "percent of the training, or step if it has no known end",
        "parameters": described,
        "artifacts": artifacts,
        "runs": [_columns(run, described, points, bool(artifacts)) for run in runs],
    }


def page_transcripts(
    said: Sequence[Mapping[str, Any]], runs: Sequence[Run]
) -> list[dict[str, Any]]:
    """Add the outcome of its trial, in words, to each transcript."""
    entries = []
    for entry in said:
        row = next(r for r in runs[entry["run"]].rows if r.number == entry["trial"])
        result = decimals(row.value) if row.ok else row.status
        entries.append({**entry, "about": f"{row.source}, {result}"})
    return entries


def _parameter(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Describe a parameter; the choices are those of all runs, and what else a rule ran."""
    spaces = [run.space[name] for run in runs if name in run.space]
    choices = None
    if isinstance(spaces[0], CategoricalDistribution):
        offered = [choice for space in spaces for choice in getattr(space, "choices", ())]
        ran = [row.params[name] for run in runs for row in run.rows if name in row.params]
        choices = list(dict.fromkeys(map(_choice, [*offered, *ran])))
    return {"name": name, "log": getattr(spaces[0], "log", False), "choices": choices}


def _choice(value: Any) -> Any:
    """Return a choice as the page shows it: a number, which sorts as one, or text."""
    is_number = type(value) in (int, float) and math.isfinite(value)
    return value if is_number else str(value)


def _params(rows: Sequence[Row], parameter: Mapping[str, Any]) -> list[Any]:
    name, choices = parameter["name"], parameter["choices"]
    if choices is None:
        return [_digits(row.params.get(name), 4) for row in rows]
    return [
        choices.index(_choice(row.params[name])) if name in row.params else None for row in rows
    ]


def _columns(
    run: Run, described: Sequence[Mapping[str, Any]], points: int, with_artifacts: bool
) -> dict[str, Any]:
    rows = run.rows
    place = {row.number: i for i, row in enumerate(rows)}
    more: dict[str, Any] = {}
    if any(row.curve for row in rows):
        more["curves"] = [_thinned(row.curve, points) for row in rows]
    if with_artifacts and any(row.artifacts for row in rows):
        more["artifacts"] = [row.artifacts for row in rows]
    return {
        **more,
        "method": run.method,
        "seed": run.seed,
        "number": [row.number for row in rows],
        "seconds": [round(row.seconds, 2) for row in rows],
        "value": [_digits(row.value, 6) for row in rows],
        "status": [row.status for row in rows],
        "source": [_source(run, row) for row in rows],
        "reason": [str(row.attrs.get("reason", "")) for row in rows],
        "incumbents": [
            [place[row.number], row.position - 1, round(row.seconds, 2)] for row in run.incumbents
        ],
        "params": [_params(rows, parameter) for parameter in described],
    }


def _source(run: Run, row: Row) -> str:
    """Say who decided a trial's parameters; the baseline, which was enqueued, is called that."""
    is_given = row.source == ENQUEUED and row.number == run.baseline
    return "baseline" if is_given else row.source


def _thinned(curve: Mapping[int, float], most: int) -> list[list[Any]]:
    """Return at most so many steps of a curve, with the first and the last, and their values."""
    steps = sorted(curve)
    if len(steps) > most:
        steps = [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]
    return [steps, [_digits(float(curve[step]), 6) for step in steps]]


def _digits(value: Any, digits: int) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
