"""Caveats of a comparison, in plain sentences."""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Sequence
import math

from studies.facts import RUN_ERROR
from studies.printable import decimals
from studies.report.runs import Run
from studies.report.statistics import Comparison
from studies.report.statistics import LEVEL
from studies.report.statistics import seeds_needed
from studies.report.tables import by_method
from studies.report.tables import failed_repetitions


# Metadata that two runs must share for their values to compare.
_CONDITIONS = {
    "testbed_hash": "training scripts",
    "train_seconds": "training seconds a trial",
    "memory_limit_mb": "memory limits (MB)",
}
_UNEQUAL = 1.1  # a run that had this many times another's training time was favoured


def notes(
    runs: Sequence[Run], tests: Sequence[Comparison], unstarted: Sequence[str] = ()
) -> list[str]:
    """Missing runs, unequal conditions and budgets, failed repetitions, doubts, what seeds allow.

    Args:
        runs: The runs of one comparison.
        tests: Of their best values.
        unstarted: Studies in which no trial has ended.
    """
    return [
        *_missing(runs, unstarted),
        *_conditions(runs),
        *_baselines(runs),
        *_shared_bests(runs),
        *_budgets(runs),
        *_power(tests),
        *_repetitions(runs),
        *_doubts(runs),
    ]


def _doubts(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        for step in run.history.steps if run.history is not None else ():
            if step.was_doubted:
                yield f"Trial {step.trial.number} of {run.study} {step.reason}."


def _repetitions(runs: Sequence[Run]) -> Iterator[str]:
    if not any(run.repetitions for run in runs):
        if len(runs) == 1:
            return  # the report begins with that
        if any("testbed_hash" in run.metadata for run in runs):
            again = ": `optuna-autoresearch revalidate` trains each best configuration again."
        else:
            again = "."  # only a testbed's script can be trained again
        yield f"No run is revalidated, so every best is the luckiest of its run's trials too{again}"
        return
    for method, group in by_method(runs).items():
        part = sum(not run.repetitions for run in group)
        if part:
            yield f"{part} of {len(group)} runs of {method} are not revalidated."
        failed = failed_repetitions(method, group)
        if not failed:
            continue
        if not any(run.revalidated for run in group):
            yield f"{failed}, so it has no revalidated mean."
            continue
        lost = sum(run.revalidated_failed == run.repetitions > 0 for run in group)
        yield f"{failed}; its revalidated mean is that of the others, and flatters it."
        if lost:
            yield (
                f"In {lost} of {len(group)} runs of {method} all repetitions failed: its "
                "revalidated mean and its tests lack them."
            )


def _missing(runs: Sequence[Run], unstarted: Sequence[str]) -> Iterator[str]:
    if unstarted:
        yield f"No trial has ended in {_listed(unstarted)}."
    for run in runs:
        if run.state != "done":
            error = run.metadata.get(RUN_ERROR) if run.state == "failed" else None
            by = f" with seed {run.seed}" if "seed" in run.metadata else ""
            yield (
                f"{run.method}{by} is not done ({run.state}"
                f"{f': {error}' if error else ''}) and counts with what it has."
            )
    groups = by_method(runs)
    seeds = sorted({run.seed for run in runs})
    for method, group in groups.items():
        absent = [str(seed) for seed in seeds if seed not in {run.seed for run in group}]
        if absent:
            yield f"{method} has no run with seed {_listed(absent)}."
        for seed, count in Counter(run.seed for run in group).items():
            if count > 1:
                yield (
                    f"{count} runs of {method} have seed {seed}: the tests take their mean, and "
                    "all else counts them as runs."
                )
        failed = sum(math.isnan(run.best) for run in group)
        if failed == len(group):
            yield f"Nothing succeeded in any run of {method}."
        elif failed:
            yield (
                f"Nothing succeeded in {failed} of {len(group)} runs of {method}; its mean is "
                "that of the others, and flatters it."
            )


def _conditions(runs: Sequence[Run]) -> Iterator[str]:
    for key, what in _CONDITIONS.items():
        found = sorted({str(run.metadata[key]) for run in runs if key in run.metadata})
        if len(found) > 1:
            yield f"Runs differ in their {what}: {_listed(found)}. Their values don't compare."
    first = {
        run.rows[0].value
        for run in runs
        if run.rows and run.rows[0].source == "enqueued" and run.rows[0].ok
    }
    if len(first) > 1:
        yield (
            f"The same baseline gave {decimals(min(first))} to {decimals(max(first))} in different runs: "
            "differences of that size may be noise of the training."
        )


def _baselines(runs: Sequence[Run]) -> Iterator[str]:
    stuck = [run for run in runs if run.is_at_baseline]
    if len(runs) > 1 and stuck:
        groups, found = by_method(runs), by_method(stuck)
        each = ", ".join(
            f"{method} {len(found[method])} of {len(group)}"
            for method, group in groups.items()
            if method in found
        )
        is_luck = len({run.best for run in stuck}) > 1 and not any(
            len({str(run.metadata.get(key)) for run in stuck}) > 1 for key in _CONDITIONS
        )
        luck = ": the baseline's values differ by luck alone" if is_luck else ""
        yield (
            f"{len(stuck)} of {len(runs)} runs found nothing better than the baseline ({each}){luck}."
        )


def _shared_bests(runs: Sequence[Run]) -> Iterator[str]:
    """Say on how many seeds methods have one best, as those have that draw their start-up alike."""
    found: defaultdict[tuple[int, int, str], set[str]] = defaultdict(set)
    for run in runs:
        if run.incumbents and run.incumbents[-1].params and not run.is_at_baseline:
            best = run.incumbents[-1]
            found[run.seed, best.number, best.configuration].add(run.method)
    shared = Counter(tuple(sorted(methods)) for methods in found.values() if len(methods) > 1)
    seeds = len({run.seed for run in runs})
    for methods, count in shared.items():
        yield (
            f"On {count} of {seeds} seeds {_listed(methods)} have the same best, found in the same"
            " trial: methods draw start-up trials alike, so that this is one finding, not several."
        )


def _budgets(runs: Sequence[Run]) -> Iterator[str]:
    seconds, trials = [run.seconds for run in runs], [len(run.rows) for run in runs]
    same_trials = min(trials) == max(trials)
    same_time = max(seconds) <= min(seconds) * _UNEQUAL
    if not same_trials and not same_time:
        yield (
            f"Runs had {min(trials)} to {max(trials)} trials and {min(seconds):.0f} to "
            f"{max(seconds):.0f} s of training: more of both helps. --budget or --trials cuts "
            "all of them at the same point."
        )


def _power(tests: Sequence[Comparison]) -> Iterator[str]:
    rows = [row for row in tests if row.n]
    corrected = [row for row in rows if row.in_family]
    # The others do not count for the correction, but would with as many seeds as they need.
    for group, methods in (
        (corrected, len(corrected)),
        ([row for row in rows if not row.in_family], len(rows)),
    ):
        needed = seeds_needed(methods)
        few = [row for row in group if row.n < needed]
        if few:
            counts = sorted({row.n for row in few})
            yield (
                f"{_listed([row.method for row in few])} share{'s' * (len(few) == 1)} "
                f"{' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} "
                f"seed{'s' * (counts[-1] != 1)} with {few[0].reference}: {needed} are the fewest with "
                f"which a clean sweep would be significant (p <= {LEVEL}) for {methods} compared "
                f"method{'s' * (methods != 1)}."
            )


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
