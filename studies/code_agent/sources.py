"""Sources of a code study: whole scripts in the artifact store, named by their contents.

A trial carries only the SHA-256 of its script. The script itself is written before the trial is
enqueued, so that whoever claims the trial, after a crash or on another machine, finds it.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
from typing import TYPE_CHECKING

from optuna.artifacts.exceptions import ArtifactNotFound

from studies.code_agent.files import SCRIPT
from studies.code_agent.files import split
from studies.errors import Failed


if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore
    from optuna.trial import FrozenTrial


class SourceLost(Failed):
    """The artifact store has no script with this hash, or another text under its name."""


class Sources:
    """Scripts by their hash.

    Args:
        store: Where they are kept.
        baseline: The unedited script, which is the testbed's and never lost.
    """

    def __init__(self, store: FileSystemArtifactStore, baseline: str) -> None:
        self._store = store
        self._known = {digest(baseline): baseline}
        self.baseline = digest(baseline)

    def save(self, source: str) -> str:
        """Keep a script, and return its hash (64 hex digits)."""
        sha = digest(source)
        self._store.write(_name(sha), io.BytesIO(source.encode()))
        self._known[sha] = source
        return sha

    def load(self, sha: str) -> str:
        """Return the script with this hash.

        Raises:
            SourceLost: If it isn't there, or isn't what was saved.
        """
        if sha not in self._known:
            try:
                with self._store.open_reader(_name(sha)) as file:
                    source = file.read().decode(errors="replace")
            except (ArtifactNotFound, OSError):
                raise SourceLost(_lost(sha, "is not there")) from None
            if digest(source) != sha:
                raise SourceLost(_lost(sha, "is not what was saved"))
            self._known[sha] = source
        return self._known[sha]

    def change(self, trial: FrozenTrial) -> list[str]:
        """Return the lines that a trial removes from and adds to its parent's script, if it has one.

        Raises:
            SourceLost: If one of the scripts is gone.
        """
        attrs = trial.user_attrs
        if "source_sha256" not in attrs or "parent_sha256" not in attrs:
            return []
        return changed_lines(self.load(attrs["parent_sha256"]), self.load(attrs["source_sha256"]))[
            0
        ]


_NO_NEWLINE = "\\ No newline at end of file"


def digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


def diff(old: str, new: str, script: str = SCRIPT) -> list[str]:
    """Return the lines of two scripts' unified diff, for ``patch -p1`` and ``git apply``.

    ``script`` is what the testbed's script is called, which is ``train.py`` in all that is stored.
    """
    before, after = split(old), split(new)
    if before.keys() != after.keys():  # not of one study
        return _diff(old, new, script)
    names = {name: script if name == SCRIPT else name for name in before}
    return [line for n, text in before.items() for line in _diff(text, after[n], names[n])]


def _diff(old: str, new: str, name: str, context: int = 3) -> list[str]:
    # Not splitlines(), which also breaks at form feeds and U+0085.
    before, after = (re.findall(r"[^\n]*\n|[^\n]+$", text) for text in (old, new))
    lines = []
    for line in difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", n=context):
        lines.append(line.removesuffix("\n"))
        if not line.endswith("\n"):
            lines.append(_NO_NEWLINE)
    return lines


def changed_lines(old: str, new: str) -> tuple[list[str], int, int]:
    """Return the lines that a change removes (``-``) and adds (``+``), n added and n removed."""
    lines = _diff(old, new, SCRIPT, context=0)[2:]
    lines = [line for line in lines if not line.startswith(("@@", "\\"))]
    removed = sum(line.startswith("-") for line in lines)
    return lines, len(lines) - removed, removed


def _name(sha: str) -> str:
    return f"source-{sha}"


def _lost(sha: str, what: str) -> str:
    return (
        f"the script {sha[:12]} {what} in the artifact store; restore the folder of the artifacts"
        " (--artifacts), or begin a new study"
    )
