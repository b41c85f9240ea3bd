"""What a server was found to understand of a request, and what to try when it refuses one.

What one request has found out the next one need not. But one refusal may be about one schema, or
about one reply: what is then left out is left out of that request, and of others only after it has
been so several times in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
import re
import threading
import time
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .chat import Completion
    from .chat import Message
    from .failures import Refusal

# Reply formats, the strictest first. OpenAI's "strict" allows few of a schema's keywords.
STRICT, SCHEMA, JSON, TEXT = range(4)

# Refusals of a format in a row, each for one request, after which the server isn't asked for it.
_PROOF = 3

# Room that a model has to think before it replies, and what is tried where that isn't enough.
THINKING_TOKENS = 8192
MOST_THINKING_TOKENS = 2 * THINKING_TOKENS

_ABOUT_FORMAT = re.compile(
    r"response.?(?:format|schema)|json.?(?:schema|object|mode|validat)|structured.?output|guided"
    r"|grammar|\bschema\b|failed to generate json|\bxgrammar|\boutlines\b",
    re.IGNORECASE,
)
# Of those, refusals of the one schema or of the one reply, which say nothing of another.
_OF_THIS_ONE = re.compile(
    r"grammar|invalid.{0,20}schema|schema.{0,60}(?:invalid|complex|not valid|not permitted|error)"
    r"|in context=|failed to|could not|compil|pars(?:e|ing)|validat",
    re.IGNORECASE,
)
_OF_A_KEYWORD = re.compile(
    r"in context=|not permitted|additionalproperties|strict|'required'", re.I
)
_UNSUPPORTED = re.compile(
    r"unsupported|not (?:supported|permitted|allowed)|unknown|unrecognized|cannot find|instead"
    r"|extra.?(?:inputs?|forbidden)|deprecated",
    re.IGNORECASE,
)
_LENGTH = re.compile(
    r"max.?(?:completion.?|output.?|new.?)?tokens|(?:output|completion) tokens", re.I
)
_NO_ROOM_TO_THINK = re.compile(r"higher max_tokens|output limit was reached", re.IGNORECASE)
_NO_SYSTEM = re.compile(
    r"system.{0,12}(?:role|message|instruction|prompt).{0,40}(?:support|allow|enabled|alternate)"
    r"|(?:support|allow|only).{0,40}system.{0,12}role|roles must alternate",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])(?:(?<![\[(])\d{1,3}(?:[,_]\d{3})+|\d{1,9})(?![\w.]*\w)")
_OPTIONAL = ("temperature", "seed")


@dataclass(frozen=True)
class Request:
    """One request to a model, and what came of it in all the forms in which it was sent.

    Attributes:
        messages, schema, max_tokens, temperature, seed: As for ``Chat.complete``.
        deadline: Time of ``time.monotonic()`` at which to give up.
        patient: As for ``OpenAIChat.check``.
        attempts: The times of its HTTP requests.
        completions: The answers; the last one is the reply.
        started: When it was made, by ``time.monotonic()``.
    """

    messages: Sequence[Message]
    schema: Mapping[str, Any] | None
    max_tokens: int
    temperature: float
    seed: int | None
    deadline: float
    patient: bool = True
    attempts: list[float] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def reply(self) -> Completion:
        """Return the reply, with the tokens, the time and the attempts of all."""
        return replace(
            self.completions[-1],
            prompt_tokens=sum(c.prompt_tokens for c in self.completions),
            cached_tokens=sum(c.cached_tokens for c in self.completions),
            completion_tokens=sum(c.completion_tokens for c in self.completions),
            reasoning_tokens=sum(c.reasoning_tokens for c in self.completions),
            seconds=time.monotonic() - self.started,
            attempts=len(self.attempts),
        )


@dataclass(frozen=True)
class Dialect:
    """The parameters that a server was found to understand.

    Attributes:
        format: The strictest reply format that it takes.
        length: Name of the parameter for the longest reply; ``""`` if it takes none.
        longest: The longest reply that it allows, in tokens, if it said so.
        dropped: Parameters that it refuses.
        thinking_tokens: Added to the longest reply, for a model that thinks before.
        folds_system: Whether the system message has to be part of the first one of the user's.
        refused: Requests in a row whose format it refused.
    """

    format: int = STRICT
    length: str = "max_tokens"
    longest: int | None = None
    dropped: frozenset[str] = frozenset()
    thinking_tokens: int = 0
    folds_system: bool = False
    refused: int = 0

    def body(self, request: Request, level: int, max_tokens: int) -> dict[str, Any]:
        """Return the part of a request that servers differ in.

        Args:
            request: What is asked.
            level: Its reply format, if that is less strict than ``format``.
            max_tokens: Longest reply, with the thoughts before it.
        """
        schema = request.schema
        body: dict[str, Any] = {"temperature": request.temperature}
        if self.length:
            body[self.length] = max_tokens
        if request.seed is not None:
            body["seed"] = request.seed
        level = max(level, self.format)
        if schema is not None and level <= SCHEMA:
            strict = level == STRICT and _can_be_strict(schema)
            named = {"name": "reply", "schema": schema, "strict": strict}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif schema is not None and level == JSON:
            body["response_format"] = {"type": "json_object"}
        body = {name: value for name, value in body.items() if name not in self.dropped}
        said = [dict(message) for message in request.messages]
        return {**body, "messages": _folded(said) if self.folds_system else said}

    def after(
        self, refusal: Refusal, body: Mapping[str, Any], level: int
    ) -> tuple[Dialect, int] | None:
        """Return what to try after a refusal, ``None`` if it is about something else.

        Returns:
            The dialect for this request and later ones, and the reply format of this request.
        """
        words = f"{refusal.kind} {refusal.words}"
        if not self.folds_system and _NO_SYSTEM.search(words) and _has_system(body):
            return replace(self, folds_system=True), level
        if refusal.status >= 500:  # of a grammar that can't be compiled, or nobody knows of what
            return self._without_format(TEXT) if "response_format" in body else None
        if refusal.status not in (400, 422, 501):
            return None
        optional = [name for name in _OPTIONAL if name in body]
        if named := refusal.names.intersection(optional):
            return replace(self, dropped=self.dropped | named), level
        if "response_format" in body:
            at_format = any(name.startswith(("response_", "json_")) for name in refusal.names)
            if at_format or _ABOUT_FORMAT.search(words):
                # Other names are keywords of the schema.
                of_this_one = bool(refusal.names and not at_format)
                of_this_one |= bool(_OF_THIS_ONE.search(refusal.words))
                return self._after_format(words, body["response_format"], of_this_one)
        if self.length and (self.length in refusal.names or _LENGTH.search(words)):
            now = self._after_length(words, body[self.length])
            return None if now is None else (now, level)
        if named := frozenset(n for n in optional if re.search(rf"\b{n}\b", words)):
            return replace(self, dropped=self.dropped | named), level
        return None

    def _after_format(
        self, words: str, sent: Mapping[str, Any], of_this_one: bool
    ) -> tuple[Dialect, int]:
        strict = bool(sent.get("json_schema", {}).get("strict"))
        if of_this_one:
            return self._without_format(SCHEMA if strict and _OF_A_KEYWORD.search(words) else TEXT)
        if strict and re.search(r"\bstrict\b", words):
            return replace(self, format=SCHEMA), SCHEMA
        level = JSON if sent["type"] == "json_schema" else TEXT
        return replace(self, format=level), level

    def _without_format(self, level: int) -> tuple[Dialect, int]:
        """Do without for this request; for good after several of them in a row."""
        refused = self.refused + 1
        if refused < _PROOF:
            return replace(self, refused=refused), level
        return replace(self, refused=0, format=max(self.format, level)), level

    def _after_length(self, words: str, asked: int) -> Dialect | None:
        if _NO_ROOM_TO_THINK.search(words):
            return self.with_room_to_think()
        if self.length == "max_tokens" and "max_completion_tokens" in words:
            if _UNSUPPORTED.search(words) or "max_tokens" not in words:
                return replace(self, length="max_completion_tokens")
        numbers = (int(re.sub("[,_]", "", number)) for number in _NUMBER.findall(words))
        caps = [number for number in numbers if 16 <= number < asked]
        if caps:
            return replace(self, longest=max(caps))
        if _UNSUPPORTED.search(words):
            other = "max_completion_tokens" if self.length == "max_tokens" else ""
            return replace(self, length=other)
        return replace(self, longest=max(asked // 2, 16))

    def with_room_to_think(self) -> Dialect | None:
        """Return the dialect with room to think, or with more; ``None`` if it has the most."""
        more = 2 * self.thinking_tokens or THINKING_TOKENS
        return replace(self, thinking_tokens=more) if more <= MOST_THINKING_TOKENS else None

    def understood(self, in_format: bool) -> Dialect:
        """Return the dialect after an answer, to a request with this reply format or without one."""
        return replace(self, refused=0) if in_format and self.refused else self


def may_help(refusal: Refusal, body: Mapping[str, Any], futile: int) -> bool:
    """Whether an error of the server's own may come from the request: its format, its roles.

    llama.cpp, vLLM and gateways answer so to a grammar that they can't compile.

    Args:
        refusal: The error.
        body: The request.
        futile: Answers to it of status 500 so far.
    """
    if "response_format" in body and (futile >= 2 or _ABOUT_FORMAT.search(refusal.words)):
        return True
    return bool(_NO_SYSTEM.search(refusal.words)) and _has_system(body)


def _can_be_strict(schema: Mapping[str, Any]) -> bool:
    """Whether a schema has no optional properties, which "strict" doesn't allow."""
    return bool(schema.get("required") == list(schema.get("properties", ())))


def _has_system(body: Mapping[str, Any]) -> bool:
    return any(message.get("role") == "system" for message in body["messages"])


def _folded(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Put each message of the system's in front of the next one, and join those of one role."""
    folded: list[dict[str, str]] = []
    for message in messages:
        role = "user" if message["role"] == "system" else message["role"]
        if folded and folded[-1]["role"] == role:
            folded[-1]["content"] += f"\n\n{message['content']}"
        else:
            folded.append({**message, "role": role})
    return folded


_known: dict[tuple[str, str], Dialect] = {}  # by address and model
_lock = threading.Lock()


def known_dialect(address: str, model: str) -> Dialect:
    """Return what is known of a model at an address."""
    return _known.get((address, model), Dialect())


def remember(address: str, model: str, before: Dialect, now: Dialect) -> bool:
    """Keep what was found out, unless another thread was faster; return whether it was news."""
    with _lock:
        if now == before or _known.get((address, model), Dialect()) != before:
            return False
        _known[address, model] = now
        return True
