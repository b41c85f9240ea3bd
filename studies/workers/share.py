"""Shares one study's work among processes, and replaces those that die."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna

from studies.budget import is_evaluated
from studies.code_agent.agent import run_agent
from studies.errors import explain
from studies.errors import Failed
from studies.errors import Misuse
from studies.llm import share_embedded_model
from studies.spec import load_testbed
from studies.storage.open import open_storage
from studies.storage.patient import PATIENCE
from studies.storage.recovery import set_patience
from studies.study import open_study
from studies.study import run_study
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import run_jobs


if TYPE_CHECKING:
    from studies.loop import Watch
    from studies.spec import Spec
    from studies.workers.processes import Tell


# Workers killed and replaced, for each worker, without a trial that was finished in between.
REPLACEMENTS = 3

# `run_jobs`, or what does the same elsewhere.
RunJobs = Callable[
    [Sequence[Job], int, Callable[[Sequence[Event]], None], Callable[[Job], bool]], None
]


def work_on(spec: Spec, watch: Watch = lambda trials: None) -> optuna.Study:
    """Do a study's trials in this process, whatever its method is, until its budget is used up."""
    return (run_agent if spec.row.edits_code else run_study)(spec, watch)


def run_workers(
    spec: Spec,
    workers: int,
    watch: Watch = lambda trials: None,
    say: Callable[[str], None] = lambda line: None,
) -> optuna.Study:
    """Do a study's trials in several processes, each of them calling `work_on`.

    Each has a GPU of its own where there are enough. See `share_work` for the arguments.

    Raises:
        Misuse, Failed: What the first worker that failed said.
    """
    # Who only watches needn't wait for a database that is away: workers do.
    study = open_study(spec, load_testbed(spec), open_storage(spec.where.storage, patience=0))
    if spec.row.uses_llm and spec.editing.command is None:
        spec = replace(spec, model=share_embedded_model(spec.model, workers))
    share_work(study, work_on, spec, workers, watch, say)
    return study


def share_work(
    study: optuna.Study,
    work: Callable[[Spec, Watch], object],
    spec: Spec,
    workers: int,
    watch: Watch,
    say: Callable[[str], None] = lambda line: None,
    run: RunJobs = run_jobs,
) -> None:
    """Call `work(spec, watch)` in several processes and wait for them, watching the study.

    A worker that was killed is replaced, and the next worker that looks for a trial repeats the
    one it was at. Where all of them are killed, a limit ends it: ``REPLACEMENTS`` for each worker
    without a trial that was finished in between.

    Args:
        study: The study to watch.
        work: A function of a module, such as `work_on`.
        spec: Its first argument.
        workers: How many processes.
        watch: Its second argument in each process, and called in this one; see `studies.loop.Watch`.
        say: Is given a line for people when a worker was replaced or the database was away.
        run: What starts the processes: `run_jobs` on this machine.

    Raises:
        Misuse, Failed: What the first worker that failed said.
    """
    failures: list[Event] = []
    replaced = finished = 0
    away = False

    def look(events: Sequence[Event]) -> None:
        nonlocal replaced, finished, away
        for event in events:
            if event.kind == "failed":
                failures.append(event)
            elif event.kind == "replaced":
                say(f"a worker is replaced: {event.what} ({replaced} of {REPLACEMENTS * workers})")
        try:
            trials = study.get_trials(deepcopy=False)
        except optuna.exceptions.StorageInternalError as error:
            if not away:
                say(f"the workers wait for the database: {explain(error)[0]}")
            away = True
            return
        if away:
            say("the database is back")
            away = False
        now = sum(map(is_evaluated, trials))
        if now > finished:
            replaced, finished = 0, now
        watch(trials)

    def replace_worker(job: Job) -> bool:
        nonlocal replaced
        replaced += 1
        return replaced <= REPLACEMENTS * workers

    run([Job("worker", _share, (work, spec))] * workers, workers, look, replace_worker)
    set_patience(study._storage, PATIENCE)  # what came of it is yet to be read
    if failures:
        first = failures[0]
        raise (Misuse if first.status == 2 else Failed)(first.what)


def _share(work_and_spec: tuple[Callable[[Spec, Watch], object], Spec], tell: Tell) -> None:
    work, spec = work_and_spec
    spec = replace(spec, where=replace(spec.where, wait=PATIENCE))
    work(spec, lambda trials: tell(None))
