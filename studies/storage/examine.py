"""Finds what kills, crashes and full disks left in a storage and its artifacts, and mends it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from pathlib import Path
import time
from typing import Any
import uuid

import optuna
from optuna.artifacts import get_all_artifact_meta
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from objective.results import Results
from objective.worker import worker_is_here
from studies.storage.journal import damage
from studies.storage.journal import mend
from studies.storage.open import read_each
from studies.storage.recovery import abandoned
from studies.storage.recovery import fail
from studies.storage.recovery import requeue
from studies.storage.recovery import SILENCE
from studies.storage.recovery import unclaimed
from studies.storage.recovery import unqueued


# An artifact's card is written before its file, and by several workers: what is new is in the making.
_NEW_SECONDS = 600.0


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: ``torn-journal``, ``unreadable-lines``, ``abandoned-trial``, ``unclaimed-trial``,
            ``unqueued-trial``, ``untold-result``, ``missing-artifact`` or ``orphaned-artifacts``.
        what: One line.
        remedy: What would be done; or, if ``mend`` is ``None``, what to do oneself.
        mend: Does it.
    """

    kind: str
    what: str
    remedy: str
    mend: Callable[[], object] | None = field(default=None, compare=False)

    def facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "what": self.what,
            "remedy": self.remedy,
            "mendable": self.mend is not None,
        }


def examine(storage: BaseStorage, folder: Path, say: Callable[[str], None]) -> list[Finding]:
    """Find what is wrong with a storage's studies and its folder of artifacts.

    ``say`` is given a line for each study that can't be read. What its artifacts are isn't known
    then, so that no file is taken for an orphan.
    """
    owned: set[str] = set()
    unreadable: list[str] = []

    def look(study: optuna.Study) -> list[Finding]:
        return [
            *_trials(study),
            *_results(study, Results(folder / "results")),
            *_missing(study, folder, owned),
        ]

    findings = [each for found in read_each(storage, look, unreadable.append) for each in found]
    for line in unreadable:
        say(line)
    return findings if unreadable else findings + _orphans(folder, owned)


def examine_journal(path: Path) -> list[Finding]:
    """Find what is wrong with the file of a journal."""
    found = damage(path)
    findings = []
    mend_it = partial(mend, path)
    if found.torn:
        findings.append(
            Finding(
                "torn-journal",
                f"{path} ends with {found.torn} bytes of a line that was never finished",
                "cut them off",
                mend_it,
            )
        )
    if found.lines:
        findings.append(
            Finding(
                "unreadable-lines",
                f"{path} has {_count(found.lines)} that Optuna can't read",
                "keep what can be read of them, and blank the rest",
                mend_it,
            )
        )
    if found.short:
        findings.append(
            Finding(
                "unreadable-lines",
                f"{path} has {_count(found.short)} that Optuna can't read, too short to be blanked",
                "stop all workers and delete them in an editor",
            )
        )
    return findings


def _count(lines: Sequence[int]) -> str:
    some = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
    return f"{len(lines)} lines ({some})" if len(lines) > 1 else f"a line ({some})"


def _trials(study: optuna.Study) -> list[Finding]:
    gone = abandoned(study)
    running = [
        Finding(
            "abandoned-trial",
            f"study {study.study_name}, trial {number} is running, but {how}",
            "fail it and queue its parameters again",
            partial(_give_up, study, number),
        )
        for number, how in gone.items()
    ]
    running += [
        Finding(
            "unclaimed-trial",
            f"study {study.study_name}, trial {number} has been running for"
            f" {str(age).partition('.')[0]} in a program that tells of no heartbeat: whether it"
            " still runs can't be known",
            f"leave it if it does; {SILENCE} after its start it is taken for abandoned, and doctor"
            " can mend it",
        )
        for number, age in unclaimed(study).items()
        if number not in gone
    ]
    return running + [
        Finding(
            "unqueued-trial",
            f"study {study.study_name}, trial {trial.number} was interrupted and is lost",
            "queue its parameters again",
            lambda: requeue(study, study.get_trials(deepcopy=False)),
        )
        for trial in unqueued(study.get_trials(deepcopy=False))
    ]


def _give_up(study: optuna.Study, number: int) -> None:
    if number in abandoned(study):  # not if it was told, or its worker came back, while we asked
        fail(study, study.get_trials(deepcopy=False)[number])


def _results(study: optuna.Study, results: Results) -> list[Finding]:
    """Find untold results. Telling them is left to ``run``: it takes the study's own sampler."""
    return [
        Finding(
            "untold-result",
            f"study {study.study_name}, trial {result.trial} came to {result.value}, which the"
            " storage doesn't have",
            "run the study's command again: it tells this first, without a training",
        )
        for result in results.of(study.study_name)
        if worker_is_here(result.worker) is not True  # else it is about to
    ]


def _missing(study: optuna.Study, folder: Path, owned: set[str]) -> list[Finding]:
    """Find the study's artifacts that are not in the folder, and add all of them to ``owned``."""
    findings = []
    of_study = get_all_artifact_meta(study)
    owned.update(meta.artifact_id for meta in of_study)
    for trial in study.get_trials(deepcopy=False):
        metas = get_all_artifact_meta(trial, storage=study._storage)
        owned.update(meta.artifact_id for meta in metas)
        lost = [meta.filename for meta in metas if not (folder / meta.artifact_id).is_file()]
        if lost and trial.state != TrialState.RUNNING:
            findings.append(
                Finding(
                    "missing-artifact",
                    f"study {study.study_name}, trial {trial.number} has lost {', '.join(lost)}",
                    "its value is not affected; restore the file from a backup, or train the"
                    " parameters again",
                )
            )
    return findings


def _orphans(folder: Path, owned: set[str]) -> list[Finding]:
    """Find files of no trial, if they are named as Optuna names artifacts and aren't new."""
    if not folder.is_dir():
        return []
    old = time.time() - _NEW_SECONDS
    files = [
        path
        for path in folder.iterdir()
        if _is_uuid(path.name) and path.name not in owned and path.stat().st_mtime < old
    ]
    if not files:
        return []
    size = sum(path.stat().st_size for path in files)
    return [
        Finding(
            "orphaned-artifacts",
            f"{folder} holds {len(files)} files ({size / 1e6:.1f} MB) of no trial in this storage",
            "delete them; not if the folder serves another storage too",
            lambda: _delete(files),
        )
    ]


def _delete(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
