"""The folder in which a trial trains: a copy of the testbed, removed when the training ends."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from contextlib import suppress
import errno
import json
import os
from pathlib import Path
import shutil
import stat
import subprocess
import tempfile
from typing import TYPE_CHECKING

from objective.run.script import RunError
from objective.worker import worker_is_here
from objective.worker import worker_mark


if TYPE_CHECKING:
    from objective.testbed.files import Files

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_PREFIX = "autoresearch-"  # of a trial's folder
_MARK = "worker.json"  # in it: `worker_mark` of the process that trains there


@contextmanager
def trial_folder(
    parent: Path | None,
    number: int,
    files: Files,
    texts: Mapping[str, str],
    *,
    sandboxed: bool,
) -> Iterator[tuple[Path, Path]]:
    """Make a trial's folder, and in it one with the testbed's files; both are removed at the end.

    Args:
        parent: Where; None is the system's folder for temporary files.
        number: The trial's.
        files: The testbed's.
        texts: What takes the place of some of them, by their names.
        sandboxed: Whether a sandbox is to show them.

    Yields:
        The trial's folder, and the one of the testbed in it.

    Raises:
        RunError: If it can't be written.
    """
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise RunError(unwritable(parent or tempfile.gettempdir(), error)) from None
    try:
        folder = home / "run" / files.folder
        try:
            (home / _MARK).write_text(json.dumps(worker_mark(number)))
            folder.mkdir(parents=True)
            try:
                files.lay_out(home / "run", sandboxed=sandboxed)
            except OSError as error:
                raise RunError(unwritable(folder, error, copied=True)) from None
            for name, text in texts.items():
                place = (folder / name).parent
                place.mkdir(parents=True, exist_ok=True)
                if not place.resolve().is_relative_to(home.resolve()):  # a link to the original
                    raise RunError(f"{name} must be copied for a trial: add it by --copy.")
                (folder / name).unlink(missing_ok=True)
                (folder / name).write_bytes(text.encode())
        except OSError as error:
            raise RunError(unwritable(folder, error)) from None
        yield home, folder
    finally:
        _remove(home)


def sweep(parent: Path | None) -> None:
    """Remove the folders of trials whose process on this machine was killed."""
    for mark in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*/{_MARK}"):
        try:
            found = mark.lstat()  # others may have put there what blocks whoever reads it
            if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
                continue
            is_left = worker_is_here(json.loads(mark.read_text())) is False
        except (OSError, ValueError, TypeError, RecursionError):  # half written, say
            continue
        if is_left:
            _remove(mark.parent)


def _remove(folder: Path) -> None:
    """Remove a trial's folder, however deep: before Python 3.13, rmtree recurses."""
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        with suppress(OSError):
            subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)


def unwritable(where: object, error: OSError, copied: bool = False) -> str:
    """Say why nothing can be written there, or the testbed's files not copied."""
    if error.errno in _DISK_FULL:
        return f"The disk of {where} is full."
    what = "" if error.filename is None else f"{error.filename}: "
    if copied:
        return f"The testbed's files must be copied to {where}, but {what}{error.strerror}."
    return f"It must be possible to write to {where}, but: {what}{error.strerror}."
