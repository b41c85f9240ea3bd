"""``doctor``: find and mend what kills, crashes and full disks left in a storage.

The next ``run`` of a study mends most of it anyway. The doctor is for studies that nobody means to
go on with, for trials of other programs, and for those who want to know before they pay for a
training.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from typing import TYPE_CHECKING

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import masked


if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from studies.storage.examine import Finding


def mend(findings: Sequence[Finding]) -> int:
    """Mend what can be, say in a line of each that can't why not, and return how many were."""
    mended = 0
    for finding in findings:
        if finding.mend is None:
            continue
        try:
            finding.mend()
        except (ValueError, TypeError, LookupError) as error:
            options.complain(f"{finding.what}, and can't be mended: {error}")
        else:
            mended += 1
    return mended


def doctor(
    storage: options.Storage = options.DEFAULT_STORAGE,
    artifacts: options.Artifacts = None,
    yes: Annotated[bool, typer.Option("--yes", help="Mend without asking.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the findings as JSON; mends only together with --yes."),
    ] = False,
) -> None:
    """Find what faults left in a storage and its artifacts, and mend it after asking.

    Running trials that nobody runs, interrupted ones that nobody queued again, results that were
    never told, artifacts without a trial, trials whose artifact is missing, and lines of a journal
    that Optuna can't read.
    """
    from studies.commands.console import say
    from studies.spec import Where
    from studies.storage.examine import examine
    from studies.storage.examine import examine_journal
    from studies.storage.kinds import journal_path
    from studies.storage.open import opened
    from studies.storage.recovery import alone

    where = Where(storage, artifacts)
    journal = journal_path(storage)

    def look(there: BaseStorage, say: Callable[[str], None]) -> list[Finding]:
        of_file = [] if journal is None else examine_journal(Path(journal))
        return of_file + examine(there, where.folder, say)

    with opened(storage, read_only=True) as there:
        unreadable: list[str] = []
        findings = look(there, unreadable.append)
    for line in unreadable:
        options.complain(line)
    mendable = sum(finding.mend is not None for finding in findings)
    if as_json:
        print_json([finding.facts() for finding in findings])
    else:
        for finding in findings:
            say(f"{finding.kind}: {finding.what}")
            say(f"  {finding.remedy}")
        if not findings and not unreadable:
            say(f"Nothing is wrong with {masked(storage)} and {where.folder}.")
        if mendable and not yes:
            yes = typer.confirm(f"Mend {mendable} of {len(findings)} findings?")
    if mendable and yes:
        lock = where.lock_file if Path(where.lock_file).parent.is_dir() else None
        with alone(lock), opened(storage, must_exist=True) as there:
            mended = mend(look(there, lambda line: None))
        if not as_json:
            print(f"Mended {mended} of {len(findings)} findings.")
