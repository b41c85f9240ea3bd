"""The work of ``revalidate``."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from studies.commands import options
from studies.commands.progress import Bar
from studies.errors import Failed
from studies.printable import decimals
from studies.revalidation import run_repetitions
from studies.revalidation import Work
from studies.rows import Rows
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import run_jobs


def run(share: Sequence[Work], queued: dict[str, int], workers: int) -> dict[str, str]:
    """Run the queued repetitions side by side, and return the errors by the study's name."""
    errors: dict[str, str] = {}
    # A few studies leave no worker idle: several processes take from the same one's queue.
    copies = max(1, workers // max(1, len(share)))
    jobs = [
        Job(work.study, run_repetitions, work)
        for work in share
        for _ in range(min(copies, queued[work.study]))
    ]
    bar = Bar()
    done, total = 0, sum(queued[work.study] for work in share)

    def watch(events: Sequence[Event]) -> None:
        nonlocal done
        for event in events:
            done += event.kind == "said"
            if event.kind == "said":
                bar.say(f"{event.job}: {done} of {total} trainings")
            elif event.kind == "failed":
                errors[event.job] = event.what
        bar.show(done, total, f"trainings {done}/{total}")

    with bar:
        run_jobs(jobs, workers, watch)
    return errors


def failed(errors: Mapping[str, str]) -> Failed:
    """Return an error that says why repetitions failed, by the study's name, and how to go on."""
    said = "; ".join(f"{name}: {why}" for name, why in errors.items())
    return Failed(f"{said}. Mend this and run the same command again: {options.this_command()}")


def table_of(facts: Sequence[dict[str, Any]]) -> Rows:
    """Show one row per repeated trial."""
    table = Rows("study", "trial", "best", "again", "sd", "n", "failed")
    for row in facts:
        table.add_row(
            row["study"],
            str(row["trial"]),
            decimals(row["best"]),
            "-" if row["mean"] is None else decimals(row["mean"]),
            "-" if row["sd"] is None else decimals(row["sd"]),
            str(len(row["values"])),
            str(row["failed"]),
        )
    return table
