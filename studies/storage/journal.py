"""Journals that survive a full disk, a power cut and a line of something else.

A journal is a file of lines, each a change as JSON, and Optuna stops at the first line that it
can't read. Who dies while it writes, or finds the disk full, leaves half a line, to which the next
one adds its own. Here

- a torn end is cut off before the next line is written, and a write that failed leaves none;
- of a torn line with a whole one behind it the whole one is read;
- any other line that is no change, or none that can be made, counts as one that changes nothing, so
  that all processes agree on the numbers of the lines, by which Optuna knows what it has read.

`JournalFile` reads and writes the lines, `BeatingJournal` makes their changes. Plain Optuna reads
such a journal again once :func:`mend` has been over it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from dataclasses import dataclass
import json
import logging
import os
from pathlib import Path
from typing import Any
from typing import IO

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.storages.journal._storage import JournalStorageReplayResult

from studies.stopping import held
from studies.storage.attributes import CheckedKept
from studies.storage.heartbeat import AttributeHeartbeat
from studies.storage.kinds import StorageError


_logger = logging.getLogger(__name__)

_START = b'{"op_code":'  # as Optuna writes a change
_FIRST_LINES, _LONGEST_FIRST_LINE = 10, 2**20
# To set an attribute of a study that isn't there: what Optuna leaves to others to complain of.
_NOTHING: dict[str, Any] = {
    "op_code": 2,
    "worker_id": "",
    "study_id": -1,
    "user_attr": {"": None},
}


class JournalFile(BaseJournalBackend):
    """The file of a journal, which other programs that use Optuna may share.

    Args:
        path: Of the file, which is made if it isn't there.
        read_only: Refuse to write, and make nothing.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        if not read_only:
            path.open("ab").close()
        self._lines, self._offset = 0, 0  # read so far
        self._warned = False

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        if log_number_from < self._lines:
            self._lines, self._offset = 0, 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # torn, or being written
                    return
                self._lines += 1
                self._offset += len(line)
                if self._lines <= log_number_from:
                    continue
                change = _change(line)
                if change is None and not self._warned:
                    self._warned = True
                    _logger.warning(
                        "%s: line %d is no change of a study and is passed over; doctor mends it",
                        self._path,
                        self._lines,
                    )
                yield _NOTHING if change is None else change

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._read_only:
            raise StorageError(f"{self._path} was opened to be read only.")
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        # Without a buffer, which would be written once more when the file is closed.
        with _locked(self._path), self._path.open("r+b", buffering=0) as file:
            _cut(file)
            end = file.tell()
            try:
                while lines:
                    lines = lines[file.write(lines) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise


class BeatingJournal(CheckedKept, AttributeHeartbeat, JournalStorage):
    """A journal with heartbeats, in which a change that can't be made is passed over."""

    _has_passed_over = False

    def _sync_with_backend(self) -> None:
        replayed = self._replay_result
        for change in self._backend.read_logs(replayed.log_number_read):
            try:
                replayed.apply_logs([change])
            except Exception as error:  # whatever Optuna may raise
                if replayed._is_issued_by_this_worker(change):
                    raise
                if not self._has_passed_over:
                    self._has_passed_over = True
                    _logger.warning(
                        "line %d of the journal can't be read (%s) and is passed over; doctor mends"
                        " it",
                        replayed.log_number_read,
                        type(error).__name__,
                    )


def is_journal(path: Path) -> bool:
    """Return whether a file is empty or has, among its first lines, one that Optuna wrote.

    Raises:
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        lines = [file.readline(_LONGEST_FIRST_LINE) for _ in range(_FIRST_LINES)]
    return not lines[0] or any(_change(line) is not None for line in lines)


@dataclass(frozen=True)
class Damage:
    """What is wrong with a journal.

    Attributes:
        torn: Bytes of a last line without an end.
        lines: Numbers of the lines, from 1 on, that Optuna can't read and :func:`mend` can replace.
        short: Numbers of those that are too short to be replaced.
    """

    torn: int
    lines: Sequence[int]
    short: Sequence[int]


def damage(path: Path) -> Damage:
    """Look for what a full disk, a power cut or another program left in a journal."""
    torn = 0
    lines: list[int] = []
    short: list[int] = []
    mended = _mender()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                torn = len(line)
            elif (new := mended(line)) is None:
                short.append(number)
            elif new != line:
                lines.append(number)
    return Damage(torn, lines, short)


def mend(path: Path) -> None:
    """Replace in its place whatever Optuna can't read, so that the lines stay where they are.

    Running processes remember how far they have read.
    """
    with _locked(path), path.open("r+b") as file:
        offset = 0
        mended = _mender()
        for line in file:
            new = mended(line) if line.endswith(b"\n") else None
            if new is not None and new != line:
                os.pwrite(file.fileno(), new, offset)
            offset += len(line)
        _cut(file)


def _mender() -> Callable[[bytes], bytes | None]:
    """Return what gives for each line of a journal, in their order, the one that Optuna can read.

    That has the same length: the line itself, what can be read of it, or a change of nothing. None
    if the line is too short for that.
    """
    replayed = JournalStorageReplayResult("")
    nothing = json.dumps(_NOTHING, separators=(",", ":")).encode() + b"\n"

    def mended(line: bytes) -> bytes | None:
        if (change := _change(line)) is not None:
            with suppress(Exception):  # whatever Optuna may raise of one that can't be made
                replayed.apply_logs([change])
                start = line.rfind(_START) if _parsed(line) is None else 0
                return b" " * start + line[start:]
        return nothing.rjust(len(line)) if len(nothing) <= len(line) else None

    return mended


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = JournalFileSymlinkLock(str(path))  # as Optuna does by default
    with held():  # of a lock that is left behind others must wait until it is old
        lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _cut(file: IO[bytes]) -> None:
    """Cut off a last line without an end, and go to the end."""
    end = file.seek(0, os.SEEK_END)
    start = end
    while start > 0:
        start = max(0, start - 4096)
        file.seek(start)
        found = file.read(min(4096, end - start)).rfind(b"\n")
        if found >= 0:
            start += found + 1
            break
    if start < end:
        _logger.warning(
            "%s: a line of %d bytes without an end was cut off", file.name, end - start
        )
        file.truncate(start)
    file.seek(start)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line as Optuna reads it; None if it is no change."""
    try:
        change = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(change, dict) and {"op_code", "worker_id"} <= change.keys():
        return change if isinstance(change.get("study_name", ""), str) else None
    return None


def _change(line: bytes) -> dict[str, Any] | None:
    """Return a line's change, or the one behind a torn one."""
    change = _parsed(line)
    # JSON has no such text inside of a string, where quotes are escaped.
    start = line.rfind(_START) if change is None else 0
    return _parsed(line[start:]) if start > 0 else change
