"""Language models for tests: one that says what it is told to, one that obeys any schema."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import json
import random
import threading
from typing import Any

from samplers._llm.chat import Completion
from samplers._llm.chat import Message


@dataclass(frozen=True)
class Request:
    """The arguments of one ``complete``."""

    messages: list[dict[str, str]]
    schema: Mapping[str, Any] | None
    max_tokens: int
    temperature: float
    seed: int | None

    @property
    def text(self) -> str:
        """All messages' contents, for ``in``."""
        return "\n".join(message["content"] for message in self.messages)


class _RecordingChat:
    """Keeps every request; a subclass says what the reply is. Four characters are a token."""

    model = "scripted"

    def __init__(self, context_tokens: int | None = None) -> None:
        self.context_tokens = context_tokens
        self.requests: list[Request] = []
        self._lock = threading.Lock()

    def count_tokens(self, text: str) -> int:
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

    def _reply(self, request: Request) -> Any:
        raise NotImplementedError


class ScriptedChat(_RecordingChat):
    """Gives the replies in turn.

    Args:
        replies: A reply is a text, something that JSON can hold, a whole ``Completion``, an
            exception to raise, or a function of the ``Request`` that returns one of these. One
            request more than there are replies is an error; ``itertools.cycle`` has no end.
    """

    def __init__(self, replies: Iterable[Any] = (), context_tokens: int | None = None) -> None:
        super().__init__(context_tokens)
        self._replies = iter(replies)

    def _reply(self, request: Request) -> Any:
        try:
            return next(self._replies)
        except StopIteration:
            raise AssertionError(
                f"No reply is left for request {len(self.requests)}:\n{request.text}"
            ) from None


class SchemaChat(_RecordingChat):
    """Answers any JSON schema with random valid values; the same request gets the same reply."""

    model = "schema"

    def __init__(self, seed: int = 0, context_tokens: int | None = None) -> None:
        super().__init__(context_tokens)
        self._seed = seed

    def _reply(self, request: Request) -> Any:
        rng = random.Random(repr((self._seed, request.seed, request.messages)))
        return random_value(request.schema or {"type": "string"}, rng)


def random_value(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """A value that a JSON schema allows (of the keywords that this project's schemas use)."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return random_value(rng.choice(schema[keyword]), rng)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = rng.choice(kind)
    if kind == "object":
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        kept = {name for name in properties if name in required or rng.random() < 0.3}
        if not kept and schema.get("minProperties", 0) > 0:
            kept = {rng.choice(list(properties))}
        return {n: random_value(sub, rng) for n, sub in properties.items() if n in kept}
    if kind == "array":
        if "prefixItems" in schema:
            return [random_value(sub, rng) for sub in schema["prefixItems"]]
        low = schema.get("minItems", 0)
        length = rng.randint(low, schema.get("maxItems", low + 2))
        return [random_value(schema.get("items", {}), rng) for _ in range(length)]
    if kind == "integer":
        low = schema.get("minimum", 0)
        return rng.randint(low, schema.get("maximum", low + 100))
    if kind == "number":
        low = schema.get("minimum", 0.0)
        return rng.uniform(low, schema.get("maximum", low + 1.0))
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return "text"
