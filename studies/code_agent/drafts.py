"""Replies that were paid for and not used yet, so that a process that is killed doesn't ask again.

A reply is kept under the hash of its request before anything is made of it, and removed when it is
on a trial. A resumed study makes the same request of the same trials, finds the reply, and goes on
with it, also where the model would now give another one. What nobody came back for is removed after
a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
import hashlib
import json
from pathlib import Path
import time
from typing import Any
from typing import TYPE_CHECKING

from objective.worker import worker_is_here
from objective.worker import worker_mark
from samplers._llm.chat import Completion


if TYPE_CHECKING:
    from samplers._llm.chat import Message

    # Messages, schema of the reply, seed.
    Request = tuple[Sequence[Message], "Mapping[str, Any] | None", int]

_KEPT_SECONDS = 24 * 3600.0


class Drafts:
    """Replies by their requests.

    Args:
        folder: Where they are kept: that of the artifacts.
        study: Name of the study, whose requests are its own.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self._folder = folder
        self._study = study
        self._kept: list[Path] = []

    def load(
        self, request: Request, is_idle: bool = False
    ) -> tuple[Completion, str | None] | None:
        """Return the reply to a request, and the script if it was edited in place.

        Args:
            request: The request.
            is_idle: Whether no trial of the study runs: a process that isn't seen from here, as
                none is that ran before a reboot or on another machine, is then taken for gone.
        """
        path = self._path(request)
        try:
            kept = json.loads(path.read_text("utf-8"))
            lives = kept["by"] != worker_mark(0) and worker_is_here(kept["by"])
            if lives or (lives is None and not is_idle):
                return None  # its process uses it: two workers may ask the same at once
            reply = Completion(**kept["completion"]), kept["source"]
        except (OSError, ValueError, TypeError, KeyError):
            return None  # there is none, or it was half written
        self._kept.append(path)
        return reply

    def keep(self, request: Request, completion: Completion, source: str | None) -> None:
        """Keep the reply to a request."""
        path = self._path(request)
        text = json.dumps(
            {"completion": asdict(completion), "source": source, "by": worker_mark(0)}
        )
        path.write_text(text, "utf-8")
        self._kept.append(path)

    def drop(self) -> None:
        """Remove what this process kept or found, which is on a trial now, and what is old."""
        for path in self._folder.glob("draft-*"):
            with suppress(OSError):  # others may remove it, too
                if path in self._kept or path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                    path.unlink()
        self._kept.clear()

    def _path(self, request: Request) -> Path:
        messages, schema, seed = request
        text = json.dumps([self._study, list(map(dict, messages)), schema, seed])
        return self._folder / f"draft-{hashlib.sha256(text.encode()).hexdigest()}"
