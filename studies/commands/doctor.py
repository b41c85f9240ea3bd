"""``doctor``: find and mend what kills, crashes and full disks left in a storage.

The next ``run`` of a study mends most of it anyway. The doctor is for studies that nobody means to
go on with, for trials of other programs, and for those who want to know before they pay for a
training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from studies.commands import options


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
    from studies.spec import Where
    from studies.storage.examine import examine
    from studies.storage.examine import examine_journal
    from studies.storage.kinds import journal_path
    from studies.storage.open import open_storage
    from studies.storage.recovery import alone

    opened = open_storage(storage, must_exist=True)
    where = Where(storage, artifacts)
    journal = journal_path(storage)
    findings = [] if journal is None else examine_journal(Path(journal))
    findings += examine(opened, where.folder)
    mendable = [finding for finding in findings if finding.mend is not None]
    if as_json:
        print(json.dumps([finding.facts() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.kind}: {finding.what}\n  {finding.remedy}")
        if not findings:
            print(f"Nothing is wrong with {storage} and {where.folder}.")
        if mendable and not yes:
            yes = typer.confirm(f"Mend {len(mendable)} of {len(findings)} findings?")
    if mendable and yes:
        with alone(where.lock_file if Path(where.lock_file).parent.is_dir() else None):
            for finding in mendable:
                assert finding.mend is not None
                finding.mend()
        if not as_json:
            print(f"Mended {len(mendable)} of {len(findings)} findings.")
