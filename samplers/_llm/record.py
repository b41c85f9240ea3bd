"""The record that an LLM sampler writes of a trial: its source, the tokens and the transcript."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import tempfile
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import upload_artifact

from .._trials.internals import set_user_attr
from .._trials.internals import storage_of
from .masking import printable


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.internals import ArtifactStore
    from .chat import ChatError
    from .chat import Completion
    from .chat import Message

_logger = optuna.logging.get_logger(f"optuna.{__name__}")

# Who decided a trial's parameters: the values of the user attribute ``source``.
STARTUP = "startup"
BASE = "base"
LLM = "llm"
LLM_ERROR = "llm-error"
LLM_DUPLICATE = "llm-duplicate"
LLM_SCREENED = "llm-screened"
ENQUEUED = "enqueued"
SOURCES = (STARTUP, BASE, LLM, LLM_ERROR, LLM_DUPLICATE, LLM_SCREENED, ENQUEUED)

# Those of the attribute ``proposer``, in words for a language model.
_PROPOSERS = {"steps": "steps", "cma-es": "CMA-ES", "random": "random", "llm": "you"}

# The dashboard ships attributes with every poll, so texts stay short; prompts are artifacts.
_MAX_TEXT = 200


@dataclass(frozen=True)
class Exchange:
    """One request and its reply or error.

    Attributes:
        messages: The request.
        completion: The reply, if there was one.
        failure: The error because of which there was none.
        problem: The fault of the reply, in the words that the model was told it in; ``""`` if none.
    """

    messages: Sequence[Message]
    completion: Completion | None
    failure: ChatError | None = None
    problem: str = ""

    @property
    def charged(self) -> Completion | None:
        """The answer that is charged for, of use or not."""
        return self.completion if self.failure is None else self.failure.completion

    @property
    def error(self) -> str:
        """The failure or the problem as text, ``""`` if there was neither."""
        return self.problem if self.failure is None else str(self.failure)


def source_of(trial: FrozenTrial) -> str:
    """Return a trial's ``source``; ``""`` if it has none or an objective's own of that name."""
    source = trial.user_attrs.get("source")
    return source if isinstance(source, str) and source in SOURCES else ""


def is_answered(trial: FrozenTrial) -> bool:
    """Whether a trial comes of an answer of the model, whether it was of use or not."""
    source = source_of(trial)
    if source == LLM_ERROR:  # an answer of no use, unlike an outage, tells the model's name
        return "llm_model" in trial.user_attrs
    return source in (LLM, LLM_DUPLICATE, LLM_SCREENED)


def proposer_of(trial: FrozenTrial) -> str:
    """Return who proposed a trial in a word or two, as a language model is told; ``""``: unknown."""
    source, proposer = source_of(trial), trial.user_attrs.get("proposer")
    if source == ENQUEUED:
        return "given"
    if source == LLM:
        return "you"
    if isinstance(proposer, str) and proposer in _PROPOSERS:
        return _PROPOSERS[proposer]
    return {STARTUP: "random", BASE: "base method"}.get(source, "")


def record(
    study: Study,
    trial: FrozenTrial,
    *,
    source: str,
    proposer: str = "",
    chosen_by: str = "",
    reason: str = "",
    exchanges: Sequence[Exchange] = (),
    artifact_store: ArtifactStore | None = None,
) -> None:
    """Write a trial's ``source`` and, of its LLM requests, the sums, the model and the texts.

    Args:
        study: The study.
        trial: The running trial.
        source: One of the constants of this module.
        proposer: Proposer of the configuration that is run; ``""`` where there is only one.
        chosen_by: Whoever chose it among the proposals.
        reason: Reason for the source, or the repairs of the reply; cut at 200 characters.
        exchanges: The trial's LLM requests in order.
        artifact_store: Store for prompts and replies, one Markdown file a trial; ``None``: nowhere.
            If it fails, a warning is logged and the trial goes on.
    """
    attributes: dict[str, Any] = {"source": source}
    if proposer:
        attributes |= {"proposer": proposer, "chosen_by": chosen_by}
    for key, value in {**attributes, **request_attributes(exchanges, reason)}.items():
        set_user_attr(study, trial, key, value)
    if exchanges and artifact_store is not None:
        upload_transcript(study, trial, exchanges, artifact_store)


def request_attributes(exchanges: Sequence[Exchange], reason: str = "") -> dict[str, Any]:
    """Return what the user attributes of a trial say of its LLM requests: sums, model, reason."""
    attributes: dict[str, Any] = {}
    completions = [e.completion for e in exchanges if e.completion is not None]
    charged = [e.charged for e in exchanges if e.charged is not None]
    ends = [e.completion or e.failure for e in exchanges]
    if exchanges:
        attributes |= {
            "llm_prompt_tokens": sum(c.prompt_tokens for c in charged),
            "llm_cached_tokens": sum(c.cached_tokens for c in charged),
            "llm_completion_tokens": sum(c.completion_tokens for c in charged),
            "llm_seconds": round(sum(end.seconds for end in ends if end is not None), 3),
            "llm_attempts": sum(end.attempts for end in ends if end is not None),
        }
    if completions:
        attributes["llm_model"] = one_line(completions[-1].model)
    if reason:
        attributes["llm_reason"] = one_line(reason)
    return attributes


def one_line(text: str) -> str:
    """Put a text into one line of at most 200 characters."""
    text = " ".join(printable(text).split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def upload_transcript(
    study: Study, trial: FrozenTrial, exchanges: Sequence[Exchange], store: ArtifactStore
) -> None:
    """Keep prompts and replies in one Markdown file; a failure is logged and costs no trial."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"llm-{trial.number:05d}.md"
            path.write_text(printable(_transcript(exchanges)), encoding="utf-8")
            upload_artifact(
                artifact_store=store,
                file_path=str(path),
                study_or_trial=trial,
                storage=storage_of(study),
                mimetype="text/markdown",
            )
    # A store is somebody else's code on somebody else's disk or network; a transcript is not
    # worth a trial, whatever it raises.
    except Exception as error:
        _logger.warning(
            f"The artifact store did not take the prompt and reply of trial {trial.number}; the "
            f"trial goes on without them. {type(error).__name__}: {one_line(str(error))}"
        )


def _transcript(exchanges: Sequence[Exchange]) -> str:
    """Write the conversation as Markdown, without what a request repeats of the one before."""
    parts: list[str] = []
    said: list[Message] = []
    for number, exchange in enumerate(exchanges, 1):
        messages = list(exchange.messages)
        new = messages[len(said) :] if messages[: len(said)] == said else messages
        parts.append(f"# Request {number}")
        parts += [f"## {message['role']}\n\n{message['content']}" for message in new]
        said = messages
        completion = exchange.completion
        if completion is None:
            parts.append(f"## error\n\n{exchange.error}")
            continue
        if completion.reasoning:
            parts.append(f"## reasoning\n\n{completion.reasoning}")
        parts.append(f"## reply\n\n{completion.text}")
        parts.append(
            f"{completion.model}: {completion.prompt_tokens} prompt tokens, "
            + (f"{completion.cached_tokens} of them cached, " if completion.cached_tokens else "")
            + f"{completion.completion_tokens} reply tokens, {completion.seconds:.2f} s, "
            f"{completion.attempts} attempts"
            + (", cut off" if completion.truncated else "")
            + (f". {exchange.error}" if exchange.error else ".")
        )
    return "\n\n".join(parts) + "\n"
