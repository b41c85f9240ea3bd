"""``status``: show the state of each study of a storage."""

from __future__ import annotations

from typing import Annotated

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import masked
from studies.errors import Misuse


def status(
    storage: options.Storage = options.DEFAULT_STORAGE,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show it anew every 2 s until Ctrl-C, with the workers, trials an hour, "
            "abandoned trials and the language model's failures.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show every study of a storage: trials by state, failures by class, best, budget, LLM turns.

    Of comparisons also what is done, failed and missing.
    """
    from studies.code_agent.history import best_of
    from studies.commands.console import console
    from studies.commands.tables import status_lines
    from studies.commands.tables import status_table
    from studies.commands.work import status as work
    from studies.facts import study_facts
    from studies.storage.open import opened
    from studies.storage.open import read_each

    if watch and as_json:
        raise Misuse("--watch must be without --json, but got both.")
    if watch:
        work.watch(storage, options.command("doctor", storage))
        return
    with opened(storage, read_only=True, patience=0) as there:
        facts = read_each(there, lambda study: study_facts(study, best_of), options.complain)
    if as_json:
        print_json(facts)
    elif facts:
        console().print(status_table(facts))
        for line in status_lines(facts):
            print(line)
    else:
        advice = options.command("run", storage, None, "--method", "tpe", "--trials", "20")
        print(f"There is no study in {masked(storage)} yet: {advice}")
