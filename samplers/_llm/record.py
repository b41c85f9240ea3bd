"""What an LLM sampler writes about a trial: who decided it, what that took, what was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.artifacts import FileSystemArtifactStore
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .chat import Completion
    from .chat import Message

    ArtifactStore = FileSystemArtifactStore  # any of Optuna's stores

# Who decided a trial's parameters: the values of the user attribute ``source``.
STARTUP = "startup"
BASE = "base"
LLM = "llm"
LLM_ERROR = "llm-error"
LLM_DUPLICATE = "llm-duplicate"
ENQUEUED = "enqueued"


@dataclass(frozen=True)
class Exchange:
    """One request and what came back: a completion, or the error that there was none."""

    messages: Sequence[Message]
    completion: Completion | None
    error: str = ""


def record(
    study: Study,
    trial: FrozenTrial,
    *,
    source: str,
    reason: str = "",
    exchanges: Sequence[Exchange] = (),
    artifact_store: ArtifactStore | None = None,
) -> None:
    """Write a trial's ``source`` and, of its LLM requests, the sums, the model and the texts.

    Args:
        study: The study.
        trial: The running trial.
        source: One of the constants of this module.
        reason: Why the source is what it is, or what had to be repaired; cut at 200 characters.
        exchanges: The trial's LLM requests in order.
        artifact_store: Where prompts and replies go, one Markdown file a trial; ``None``: nowhere.
            A store that fails is warned of once and loses no trial.
    """
    raise NotImplementedError


def announce(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Let other workers know a running trial's values before they are suggested."""
    raise NotImplementedError


def announced(trial: FrozenTrial) -> dict[str, Any]:
    """The values that another worker announced for its running trial, ``{}`` if none."""
    raise NotImplementedError
