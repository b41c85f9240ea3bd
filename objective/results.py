"""Results of trainings on their way into the storage, so that none is lost on it.

A training may take hours, and the moment at which it ends may be the one at which the database is
away or the worker dies. So its result is written to a small file before anything else is done with
it, and the file is removed when the storage has it. A file that is left over, by this process or
another one, is told to the storage later (`studies.storage.recovery.tell_kept`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import optuna

from objective.worker import worker_mark


@dataclass(frozen=True)
class Result:
    """The result of one training, as the storage is to have it.

    Attributes:
        study: Name of the study.
        trial: Number of the trial.
        worker: `objective.worker.worker_mark` of the process that trained. Together with the
            start of that process it says which trial of that number, should the database have
            been made anew.
        params: The trial's parameters.
        attributes: User attributes that describe the training.
        value: The trial's value; ``None`` if it is to be marked as failed.
        constraint: See `objective.failure.violation`.
    """

    study: str
    trial: int
    worker: list[Any]
    params: dict[str, Any]
    attributes: dict[str, Any]
    value: float | None
    constraint: float | None = None


class Results:
    """A folder of results that the storage may not have yet.

    Args:
        folder: Made when it is needed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def keep(
        self,
        trial: optuna.Trial,
        attributes: Mapping[str, Any],
        value: float | None,
        constraint: float | None = None,
    ) -> None:
        """Write a result. A disk that is full only means that the storage must be there."""
        result = Result(
            trial.study.study_name,
            trial.number,
            worker_mark(trial.number),
            trial.params,
            dict(attributes),
            value,
            constraint,
        )
        path = self._path(result.study, result.trial)
        beside = path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with beside.open("w") as file:
                json.dump(asdict(result), file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)

    def drop(self, study: str, trial: int) -> None:
        """Remove a result that the storage has, or has no use for."""
        self._path(study, trial).unlink(missing_ok=True)

    def of(self, study: str) -> list[Result]:
        """Return the kept results of a study."""
        found = []
        for path in sorted(self.folder.glob(f"{_key(study)}-*.json")):
            try:
                result = Result(**json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):  # dropped just now, or not ours
                continue
            if result.study == study:
                found.append(result)
        return found

    def _path(self, study: str, trial: int) -> Path:
        return self.folder / f"{_key(study)}-{trial}.json"


def _key(study: str) -> str:
    return hashlib.sha256(study.encode()).hexdigest()[:16]  # names may be anything
