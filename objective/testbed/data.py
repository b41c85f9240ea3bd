"""Where a testbed's data lies: what a training in a sandbox may see of it, and what it may not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import subprocess
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence


@dataclass(frozen=True)
class Data:
    """Files of a testbed that ``python prepare.py`` prepared, as its last lines name them.

    A testbed whose ``prepare.py`` defines ``evaluate_program`` is evaluated by a process of its own
    (``objective/run/launch.py``), and prints where its data is::

        shown: /folder/with/training/data
        held out: /file/with/validation/data
        hidden: /source/of/both

    Each may be missing.

    Attributes:
        shown: For the training, which finds its name in AUTORESEARCH_PREPARED.
        held_out: For the evaluation alone, which gets it open.
        hidden: Never shown to a training.
    """

    shown: Path | None = None
    held_out: Path | None = None
    hidden: Path | None = None


class PrepareFailed(RuntimeError):
    """``prepare.py`` ended with an error; the message is its last line."""


def prepare_data(testbed: Path, python: Sequence[str], environment: Mapping[str, str]) -> Data:
    """Run a testbed's ``prepare.py``, which makes what isn't there yet.

    Args:
        testbed: Its folder.
        python: Command that starts Python.
        environment: All variables that it gets.

    Raises:
        PrepareFailed: It did not end well.
    """
    if not (testbed / "prepare.py").exists():
        return Data()
    done = subprocess.run(
        [*python, "prepare.py"],
        cwd=testbed,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",  # which scripts print in, whatever the locale
        errors="replace",
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise PrepareFailed(said[-1])
    named = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": /" in line)
    names = ("shown", "held out", "hidden")
    return Data(*(Path(named[name]) if name in named else None for name in names))


def is_evaluated_apart(testbed: Path) -> bool:
    """Return whether the testbed's evaluation has a process of its own."""
    try:
        return "\ndef evaluate_program(" in (testbed / "prepare.py").read_text(errors="replace")
    except OSError:
        return False
