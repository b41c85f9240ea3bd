"""The first thing that a report shows: the best run's configuration, beside the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import math
from typing import Any

from objective.best import values_run
from objective.failure import INFEASIBLE
from samplers._llm.record import LLM
from samplers._llm.record import SOURCES
from studies.best import listed
from studies.best import sentences
from studies.best import Winner
from studies.code_agent.history import DOUBTED
from studies.facts import commonest
from studies.facts import configuration
from studies.library import is_library_study
from studies.printable import decimals
from studies.printable import shortened
from studies.printable import times
from studies.repetitions import pooled_sd
from studies.report.layout import bullets
from studies.report.layout import prose
from studies.report.layout import Section
from studies.report.page_tables import cell
from studies.report.page_tables import table
from studies.report.page_tables import text
from studies.report.runs import metric_of
from studies.report.runs import Run


_REASON = 200  # characters
_PROPOSERS = {LLM: "the language model", "tuner": "the tuner of constants"}


def best_run(runs: Sequence[Run]) -> Run | None:
    """Return the best run; None if nothing succeeded.

    It is the one whose winner has the smallest share of failures and then the best mean on
    repetition, where each has a mean, else the one with the best measured value.
    """
    cost, repeated = metric_of(runs).cost, are_repeated(runs)
    return min(
        (run for run in runs if run.incumbents),
        key=lambda run: run.rank if repeated else (0.0, cost(run.best)),
        default=None,
    )


def are_repeated(runs: Sequence[Run]) -> bool:
    """Return whether the winner of every run that has one has a mean on repetition."""
    return all(math.isfinite(run.rank[0]) for run in runs if run.incumbents)


def best_section(runs: Sequence[Run], winner: Winner) -> Section:
    """Return the section of a winner: its value, whether to believe it, and what was run."""
    body = f"<p>{prose(' '.join(best_sentences(runs, winner)))}</p>"
    if winner.trial.params:
        body += _values(winner)
    else:
        (run,) = (run for run in runs if run.study == winner.study.study_name)
        kept = [
            str(row.attrs["description"]) for row in run.incumbents if "description" in row.attrs
        ]
        body += f"<p>Changes that made it better, in their order:</p>{bullets(kept)}"
    return Section("Best", "The best so far", "", body)


def best_sentences(runs: Sequence[Run], winner: Winner) -> Iterator[str]:
    """Say what the best trial came to, what it gained, and whether to believe it."""
    metric, trial = winner.metric, winner.trial
    source = str(trial.user_attrs.get("source") or "")
    # Of the method's own trials its name says enough; imported ones may name anybody.
    by = _PROPOSERS.get(source, "" if source in SOURCES else source)
    by = f", proposed by {by}" if by else ""
    value = trial.values[0]
    is_foreign = is_library_study(winner.study.user_attrs)
    verb = "evaluated" if is_foreign else "trained"
    yield f"{metric.name} {decimals(value)} in trial {trial.number} of {winner.study.study_name}{by}."
    if len(runs) > 1 and not are_repeated(runs):
        yield (
            f"Of {len(runs)} runs its own has the best observed value: not all of them were {verb}"
            " again."
        )
    for said in sentences(winner, "`optuna-autoresearch revalidate`"):
        yield f"{said[0].upper()}{said[1:]}."
    yield from _other_runs(runs, winner)
    seconds = sum(run.seconds for run in runs)
    trials = sum(len(run.rows) for run in runs)
    time, unit = (seconds / 3600, "hours") if seconds >= 360 else (seconds, "seconds")
    took = f"{time:,.0f} {unit}" if time >= 10 else f"{time:.2g} {unit}"
    # Optuna notes how long a trial took, with its sampler's time, whatever ran beside it.
    known = f", which lasted {took} in sum" if is_foreign else f" and {took} of training"
    yield f"All of it took {trials:,} trial{'s' * (trials != 1)}{known if seconds else ''}."
    yield from _failures(runs)


def _other_runs(runs: Sequence[Run], winner: Winner) -> Iterator[str]:
    """Say which other runs' winners are the same, or by the noise not to be told from it."""
    if winner.trial.number not in winner.repeated or not are_repeated(runs):
        return
    cost, again = winner.metric.cost, winner.repeated[winner.trial.number]
    # Runs that train one configuration with the same seeds don't train it more often.
    noise = pooled_sd({r.values: r for run in runs for r in run.repeated.values()}.values())
    same, near = [], []
    for run in runs:
        if run.study == winner.study.study_name or run.winner is None:
            continue
        other = run.repeated[run.winner.number]
        if run.winner.configuration == configuration(winner.trial):
            same.append(run.study)
        elif noise and again.mean is not None and other.mean is not None and not other.failed:
            error = noise * math.sqrt(1 / len(again.values) + 1 / len(other.values))
            if cost(other.mean) - cost(again.mean) < 2 * error:
                near.append(run.study)
    if same:
        yield f"The best of {listed(same)} is the same configuration."
    if near:
        yield (
            f"Within the noise between trainings of all runs (sd {decimals(noise or 0.0)}) trial"
            f" {winner.trial.number} is not to be told from the best of {listed(near)}."
        )


def _failures(runs: Sequence[Run]) -> Iterator[str]:
    """Say how many trials failed, with what most of them did, and how many were infeasible."""
    failed = [row for run in runs for row in run.rows if row.failed and row.status != DOUBTED]
    reasons = [str(row.attrs.get("reason") or "").rstrip(".") for row in failed]
    why = ""
    if alike := commonest(zip((row.status for row in failed), reasons)):
        most = "" if len(alike) == len(failed) else f", most often ({times(len(alike))})"
        status, reason = failed[alike[-1]].status, reasons[alike[-1]]
        why = f"{most} with {status}{': ' * bool(reason)}{shortened(reason, _REASON)}"
    if failed:
        yield f"{len(failed):,} of the trials failed{why}."
    if infeasible := sum(row.status == INFEASIBLE for run in runs for row in run.rows):
        do = "doesn't" if infeasible == 1 else "don't"
        yield f"{infeasible:,} of the trials violated a constraint, and {do} count."


def _values(winner: Winner) -> str:
    """Show the parameters as they were run, those that differ from the baseline's first."""
    was = {} if winner.baseline is None else values_run(winner.baseline)
    rows: list[dict[str, Any]] = [
        {"method": "", "name": name, "value": value, "was": was.get(name)}
        for name, value in values_run(winner.trial).items()
    ]
    rows.sort(key=lambda row: bool(row["value"] == row["was"]))
    cells = {"parameter": lambda row: text(row["name"]), "best": lambda row: _shown(row["value"])}
    if was:
        cells["baseline"] = lambda row: _shown(row["was"])
        cells["changed"] = lambda row: cell("yes" if row["value"] != row["was"] else "")
    return table("As it was run", cells, rows)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return cell(f"{value:.5g}", value)
    if isinstance(value, int) and not isinstance(value, bool):
        return cell(value, value)
    return cell("" if value is None else value)
