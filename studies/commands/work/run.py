"""The work of ``run`` and ``agent``."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
import sys
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError

from objective.preflight import Preflight
from objective.preflight import preflight
from objective.preflight import short_run
from objective.run.script import RunError
from objective.testbed.metric import Metric
from objective.testbed.testbed import Testbed
from objective.testbed.testbed import TestbedError
from samplers import ChatError
from studies import random_steps
from studies.best import find_winner
from studies.budget import Budget
from studies.budget import FINAL_REPEATS
from studies.budget import TRIALS_A_REPETITION
from studies.code_agent.agent import isolation
from studies.commands import options
from studies.commands.as_json import print_json
from studies.commands.console import console
from studies.commands.console import say
from studies.commands.progress import Bar
from studies.commands.progress import clock
from studies.commands.progress import Progress
from studies.commands.progress import WorkerLog
from studies.commands.tables import dry_run_report
from studies.commands.tables import final_table
from studies.commands.work.best import lines_of
from studies.commands.work.revalidate import failed
from studies.commands.work.revalidate import run as repeat
from studies.comparison import stored_standing
from studies.errors import explain
from studies.errors import Failed
from studies.errors import Misuse
from studies.facts import trial_facts
from studies.llm import checked_llm
from studies.played import check_first_prompt
from studies.repetitions import repetitions
from studies.revalidation import finalists
from studies.revalidation import queue_repetitions
from studies.revalidation import run_repetitions
from studies.revalidation import Work
from studies.spec import Spec
from studies.storage.kinds import check_sharing
from studies.storage.kinds import kind_of
from studies.storage.open import closing_storage
from studies.storage.open import open_storage
from studies.storage.open import opened
from studies.storage.open import reading
from studies.storage.open import StorageError
from studies.storage.open import study_names
from studies.workers.cluster import count_workers
from studies.workers.cluster import LOCAL
from studies.workers.cluster import run_cluster
from studies.workers.cluster import SLURM
from studies.workers.cluster import spans_machines
from studies.workers.cluster import within_reach
from studies.workers.share import run_workers
from studies.workers.share import work_on


# The limits of a budget, and how they leave out repetitions.
_LIMITS = {
    "trials": f"one for every {TRIALS_A_REPETITION} trials",
    "seconds": "--budget",
    "until": "--until",
    "wall": "--wall-time",
}


def confirm(spec: Spec, study: optuna.Study, workers: int) -> None:
    """Train the best configurations again, as far as the budget of the study allows.

    Raises:
        Failed: If they can't be.
    """
    budget, where = spec.budget, spec.where
    if not budget.confirm or spec.row.edits_code or not kind_of(where.storage).processes:
        return
    trials = study.get_trials(deepcopy=False)
    best = finalists(trials, Metric.of(study), budget.confirm, study.user_attrs)
    end = budget.deadline(trials)
    # An earlier command may have left more waiting than fit in, and some take longer than expected.
    start_until = None if end is None else end - budget.expected_span(best)
    work, storage = Work(where, study.study_name, start_until), open_storage(where.storage)
    repeated = repetitions(storage, study)
    again = [repeated[t.number] for t in best if t.number in repeated]
    # `revalidate` may have trained some of them more often.
    done = sum(min(FINAL_REPEATS, r.trainings) for r in again)

    def fit(limits: Budget) -> int:
        return limits.repetitions(trials, best, workers, done)

    limit, queued = fit(budget), 0
    if limit:
        queued = queue_repetitions(work, storage, FINAL_REPEATS, budget.confirm, limit)
    if end is not None:
        queued = min(queued, limit)
    if queued:
        say(
            "the best configurations are trained again, with other seeds:"
            f" {queued} training{'s' if queued > 1 else ''}",
            stderr=True,
        )
    # A trial or two are a try, for which nobody expects repetitions.
    left = len(best) * FINAL_REPEATS - done - queued
    if left > 0 and len(trials) >= TRIALS_A_REPETITION:
        # Those that alone leave no room for more: others may be given, but don't bind.
        binding = []
        for field, name in _LIMITS.items():
            others: dict[str, Any] = dict.fromkeys(_LIMITS.keys() - {field})
            if fit(replace(budget, **others)) <= limit:
                binding.append(name)
        say(_left_out(spec, left, len(best), binding), stderr=True)
    if not queued:
        return
    if workers > 1:
        if errors := repeat([work], {study.study_name: queued}, workers):
            raise failed(errors)
        return
    done = 0
    with Bar() as bar:

        def tell(what: object) -> None:
            nonlocal done
            done += 1
            bar.show(done, queued, f"trainings {done}/{queued}")

        bar.show(0, queued, f"trainings 0/{queued}")
        try:
            run_repetitions(work, tell)
        except Exception as error:
            raise failed({study.study_name: explain(error)[0]}) from error


def _left_out(spec: Spec, count: int, best: int, limits: Sequence[str]) -> str:
    """Say which limits leave out so many trainings of the best, and which command makes them."""
    where = spec.where
    words = ("--study", spec.name, "--best", str(best), "--repeats", str(FINAL_REPEATS))
    return (
        f"{count} more training{'s' if count > 1 else ''} of the best configurations would exceed"
        f" the limit ({', '.join(limits)}); to make them all the same:"
        f" {options.command('revalidate', where.storage, where.artifacts, *words)}"
    )


def say_result(spec: Spec, study: optuna.Study, facts: Mapping[str, Any]) -> None:
    """Print what a finished run came to, how sure its best trial is, and the commands to type next."""
    winner = find_winner(study, study._storage)
    if winner is not None:
        facts = {**facts, "best": trial_facts(winner.trial, winner.metric.name)}
    console().print(final_table(facts))
    where = spec.where
    for line in [] if winner is None else lines_of(winner, where.storage, where.artifacts):
        say(line)
    # What gets its values by a command has no script of its own for them.
    is_script = winner is None or "command" not in winner.trial.user_attrs
    write = " (--write FILE makes a script of it)" if is_script else ""
    print()
    say(f"to see the best again{write}, and to look at it all:")
    print(f"  {options.command('best', where.storage, where.artifacts, '--study', spec.name)}")
    print(f"  {options.command('status', where.storage)}")
    print(f"  {options.command('dashboard', where.storage, where.artifacts)}")


def winner_facts(study: optuna.Study) -> dict[str, Any] | None:
    """Return what ``best --json`` says of a study; ``None`` if nothing has succeeded."""
    winner = find_winner(study, study._storage)
    return None if winner is None else winner.facts()


_WAIT_SECONDS = 60.0  # for a database, or its connections, when a worker starts


def say_isolation(spec: Spec) -> None:
    """Say on stderr how code that a model writes is isolated, if the method is the code agent.

    Raises:
        Misuse: If it can't be, or there is no model that could write it.
    """
    if not spec.row.edits_code:
        return
    if spec.model.llm == random_steps.LLM:
        raise Misuse(
            f"--llm must be a language model here, for {spec.model.llm} can't write code."
        )
    if spec.editing.unsafe:
        text = "isolation: none. What the model writes can do all that you can."
    else:
        sandbox = isolation(spec.where.load_script())
        text = f"isolation: {sandbox.name} (no network, no files but its own, limits)"
    print(text, file=sys.stderr)


def check_script(spec: Spec, script: Testbed) -> None:
    """Say on stderr what is known of a script before its first trial.

    Raises:
        TestbedError: If it can't be tuned as it is.
    """
    found = preflight(script)
    # A study that goes on has shown that its metric is there.
    if not found.problems and not spec.row.edits_code and _is_new(spec):
        run = short_run(script, spec.budget.train_seconds, spec.limits.memory_mb)
        found.problems += run.problems
        found.notes += run.notes
    say_preflight(found)


def say_preflight(found: Preflight) -> None:
    """Say on stderr what was found of a script.

    Raises:
        TestbedError: If it can't be tuned as it is.
    """
    for note in found.notes:
        say(note, stderr=True)
    if found.problems:
        said = " ".join(found.problems)
        raise TestbedError(f"{said} (--no-check begins all the same.)")


def _is_new(spec: Spec) -> bool:
    try:
        storage = open_storage(spec.where.storage, read_only=True)
    except StorageError:
        return True
    with closing_storage(storage), reading(spec.name):
        if spec.name not in study_names(storage):
            return True
        study = optuna.load_study(study_name=spec.name, storage=storage)
        return not study.get_trials(deepcopy=False)


def show_dry_run(spec: Spec, wall_seconds: float, as_json: bool) -> None:
    """Print what the study would ask of a language model, and its limits.

    Raises:
        TestbedError: After that, if the script can't be tuned as it is.
    """
    from studies.commands.dry_run import dry_run

    found = preflight(spec.where.load_script())
    checked = {"notes": found.notes, "problems": found.problems}
    budget = spec.budget.metadata()
    facts = {**dry_run(spec), **budget, "wall_seconds": wall_seconds, "checks": checked}
    if as_json:
        print_json(facts)
    else:
        console(soft_wrap=True).print(dry_run_report(facts))
        print(f"The study ends {_end(spec.budget)}.")
        print(f"A trial is killed after {wall_seconds:g} s (--wall-seconds).")
        for note in found.notes:
            print(note)
    if found.problems:
        raise TestbedError.of(found.problems)


def _end(budget: Budget) -> str:
    """Say what ends a study, and what follows."""
    limits = [] if budget.trials is None else [f"after {budget.trials} trials"]
    if budget.seconds is not None:
        left = budget.trials_left([])
        fit = "" if left is None or left == budget.trials else f" (about {left} trials)"
        limits.append(f"after {clock(budget.seconds)} of training{fit}")
    if budget.until is not None:
        limits.append(f"at {datetime.fromtimestamp(budget.until):%H:%M on %d %B}")
    if budget.wall is not None:
        limits.append(f"{clock(budget.wall)} after the start of its first trial")
    first = ", whichever comes first" if len(limits) > 1 else ""
    then = f"; then up to {budget.confirm} of the best are trained again" if budget.confirm else ""
    return f"{', '.join(limits)}{first}{then}"


def _check_model(spec: Spec) -> None:
    """Raise what keeps the language model from answering, if the study has anything to ask it.

    Of a study that begins, say how long its first prompt is.
    """
    if not spec.row.uses_llm or spec.editing.command is not None:
        return
    with suppress(StorageError, KeyError):  # where there is no study yet
        storage = open_storage(spec.where.storage, must_exist=True, patience=0)
        study = optuna.load_study(study_name=spec.name, storage=storage)
        if stored_standing(study, spec.budget).state == "done":
            return
    chat = checked_llm(spec.model)
    if _is_new(spec) and (said := check_first_prompt(spec, chat)):
        say(said, stderr=True)


# A study, and the error that ended it after its new successes, which are to be shown first.
Outcome = tuple[optuna.Study, Exception | None]


def _watched(spec: Spec, workers: int, work: Callable[[Progress], optuna.Study]) -> Outcome:
    script = spec.where.load_script()
    with Progress(spec, script.metric, script.delivery.place, workers) as progress:
        try:
            return work(progress), None
        except (ChatError, Failed, RunError) as error:  # the result comes first: it took a night
            with suppress(StorageError, StorageInternalError, KeyError):
                storage = open_storage(spec.where.storage, must_exist=True)
                study = optuna.load_study(study_name=spec.name, storage=storage)
                if progress.has_gained(study.get_trials(deepcopy=False)):
                    return study, error
            raise


def run_here(spec: Spec, workers: int) -> Outcome:
    """Do the study's trials on this machine."""
    check_sharing(spec.where.storage, workers=workers)
    _check_model(spec)
    if workers == 1:
        return _watched(spec, 1, lambda bar: work_on(spec, bar.update))
    return _watched(spec, workers, lambda bar: run_workers(spec, workers, bar.update, bar.say))


def run_on_cluster(
    spec: Spec, cluster: str, job_options: Mapping[str, Any], workers: int | None
) -> Outcome:
    """Do the study's trials by the workers of a Dask cluster."""
    tell = partial(say, stderr=True)
    if workers is None:
        workers = 1 if cluster in (LOCAL, SLURM) else count_workers(cluster, tell)
    if spans_machines(cluster):  # what they can't reach is refused before it is asked
        within_reach(spec, True, workers)
    _check_model(spec)
    return _watched(
        spec,
        workers,
        lambda bar: run_cluster(spec, cluster, job_options, workers, bar.update, bar.say),
    )


def be_worker(spec: Spec) -> optuna.Study:
    """Do trials of the study as one worker among others, until its budget is used up."""
    kind = kind_of(spec.where.storage)
    if not kind.processes:
        raise Misuse(
            f"--worker must have a storage that it shares with others, but {kind.name} is seen by"
            " its own process only; choose sqlite:///FILE"
        )
    _check_model(spec)
    log = WorkerLog(spec, spec.where.load_script().metric)
    with opened(spec.where.storage, wait=_WAIT_SECONDS):  # many may come at once
        pass
    study = work_on(spec, log.update)
    log.end(study.get_trials(deepcopy=False))
    return study
