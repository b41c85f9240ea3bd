"""Replies that were paid for and not used yet, so that a process that is killed doesn't ask again.

A reply is kept under the hash of its request before anything is made of it, and removed when it is
on a trial. A resumed study makes the same request of the same trials, finds the reply, and goes on
with it, also where the model would now give another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
import hashlib
import io
import json
from typing import Any
from typing import TYPE_CHECKING

from optuna.artifacts.exceptions import ArtifactNotFound

from objective.worker import worker_is_here
from objective.worker import worker_mark
from samplers._llm.chat import Completion


if TYPE_CHECKING:
    from optuna.artifacts import FileSystemArtifactStore

    from samplers._llm.chat import Message


class Drafts:
    """Replies by their requests.

    Args:
        store: Where they are kept.
        study: Name of the study, whose requests are its own.
    """

    def __init__(self, store: FileSystemArtifactStore, study: str) -> None:
        self._store = store
        self._study = study
        self._kept: list[str] = []

    def load(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, seed: int
    ) -> tuple[Completion, str | None] | None:
        """Return the reply to a request, and the script if it was edited in place."""
        name = self._name(messages, schema, seed)
        try:
            with self._store.open_reader(name) as file:
                kept = json.loads(file.read().decode())
            if kept["by"] != worker_mark(0) and worker_is_here(kept["by"]) is not False:
                return None  # its process lives and uses it: two workers may ask the same at once
            reply = Completion(**kept["completion"]), kept["source"]
        except (ArtifactNotFound, OSError, ValueError, TypeError, KeyError):
            return None  # there is none, or it was half written
        self._kept.append(name)
        return reply

    def keep(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        seed: int,
        completion: Completion,
        source: str | None,
    ) -> None:
        """Keep the reply to a request."""
        name = self._name(messages, schema, seed)
        text = json.dumps(
            {"completion": asdict(completion), "source": source, "by": worker_mark(0)}
        )
        self._store.write(name, io.BytesIO(text.encode()))
        self._kept.append(name)

    def drop(self) -> None:
        """Remove what this process kept or found: it is on a trial now."""
        for name in self._kept:
            with suppress(ArtifactNotFound, OSError):
                self._store.remove(name)
        self._kept.clear()

    def _name(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, seed: int
    ) -> str:
        request = json.dumps([self._study, list(map(dict, messages)), schema, seed])
        return f"draft-{hashlib.sha256(request.encode()).hexdigest()}"
