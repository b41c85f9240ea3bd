"""``best``: the best configuration of a study as it was run, beside the baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import Failed
from studies.errors import Misuse


def best(
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="[default: the only one of the storage]"),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the testbed's script, or its configuration file, with the best values, to a new file: the study needs "
            "its own as it was tuned.",
        ),
    ] = None,
    diff: Annotated[
        bool,
        typer.Option("--diff", help="Print only what the best values change in the script."),
    ] = False,
    artifacts: options.Artifacts = None,
    as_json: options.Json = False,
) -> None:
    """Print the best configuration with the values that were really run, beside the baseline.

    Of those that were trained again (run --confirm, revalidate) the best is the one with the best mean
    of those with the smallest share of failed repetitions, else the one with the best value. Of a study that another program made, these are the parameters and
    values of its best trial.
    """
    import optuna

    from studies.best import find_winner
    from studies.best import scripts
    from studies.code_agent.sources import diff as lines_of_diff
    from studies.commands.console import console
    from studies.commands.console import say
    from studies.commands.work import best as work
    from studies.spec import Where
    from studies.storage.open import opened
    from studies.storage.open import reading

    if diff and as_json:
        raise Misuse("--diff must be without --json, but got both.")
    with opened(storage, read_only=True, patience=0) as there:
        name = work.choose(there, storage, study)
        with reading(name):
            chosen = optuna.load_study(study_name=name, storage=there)
        found = find_winner(chosen, there)
    if found is None:
        raise Failed(f"study {name!r} has no successful trial yet")
    where = Where(storage, artifacts)
    if write is not None or diff:
        script, before, after = scripts(found, where)
        same = f"the best is {script} as it is" if before == after else ""
    if write is not None:
        work.write(write, after)
    if diff:
        for line in lines_of_diff(before, after, script=script):
            print(line)
        if same:
            say(f"no changes: {same}", stderr=True)
    elif as_json:
        print_json(found.facts())
    else:
        console().print(work.table_of(found))
        for line in work.lines_of(found, storage, artifacts):
            say(line)
    if write is not None and not as_json and not diff:
        print(f"written: {write}{same and f' ({same})'}")
