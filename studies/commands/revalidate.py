"""``revalidate``: train each study's best configuration again, with fresh training seeds.

The best of many noisy trials is in part the luckiest. Its value when it is trained again is not:
the repetitions of study NAME are a study NAME-revalidated, whose user attribute ``revalidates`` is
NAME and which has no method, so that nothing takes it for a run. Each of its trials has the
parameters (of a code study: the script) of the best trial and a ``train_seed`` of its own, the same
seeds for every study, none of which was a trial's before.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
from pathlib import Path
from typing import Annotated
from typing import Any

import optuna
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
import typer

from studies.commands import options
from studies.commands.progress import Bar
from studies.errors import Failed
from studies.errors import Misuse
from studies.revalidation import queue_repetitions
from studies.revalidation import repetition_facts
from studies.revalidation import run_repetitions
from studies.revalidation import SUFFIX
from studies.revalidation import Work
from studies.stopping import stop_by_signal
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import run_jobs


def revalidate(
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Trainings of each best configuration in total.")
    ] = 3,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trainings at the same time. [default: the cores; 1 if they use a GPU]",
        ),
    ] = None,
    artifacts: options.Artifacts = None,
    as_json: options.Json = False,
) -> None:
    """Train the best configuration of each study again, with fresh seeds.

    Training time, limits and testbed are those that the study recorded; code that a model wrote
    is run in the sandbox. The same command again trains only what is missing.
    """
    opened = open_storage(storage, must_exist=True)
    names = study or [n for n in optuna.get_all_study_names(opened) if not n.endswith(SUFFIX)]
    open_artifacts(storage, artifacts)
    skipped: dict[str, str] = {}
    queued: dict[str, int] = {}
    for name in names:
        work = Work(storage, name, artifacts)
        try:
            queued[name] = queue_repetitions(work, opened, repeats)
        except Misuse as error:
            if study:
                raise
            skipped[name] = str(error)
    if workers is None:
        workers = 1 if Path("/dev/nvidiactl").exists() else os.cpu_count() or 1
    errors = _run([Work(storage, n, artifacts) for n, k in queued.items() if k], queued, workers)
    facts = [{**repetition_facts(opened, name), "error": errors.get(name)} for name in queued]
    if as_json:
        print(json.dumps({"studies": facts, "skipped": skipped}, indent=2))
    else:
        Console(markup=False).print(_table(facts))
        for name, why in skipped.items():
            print(f"left out: {why}")
    if errors:
        said = "; ".join(f"{name}: {why}" for name, why in errors.items())
        raise Failed(f"{said}. Mend this and run the same command again: {options.this_command()}")


def _run(share: Sequence[Work], queued: dict[str, int], workers: int) -> dict[str, str]:
    """Run what is queued, side by side; why it failed by the study's name."""
    stop_by_signal()
    errors: dict[str, str] = {}
    # A few studies leave no worker idle: several processes take from the same one's queue.
    copies = max(1, workers // max(1, len(share)))
    jobs = [
        Job(work.study, run_repetitions, work)
        for work in share
        for _ in range(min(copies, queued[work.study]))
    ]
    with Bar() as bar:
        done, total = 0, sum(queued[work.study] for work in share)

        def watch(events: Sequence[Event]) -> None:
            nonlocal done
            for event in events:
                done += event.kind == "said"
                if event.kind == "said":
                    bar.console.print(f"{event.job}: {done} of {total} trainings")
                elif event.kind == "failed":
                    errors[event.job] = event.what
            bar.show(done, total, f"trainings {done}/{total}")

        try:
            run_jobs(jobs, workers, watch)
        except KeyboardInterrupt:
            bar.console.print(f"stopped; to go on:\n  {options.this_command()}")
            raise typer.Exit(1) from None
    return errors


def _table(facts: Sequence[dict[str, Any]]) -> Table:
    """One row per study."""
    table = Table("study", "trial", "best", "again", "sd", "n", "failed", box=SIMPLE_HEAD)
    for row in facts:
        table.add_row(
            row["study"],
            str(row["trial"]),
            f"{row['best']:.4f}",
            "-" if row["mean"] is None else f"{row['mean']:.4f}",
            "-" if row["sd"] is None else f"{row['sd']:.4f}",
            str(len(row["values"])),
            str(row["failed"]),
        )
    return table
