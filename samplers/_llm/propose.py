"""Ask a language model for a configuration, check it, and ask once more if it will not do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .chat import Chat
    from .chat import Message
    from .history import Rule
    from .prompt import Extent
    from .record import Exchange


@dataclass(frozen=True)
class Proposal:
    """What came of asking.

    Attributes:
        params: A value for every parameter; ``None`` if the caller has to use its own.
        source: ``"llm"``, ``"llm-error"`` or ``"llm-duplicate"``, for ``record``.
        reason: The error, the trial that was repeated, or what was repaired; ``""`` if nothing.
        exchanges: Every request of this turn, for ``record``.
    """

    params: dict[str, Any] | None
    source: str
    reason: str
    exchanges: tuple[Exchange, ...]


def propose(
    study: Study,
    trial: FrozenTrial,
    space: Mapping[str, BaseDistribution],
    *,
    chat: Chat,
    build: Callable[[Extent], Sequence[Message]],
    base: Mapping[str, Any],
    form: Literal["full", "changes"] = "full",
    rule: Rule | None = None,
    max_prompt_tokens: int = 2600,
    max_reply_tokens: int | None = None,
    temperature: float = 0.7,
    seed: int | None = None,
    on_error: Literal["base", "raise"] = "base",
) -> Proposal:
    """One LLM turn; the caller records the outcome with ``record``.

    Args:
        study: The study.
        trial: The running trial that the proposal is for.
        space: The search space that is asked for.
        chat: The language model.
        build: Makes the request's messages; called with ever smaller extents until they fit.
        base: A value for every parameter, used where the reply has none. With
            ``form="changes"`` it is the configuration that the model was told to change.
        form: Whether a whole configuration or some changes to ``base`` are asked for.
        rule: The objective's own rule, for telling duplicates.
        max_prompt_tokens: Longest prompt, in the model's tokens.
        max_reply_tokens: Longest reply; by default made from the size of the space.
        temperature: Of the first request; the re-ask is hotter.
        seed: Of the trial, not of the study; the re-ask uses another.
        on_error: On a ``ChatError``, or a second useless reply, ``"base"`` returns a proposal
            without parameters, ``"raise"`` raises. The fifth LLM turn of the study in a row that
            ends this way raises in either case; it is counted in the storage, whichever process
            they ran in. What is raised has the proposal to be recorded as ``proposal``.

    Raises:
        ChatError: See ``on_error``.
        PromptTooLong: If even the search space does not fit.
    """
    raise NotImplementedError
