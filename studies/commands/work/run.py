"""What ``run`` does when it is called."""

from __future__ import annotations

from collections.abc import Mapping
import json
import shlex
import sys
from typing import Any
from typing import NoReturn

import optuna
from rich.console import Console
import typer

from objective import Testbed
from studies.commands import options
from studies.commands.progress import Progress
from studies.commands.progress import WorkerLog
from studies.commands.tables import dry_run_report
from studies.errors import Misuse
from studies.methods import METHODS
from studies.spec import StudySpec
from studies.storage.kinds import check_sharing
from studies.storage.kinds import kind_of
from studies.storage.open import open_storage
from studies.study import run_study
from studies.workers.cluster import count_workers
from studies.workers.cluster import LOCAL
from studies.workers.cluster import run_cluster
from studies.workers.cluster import SLURM
from studies.workers.share import run_workers


_WAIT_SECONDS = 60.0  # for a database, or its connections, when a worker starts


def stopped() -> NoReturn:
    """End a command that was stopped, and say how to go on."""
    print(f"stopped; to go on:\n  {options.this_command()}", file=sys.stderr)
    raise typer.Exit(1)


def show_dry_run(
    spec: StudySpec,
    wall_seconds: float,
    price_in: float | None,
    price_out: float | None,
    as_json: bool,
) -> None:
    """Print what the study would ask of a language model, and its limits."""
    from studies.commands.dry_run import dry_run

    facts = {**dry_run(spec, price_in, price_out), "wall_seconds": wall_seconds}
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        Console(soft_wrap=True, markup=False).print(dry_run_report(facts))
        print(f"A trial is killed after {wall_seconds:g} s (--wall-seconds).")


def _progress(spec: StudySpec, workers: int) -> Progress:
    metric = Testbed.load(spec.testbed).metric.name
    return Progress(spec.budget, metric, workers=workers, uses_llm=METHODS[spec.method].uses_llm)


def run_here(spec: StudySpec, workers: int) -> optuna.Study:
    """Do the study's trials on this machine."""
    check_sharing(spec.storage, workers=workers)
    with _progress(spec, workers) as progress:
        if workers == 1:
            return run_study(spec, progress.update)
        return run_workers(spec, workers, progress.update, progress.say)


def run_on_cluster(
    spec: StudySpec, cluster: str, job_options: Mapping[str, Any], workers: int | None
) -> optuna.Study:
    """Do the study's trials by the workers of a Dask cluster."""

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    if workers is None:
        workers = 1 if cluster in (LOCAL, SLURM) else count_workers(cluster, say)
    with _progress(spec, workers) as progress:
        return run_cluster(spec, cluster, job_options, workers, progress.update, progress.say)


def work(spec: StudySpec) -> optuna.Study:
    """As one worker among others."""
    kind = kind_of(spec.storage)
    if not kind.processes:
        raise Misuse(
            f"--worker must have a storage that it shares with others, but {kind.name} is seen by"
            " its own process only; choose sqlite:///FILE"
        )
    log = WorkerLog(spec.name, Testbed.load(spec.testbed).metric.name)
    open_storage(spec.storage, wait=_WAIT_SECONDS)  # many may come at once
    study = run_study(spec, log.update)
    log.end(study.get_trials(deepcopy=False))
    return study


def next_command(name: str, spec: StudySpec) -> str:
    """A command to type next, on the same storage and artifacts."""
    command = options.command(name, spec.storage)
    if name == "dashboard" and spec.artifacts is not None:
        command += f" --artifacts {shlex.quote(str(spec.artifacts))}"
    return command
