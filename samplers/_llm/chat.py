"""A connection to a language model, whichever server it runs on.

All errors are in one small tree. Whatever ``openai`` or a socket raises is mapped into it in one
place:

    ChatError
    ├── ChatUnavailable    no answer within the deadline: connection, time-out, 429, 5xx
    ├── ChatRejected       the server refuses for good: key, model, request
    ├── ContextTooLong     the prompt does not fit into the model's context
    └── BudgetExhausted    the cap on tokens or cost is reached; nothing was sent

    ChatSettingError(ValueError)   an address, a key or a name that can't be right
    └── NoChatFound    there is no model to ask: neither argument, environment nor wheel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Protocol
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Sequence


Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}


class ChatError(Exception):
    """A request to the language model gave no usable answer.

    Attributes:
        seconds: Time from the call of ``complete`` to its end, retries included.
        attempts: HTTP requests that were sent.
        completion: The server's answer, which is charged for, if it gave one of no use; with the
            tokens of all its answers.
    """

    seconds: float = 0.0
    attempts: int = 0
    completion: Completion | None = None


class ChatUnavailable(ChatError):
    """No answer within the deadline, after retries; the same request may work later."""


class ChatRejected(ChatError):
    """The server refuses for good: a wrong key, an unknown model, an impossible request.

    Attributes:
        status: The HTTP status that it answered with, ``None`` if nothing was sent.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ContextTooLong(ChatError):
    """The prompt does not fit into the model's context.

    Attributes:
        prompt_tokens: Length of the prompt, if the server says it.
        limit: Tokens that the context holds, if the server says it.
    """

    def __init__(
        self, message: str, *, prompt_tokens: int | None = None, limit: int | None = None
    ) -> None:
        super().__init__(message)
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class BudgetExhausted(ChatError):
    """The cap on tokens or cost is reached, so nothing was sent."""


class ChatSettingError(ValueError):
    """An address, a key or a name of a model that can't be right; the message says what to set."""


class NoChatFound(ChatSettingError):
    """No language model to ask; the message names the three ways to give one."""


@dataclass(frozen=True)
class Completion:
    """A model's reply, with the tokens and the time that it took.

    Attributes:
        text: The reply, without reasoning.
        reasoning: The thoughts of a reasoning model, ``""`` if it doesn't tell them.
        model: Name of the model that answered.
        prompt_tokens: Length of the prompt, cached tokens included.
        cached_tokens: Prompt tokens that the server took from its prefix cache; 0 if it doesn't
            tell, as OpenVINO.
        completion_tokens: Tokens that were generated, reasoning included.
        reasoning_tokens: Those of the reasoning, if the server says it; also of one that it hides.
        seconds: Time from the call to its return, retries included.
        attempts: HTTP requests that it took, the successful one included.
        truncated: Whether the reply was cut off at ``max_tokens``.
    """

    text: str
    reasoning: str = ""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0
    attempts: int = 1
    truncated: bool = False

    @property
    def is_starved(self) -> bool:
        """Whether all of it was spent on thinking."""
        return self.truncated and not self.text


class Chat(Protocol):
    """Protocol of a language model. Threads may share an object, and call it at the same time."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def context_tokens(self) -> int | None:
        """Tokens that prompt and reply may have together; ``None`` if not known."""

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text: exactly where the server can tell, else rather too many."""

    def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.7,
        seed: int | None = None,
    ) -> Completion:
        """Ask for a reply.

        Args:
            messages: The conversation so far; each has a ``role`` and a ``content``.
            schema: JSON schema that the reply should follow. A server may ignore it, so check.
            max_tokens: Longest reply, reasoning included.
            temperature: Sampling temperature, 0 for the likeliest reply.
            seed: Makes the reply repeatable where the server supports it.

        Raises:
            ChatError: One of the tree in this module's docstring.
        """
