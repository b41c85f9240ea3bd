"""A language model for tests: it replies as it is told to and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import json
import threading
from typing import Any

from .chat import Completion
from .chat import Message


@dataclass(frozen=True)
class Request:
    """The arguments of one ``Chat.complete``."""

    messages: list[dict[str, str]]
    schema: Mapping[str, Any] | None
    max_tokens: int
    temperature: float
    seed: int | None

    @property
    def text(self) -> str:
        """The contents of all messages."""
        return "\n".join(message["content"] for message in self.messages)


class ScriptedChat:
    """A ``Chat`` whose replies are given in advance, as those of httpx's ``MockTransport``.

    Example:

        .. code::

            chat = ScriptedChat([{"x": 1.5}, "no JSON", ChatError("the server is away")])
            chat = ScriptedChat(lambda request: {"x": len(request.messages)})

    Args:
        replies: The replies in turn, or a function of each request (``messages``, ``schema``,
            ``max_tokens``, ``temperature``, ``seed``, and ``text``, the messages' contents) that
            returns one. A reply is a text, anything that JSON can hold, a ``Completion``, an
            exception to raise, or a function of the request that returns one of these.
        context_tokens: Tokens that prompt and reply may have together; four characters are one.
        model: Name of the model. Samplers go by the size in it, as in ``"large-70b"``.

    Attributes:
        requests: What was asked, in order.
    """

    def __init__(
        self,
        replies: Iterable[Any] | Callable[[Request], Any] = (),
        *,
        context_tokens: int | None = None,
        model: str = "scripted",
    ) -> None:
        self.model = model
        self.context_tokens = context_tokens
        self.requests: list[Request] = []
        self._reply = replies if callable(replies) else self._next
        self._replies = iter(() if callable(replies) else replies)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def count_tokens(self, text: str) -> int:
        """A token for every four characters."""
        return (len(text) + 3) // 4

    def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.7,
        seed: int | None = None,
    ) -> Completion:
        """The next reply.

        Raises:
            AssertionError: If there is none left.
        """
        request = Request([dict(m) for m in messages], schema, max_tokens, temperature, seed)
        with self._lock:
            self.requests.append(request)
            reply = self._reply(request)
        if callable(reply):
            reply = reply(request)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Completion):
            return reply
        text = reply if isinstance(reply, str) else json.dumps(reply)
        return Completion(
            text,
            model=self.model,
            prompt_tokens=self.count_tokens(request.text),
            completion_tokens=self.count_tokens(text),
            seconds=0.01,
        )

    def _next(self, request: Request) -> Any:
        try:
            return next(self._replies)
        except StopIteration:
            raise AssertionError(
                f"There must be a reply for each request, but none is left for request "
                f"{len(self.requests)}:\n{request.text}"
            ) from None
