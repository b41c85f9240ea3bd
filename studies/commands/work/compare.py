"""The work of ``compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import os
from pathlib import Path
import statistics
from typing import Any

import optuna

from objective.preflight import preflight
from objective.run.launch import has_gpu
from studies import random_steps
from studies.changes import FILES
from studies.commands import options
from studies.commands.as_json import print_json
from studies.commands.console import console
from studies.commands.groups import refuse_with
from studies.commands.progress import clock
from studies.commands.progress import ComparisonProgress
from studies.commands.work.run import say_preflight
from studies.comparison import Board
from studies.comparison import Comparison
from studies.comparison import label
from studies.comparison import run_comparison
from studies.comparison import Standing
from studies.comparison import stored_standing
from studies.comparison import without_model
from studies.errors import AGAIN
from studies.errors import Misuse
from studies.methods import METHODS
from studies.printable import decimals
from studies.rows import Rows
from studies.spec import EMBEDDED
from studies.spec import load_testbed
from studies.spec import Spec
from studies.spec import trial_seconds
from studies.stopping import stop_by_signal
from studies.storage.kinds import check_sharing
from studies.storage.open import closing_storage
from studies.storage.open import open_storage
from studies.storage.open import reading
from studies.storage.open import StorageError
from studies.storage.open import study_names
from studies.study import check_comparable


def default_workers(comparison: Comparison) -> int:
    """Return the number of runs at the same time, if ``--workers`` doesn't say."""
    cores = os.cpu_count() or 1
    if comparison.where.surrogate is None:
        return 1 if has_gpu() else cores
    # Runs then mostly wait for the model, which writes replies together in less time than in turn.
    return max(cores, 4) if any(METHODS[m].uses_llm for m in comparison.methods) else cores


def surrogate_named(embedded: bool, file: Path | None) -> str | None:
    """Return the surrogate that ``--surrogate`` or ``--surrogate-file`` names, if any."""
    if file is None:
        return EMBEDDED if embedded else None
    if not file.is_file():
        raise Misuse(f"--surrogate-file must be a file, but there is no {file}.")
    return str(file.resolve())


def checked(comparison: Comparison, check: bool) -> Comparison:
    """Check that the comparison's options go together, and add the training time of a trial.

    Args:
        comparison: As it was asked for.
        check: Whether the script is looked at, too (`objective.preflight`).

    Raises:
        Misuse: If they don't.
        TestbedError: If the script can't be tuned as it is.
    """
    methods, budget, llm = comparison.methods, comparison.budget, comparison.model.llm
    if wrong := [method for method in methods if method not in METHODS] or not methods:
        raise Misuse(f"--methods must be some of {', '.join(METHODS)}, but got {wrong or None}.")
    code = [method for method in methods if METHODS[method].edits_code]
    if budget.trials is None and budget.seconds is None:
        raise Misuse("A comparison needs --trials or --budget, the share of each run.")
    if budget.charge_llm and budget.seconds is None:
        raise Misuse("--charge-llm charges a --budget, but there is none.")
    if bad := [ratio for ratio in comparison.llm_ratios if not 0 <= ratio <= 1]:
        raise Misuse(f"--llm-ratio must be from 0 to 1, but got {bad[0]:g}.")
    if llm == random_steps.LLM:
        if comparison.models:
            raise Misuse(f"--llm {llm} has no --model to choose.")
        if code:
            raise Misuse(f"--llm {llm} can't write code: leave {code[0]} out.")
        # A variant, beside the runs of a language model.
        comparison = replace(comparison, models=[llm])
    if comparison.where.surrogate is None:
        script = comparison.where.load_script()
        if check:
            say_preflight(preflight(script))
        if comparison.vary_seed:
            script.require_seed()
        seconds = trial_seconds(script, budget.train_seconds, budget.seconds)
        return replace(comparison, budget=replace(budget, train_seconds=seconds))
    refuse_with(
        "a surrogate, whose trials are as those it was made of",
        train_seconds=budget.train_seconds,
        wall_seconds=comparison.limits.wall_seconds,
        memory_limit=comparison.limits.memory_mb,
        vary_seed=comparison.vary_seed,
        testbed=comparison.where.testbed,
        **vars(comparison.where.interface),
        **vars(comparison.where.runtime),
    )
    if code:
        raise Misuse(f"{code[0]} edits the script, which a surrogate can't run: leave it out.")
    return comparison


def run_runs(comparison: Comparison, specs: Sequence[Spec], workers: int) -> Board:
    """Do the runs side by side, showing progress, and return their standings at the end."""
    stop_by_signal()
    labels = {spec.name: label(spec, comparison.name) for spec in specs}
    try:
        with ComparisonProgress(labels, workers) as progress:
            return run_comparison(specs, workers, progress.update)
    except KeyboardInterrupt:
        options.stopped()


def planned(specs: Sequence[Spec]) -> Board:
    """Read the runs' standings without making anything, and refuse what ``run_runs`` would.

    Raises:
        Misuse: As ``run_comparison``.
    """
    board = _stored(specs)
    left = [spec for spec in specs if board[spec.name].state != "done"]
    for name, error in without_model(left).items():
        board[name] = replace(board[name], state="failed", error=error)
    return board


def _stored(specs: Sequence[Spec]) -> Board:
    testbed = load_testbed(specs[0])
    check_sharing(specs[0].where.storage, workers=2)
    board = {
        spec.name: Standing("missing", left=spec.budget.trials_left([]), metric=testbed.metric)
        for spec in specs
    }
    try:
        storage = open_storage(specs[0].where.storage, read_only=True)
    except StorageError:
        return board  # a file that is yet to be made; if it can't be, the run itself says so
    with closing_storage(storage):
        there = set(study_names(storage))
        for spec in specs:
            if spec.name in there:
                with reading(spec.name):
                    study = optuna.load_study(study_name=spec.name, storage=storage)
                    study.get_trials(deepcopy=False)
                metadata = spec.metadata(testbed, study.user_attrs.get(FILES))
                check_comparable(study, spec, testbed, metadata)
                board[spec.name] = stored_standing(study, spec.budget)
    return board


def tell(
    comparison: Comparison,
    specs: Sequence[Spec],
    board: Board,
    planned_workers: int | None,
    as_json: bool,
) -> None:
    """Print how the runs stand and what to do next."""
    seconds = None if planned_workers is None else _planned_seconds(specs, board, planned_workers)
    if as_json:
        runs = [_run_facts(comparison, spec, board[spec.name]) for spec in specs]
        facts: dict[str, Any] = {"comparison": comparison.name, "runs": runs}
        if planned_workers is not None:
            facts |= {"workers": planned_workers, "planned_seconds": seconds}
        print_json(facts)
        return
    console().print(_table(comparison, specs, board))
    if planned_workers is not None:
        left = sum(run.state != "done" for run in board.values())
        took = "" if seconds is None else f": {clock(seconds)} of training, and start-up"
        print(f"{left} of {len(specs)} runs to do, {planned_workers} at a time{took}")
        return
    print("\nto look at it:")
    where = comparison.where
    print(f"  {options.command('status', where.storage)}")
    for command in ("revalidate", "report"):
        print(f"  {options.command(command, where.storage, where.artifacts)}")


def _run_facts(comparison: Comparison, spec: Spec, run: Standing) -> dict[str, Any]:
    return {
        "study": spec.name,
        "method": label(spec, comparison.name),
        "seed": spec.seed,
        "state": run.state,
        "error": run.error or None,
        "evaluated": run.evaluated,
        "ok": run.ok,
        "best": run.best,
        "charged_seconds": run.seconds,
    }


def _table(comparison: Comparison, specs: Sequence[Spec], board: Board) -> Rows:
    """Show one row per method and variant."""
    table = Rows("method", "runs", "trials", "failed", "best: mean", "sd", "of all")
    for method in dict.fromkeys(label(spec, comparison.name) for spec in specs):
        runs = [board[s.name] for s in specs if label(s, comparison.name) == method]
        states = [run.state for run in runs]
        best = [run.best for run in runs if run.best is not None]
        evaluated = sum(run.evaluated for run in runs)
        failed = evaluated - sum(run.ok for run in runs)
        table.add_row(
            method,
            ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
            str(evaluated),
            f"{failed / evaluated:.0%}" if evaluated else "-",
            decimals(statistics.fmean(best)) if best else "-",
            decimals(statistics.stdev(best)) if len(best) > 1 else "-",
            decimals(min(best, key=runs[0].metric.cost)) if best else "-",
        )
    return table


def _planned_seconds(specs: Sequence[Spec], board: Board, workers: int) -> float | None:
    """Return the seconds of training that are left, if it is known how long a trial trains."""
    seconds = []
    for spec in specs:
        trial, left = spec.budget.train_seconds, board[spec.name].left
        if trial is None or left is None:
            return None
        seconds.append(trial * left)
    return max(sum(seconds) / workers, *seconds)  # a run is not shared among workers


def advice(failed: Sequence[str], board: Board, planned: bool) -> str:
    """Write one line that says which runs failed, or would, and why; each reason only once."""
    reasons: dict[str, list[str]] = {}
    for name in failed:
        reasons.setdefault(board[name].error.removesuffix(AGAIN), []).append(name)
    said = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    if planned:
        return f"{len(failed)} of {len(board)} runs would fail ({said})"
    left = sum(run.state not in ("done", "failed") for run in board.values())
    others = f"{left} others were not begun" if left else "The others are not affected"
    return (
        f"{len(failed)} of {len(board)} runs failed ({said}). {others}; mend this and run the same"
        f" command again: {options.this_command()}"
    )
