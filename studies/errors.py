"""Every error that a user can foresee, in one line that says what to do, with its exit status.

1 means that the work failed or was stopped, 2 that the command can't work as it was given.
"""

from __future__ import annotations

import errno
import re
import sys

from samplers._llm.masking import mask_urls
from samplers._llm.masking import passwords


AGAIN = "; run the same command again to go on"  # ends errors that pass


class Misuse(ValueError):
    """The command can't work as it was given."""


class Failed(RuntimeError):
    """The command was right, but its work failed."""


def masked(text: str) -> str:
    """Mask the passwords of addresses, those of this command's arguments in whatever form."""
    arguments = [part for argument in sys.argv for part in (argument, argument.partition("=")[2])]
    return mask_urls(text, *(word for argument in arguments for word in passwords(argument)))


def explain(error: Exception) -> tuple[str, int]:
    """Return one line that explains a foreseeable error, and the exit status.

    Raises:
        Exception: The error itself, if nobody foresaw it: then its traceback is what helps.
    """
    text, status = _explain(error)
    return masked(text), status


def is_full(error: Exception) -> bool:
    """Return whether an error is that a disk is full, here or of a database server."""
    return _is_disk_full(error) or _FULL.search(_cause(error)) is not None


def _is_disk_full(error: Exception) -> bool:
    # By the number: of a quota systems have different words.
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


# Databases, and what trains, say it by words alone.
_FULL = re.compile(
    r"\b(disk|table)\b.* is full|disk I/O error|No space left on device|Dis[ck] quota exceeded"
)


def _explain(error: Exception) -> tuple[str, int]:
    # Not above: every command imports this module, and its --help needs none of them.
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from objective import DataSetError
    from objective import RunError
    from objective import TestbedError
    from samplers import ChatError
    from samplers._llm.chat import BudgetExhausted
    from samplers._llm.chat import ChatSettingError
    from studies.storage.kinds import StorageError

    text = " ".join(str(error).split())
    if isinstance(error, (Misuse, StorageError, TestbedError, DataSetError, ChatSettingError)):
        return text, 2
    if isinstance(error, (Failed, RunError)):
        return text, 1
    if isinstance(error, BudgetExhausted):
        return f"{text} To go on, run the same command with a higher --max-tokens or --max-cost", 1
    if isinstance(error, ChatError):
        return f"the language model: {text.rstrip('.')}{AGAIN}", 1
    if _is_disk_full(error):
        return f"the disk is full ({text}); make room and run the same command again", 1
    if isinstance(error, (StorageInternalError, SQLAlchemyError)):
        return _explain_database(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}", 2
    raise error


def _cause(error: BaseException) -> str:
    """Return what the first of the errors that led to this one says, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def _explain_database(error: Exception) -> tuple[str, int]:
    text = _cause(error)
    for sign, advice in _DATABASE.items():
        if sign in text:
            return f"the database of --storage: {text}; {advice}", 1 if sign in _TRANSIENT else 2
    return f"the database of --storage: {text}", 2


_DATABASE = {
    "database is locked": "another program holds it: close that and run the same command again",
    "database or disk is full": "make room and run the same command again",
    "disk I/O error": "its disk may be full or failing: make room and run the same command again",
    "readonly database": "make it writable or choose another --storage",
    "unable to open database file": "its folder must exist and be writable",
    "disk image is malformed": (
        "it is damaged: restore a backup, or save what can be read by sqlite3 FILE .recover"
    ),
    "file is not a database": "it is some other file: choose another --storage",
}
_TRANSIENT = {"database is locked", "database or disk is full", "disk I/O error"}
