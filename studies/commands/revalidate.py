"""``revalidate``: train each study's best configuration again, with fresh training seeds.

The best of many noisy trials is in part the luckiest. Its value when it is trained again, by
`studies.revalidation`, is not: the seeds are the same for every study, and none was a trial's before.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import Misuse
from studies.stopping import stop_by_signal


def revalidate(
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Trainings of each configuration in total."),
    ] = 3,
    best: Annotated[
        int,
        typer.Option(metavar="K", min=1, help="How many of a study's best configurations."),
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Trainings at the same time. [default: the cores; 1 if they use a GPU]",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="A variable that the study's trainings had by --env and that isn't stored, because it "
            "may be a key. Can be repeated. [default: its value here]",
        ),
    ] = None,
    artifacts: options.Artifacts = None,
    as_json: options.Json = False,
) -> None:
    """Train the best configurations of each study again, with fresh seeds.

    The finalists that `run` trained again at its end are trained as often, since `best` is found among
    them. Training time, limits, testbed and its surroundings are those that the study recorded; code
    that a model wrote is run in the sandbox. The same command again trains only what is missing.
    """
    from objective.run.launch import has_gpu
    from objective.testbed.runtime import Runtime
    from studies.commands.console import console
    from studies.commands.work.revalidate import failed
    from studies.commands.work.revalidate import run
    from studies.commands.work.revalidate import table_of
    from studies.repetitions import SUFFIX
    from studies.revalidation import queue_repetitions
    from studies.revalidation import repetition_facts
    from studies.revalidation import Work
    from studies.spec import Where
    from studies.storage.open import opened
    from studies.storage.open import StorageError
    from studies.storage.open import study_names

    with opened(storage, must_exist=True) as there:
        names = study or [n for n in study_names(there) if not n.endswith(SUFFIX)]
        where = Where(storage, artifacts, runtime=Runtime(env=tuple(env or ())))
        where.open_artifacts()
        skipped: dict[str, str] = {}
        queued: dict[str, int] = {}
        for name in names:
            work = Work(where, name)
            try:
                queued[name] = queue_repetitions(work, there, repeats, best, earlier=True)
            except (Misuse, StorageError) as error:
                if study:
                    raise
                skipped[name] = str(error)
        if workers is None:
            workers = 1 if has_gpu() else os.cpu_count() or 1
        stop_by_signal()
        try:
            errors = run([Work(where, n) for n, k in queued.items() if k], queued, workers)
        except KeyboardInterrupt:
            options.stopped()
        facts = [
            {**repeated, "error": errors.get(name)}
            for name in queued
            for repeated in repetition_facts(there, name)
        ]
    if as_json:
        print_json({"studies": facts, "skipped": skipped})
    else:
        if facts:
            console().print(table_of(facts))
        for name, why in skipped.items():
            print(f"left out: {why}")
    if errors:
        raise failed(errors)
