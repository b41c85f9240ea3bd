"""A chat model behind any server that speaks OpenAI's protocol, as such servers really answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from datetime import timezone
from email.utils import parsedate_to_datetime
import ipaddress
import math
import os
from pathlib import Path
import random
import re
import threading
import time
from typing import Any
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import optuna

from .chat import ChatError
from .chat import ChatRejected
from .chat import ChatUnavailable
from .chat import Completion
from .chat import ContextTooLong
from .tokens import estimate_tokens


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    import openai

    from .chat import Message

_logger = optuna.logging.get_logger(f"optuna.{__name__}")


OPENAI_URL = "https://api.openai.com/v1"

# Reply formats, the strictest first; a server that refuses one is asked for the next.
_FORMATS = ("json_schema", "json_object", "text")


@dataclass(frozen=True)
class _Dialect:
    """The parameters that a server was found to understand.

    Attributes:
        format: Index into ``_FORMATS``.
        length: Name of the parameter for the longest reply.
        dropped: Parameters that it refuses.
        thinking_tokens: Added to the longest reply, for a model that thinks before.
    """

    format: int = 0
    length: str = "max_tokens"
    dropped: frozenset[str] = frozenset()
    thinking_tokens: int = 0

    def body(
        self,
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int | None,
    ) -> dict[str, Any]:
        """Return the part of a request that servers differ in."""
        body: dict[str, Any] = {self.length: max_tokens, "temperature": temperature}
        if seed is not None:
            body["seed"] = seed
        kind = _FORMATS[self.format]
        if schema is not None and kind == "json_schema":
            # OpenAI's strict mode takes no schema with optional properties.
            strict = schema.get("required") == list(schema.get("properties", ()))
            named = {"name": "reply", "schema": schema, "strict": strict}
            body["response_format"] = {"type": kind, "json_schema": named}
        elif schema is not None and kind == "json_object":
            body["response_format"] = {"type": kind}
        return {name: value for name, value in body.items() if name not in self.dropped}

    def without(self, error: ChatRejected, body: Mapping[str, Any]) -> _Dialect | None:
        """Return what to try after a refusal, ``None`` if that is about something else."""
        if error.status not in (400, 422):
            return None
        text = str(error).lower()
        if "response_format" in body and re.search(r"response.?format|schema|json|gramma", text):
            return replace(self, format=self.format + 1)
        if self.length == "max_tokens" and "max_tokens" in text:
            return replace(self, length="max_completion_tokens")
        for name in ("temperature", "seed"):
            if name in body and name in text:
                return replace(self, dropped=self.dropped | {name})
        return None


# By address and model: what one chat has found out, the next one need not.
_dialects: dict[tuple[str, str], _Dialect] = {}
_dialects_lock = threading.Lock()

_THINKING_TOKENS = 8192
_LEAST_THINKING_TOKENS = 1024  # in a context that doesn't hold more
_FIRST_PAUSE = 0.5  # seconds
_LONGEST_PAUSE = 30.0  # seconds
_CONNECT_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 60.0  # a server that was away


class OpenAIChat:
    """A model behind an OpenAI-compatible address.

    The key is never part of a ``repr``, a log, an error or a pickle; an unpickled chat reads it
    from the environment.

    ``openai``'s own retries are off: they know a time-out for each attempt but none for all of
    them together, so that a turn could take many times what it was given.

    Args:
        model: Name of the model; by default the only one that the server lists.
        base_url: Address, usually ending in ``/v1``; or a function that returns it, asked before
            every request, for a server that is started when it is needed.
        api_key: By default the environment variable ``key_variable``. A server of one's own may
            need none.
        key_variable: Where the key is if it is not given.
        timeout: Seconds for one ``complete``, retries and pauses included.
        max_retries: Retries of one request at most, within ``timeout``; with 0 none is made. Those
            that a server answers by 429, "too many requests", aren't counted: they last as long as
            ``timeout``.
        context_tokens: Tokens of the model's context; by default what the server says, if it
            does.
        extra: Further fields of the request's body, for example ``{"cache_prompt": False}``,
            without which llama.cpp's replies for a seed depend on what it has cached.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | Callable[[], str] = OPENAI_URL,
        api_key: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 600.0,
        max_retries: int = 5,
        context_tokens: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(base_url, str):
            base_url = _checked_url(base_url)
        self._base_url = base_url
        self._model = model
        self._api_key = api_key
        self._key_variable = key_variable
        self._timeout = timeout
        self._max_retries = max_retries
        self._context_tokens = context_tokens
        self._extra = dict(extra or {})
        self._set_up()

    def _set_up(self) -> None:
        """Create the attributes that are not pickled."""
        self._lock = threading.RLock()
        # By process, since connections must not be shared after a fork, and by address.
        self._clients: dict[tuple[int, str], openai.OpenAI] = {}
        # When to ask the server for its context and for a count, by ``time.monotonic()``.
        self._context_from = 0.0
        self._tokenizer_from = 0.0
        self._token_counts: dict[str, int] = {}
        self._jitter = random.Random()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_clients"], state["_token_counts"], state["_jitter"]
        return {**state, "_api_key": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_up()
        self.__dict__.update(state)

    def __repr__(self) -> str:
        where = self._base_url if isinstance(self._base_url, str) else "started when needed"
        return f"{type(self).__name__}({self._model!r}, base_url={where!r})"

    @property
    def model(self) -> str:
        """Name of the model."""
        with self._lock:
            if self._model is None:
                listed = self._call("GET", "models", self._deadline())
                names = [str(entry.get("id", "")) for entry in _records(listed, "data")]
                if len(names) != 1:
                    raise ChatRejected(
                        "A model must be named, since the server does not list exactly one but "
                        f"{', '.join(names[:8]) or 'none'}{', ...' if len(names) > 8 else ''}."
                    )
                self._model = names[0]
            return self._model

    @property
    def context_tokens(self) -> int | None:
        """Tokens that prompt and reply may have together; ``None`` if not known."""
        with self._lock:
            if self._context_tokens is None and time.monotonic() >= self._context_from:
                self._context_from = math.inf
                try:
                    self._context_tokens = self._ask_context()
                except ChatUnavailable:
                    self._context_from = time.monotonic() + _ASK_AGAIN_SECONDS
                except ChatError:
                    pass
            return self._context_tokens

    def _ask_context(self) -> int | None:
        """Ask llama.cpp for it among its properties, vLLM in its list of models.

        Raises:
            ChatError: If the server is away, or refuses both.
        """
        address, deadline = self._address(), self._deadline(_CONNECT_SECONDS)
        if not _is_own(address):
            return None
        with suppress(ChatError):  # if it is not llama.cpp
            properties = self._call("GET", f"{_root(address)}/props", deadline, max_retries=0)
            settings = properties.get("default_generation_settings")
            if isinstance(settings, dict) and isinstance(settings.get("n_ctx"), int):
                return int(settings["n_ctx"])
        listed = self._call("GET", "models", deadline, max_retries=0)
        for entry in _records(listed, "data"):
            length = entry.get("max_model_len")
            if entry.get("id") == self.model and isinstance(length, int):
                return length
        return None

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, by the server's tokenizer or else by ``estimate_tokens``.

        llama.cpp and vLLM offer theirs beside the OpenAI-compatible address.
        """
        with self._lock:
            if text in self._token_counts:
                return self._token_counts[text]
            if time.monotonic() < self._tokenizer_from:
                return estimate_tokens(text)
        count, ask_again = None, math.inf
        try:
            count = self._ask_count(text)
        except ChatUnavailable:
            ask_again = time.monotonic() + _ASK_AGAIN_SECONDS
        except ChatError:
            pass
        with self._lock:
            if count is None:
                self._tokenizer_from = ask_again
                return estimate_tokens(text)
            if len(self._token_counts) >= 512:
                self._token_counts.clear()
            self._token_counts[text] = count
        return count

    def _ask_count(self, text: str) -> int | None:
        address = self._address()
        if not _is_own(address):
            return None
        # llama.cpp reads "content" and vLLM "model" and "prompt".
        body = {"content": text, "prompt": text, "model": self._model or ""}
        url = f"{_root(address)}/tokenize"
        answer = self._call("POST", url, self._deadline(_CONNECT_SECONDS), body, max_retries=0)
        tokens = answer.get("tokens")
        count = len(tokens) if isinstance(tokens, list) else answer.get("count")
        return count if isinstance(count, int) else None

    def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 1024,
        temperature: float = 0.7,
        seed: int | None = None,
    ) -> Completion:
        """See ``Chat.complete``.

        A server that refuses the schema is asked for JSON and then for text, so the messages have
        to say what the reply should look like.
        """
        started = time.monotonic()
        attempts: list[float] = []
        try:
            completion = self._converse(messages, schema, max_tokens, temperature, seed, attempts)
        except ChatError as error:
            error.seconds, error.attempts = time.monotonic() - started, len(attempts)
            raise
        seconds = time.monotonic() - started
        return replace(completion, seconds=seconds, attempts=len(attempts))

    def _converse(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int | None,
        attempts: list[float],
    ) -> Completion:
        """Ask until the server takes the request's parameters, and let a model think to its end."""
        deadline = self._deadline()
        completions: list[Completion] = []
        most_thinking = _THINKING_TOKENS
        refused: ContextTooLong | None = None
        while True:
            key = (self._address(), self.model)
            dialect = _dialects.get(key, _Dialect())
            thinking = min(dialect.thinking_tokens, most_thinking)
            room = max_tokens + thinking
            body = dialect.body(schema, room, temperature, seed)
            body |= {"model": self.model, "messages": [dict(m) for m in messages], **self._extra}
            try:
                completions.append(self._ask(body, room, deadline, attempts))
            except ContextTooLong as error:
                if thinking <= _LEAST_THINKING_TOKENS:
                    raise
                # Beside this prompt. If it is too little for the model, the prompt is too long.
                refused, most_thinking = error, thinking // 2
                continue
            except ChatRejected as error:
                other = dialect.without(error, body)
                if other is None:
                    raise
                next_dialect = other
            else:
                last = completions[-1]
                thought = last.reasoning or last.reasoning_tokens
                if last.text or not last.truncated or not thought:
                    break
                if refused is not None:
                    raise refused
                if thinking:
                    break
                next_dialect = replace(dialect, thinking_tokens=_THINKING_TOKENS)
            with _dialects_lock:
                if _dialects.get(key, _Dialect()) == dialect:  # no other thread was faster
                    _dialects[key] = next_dialect
                    _logger.info(f"{self.model} at {key[0]} is from now on asked {next_dialect}.")
        return replace(
            last,
            prompt_tokens=sum(c.prompt_tokens for c in completions),
            cached_tokens=sum(c.cached_tokens for c in completions),
            completion_tokens=sum(c.completion_tokens for c in completions),
            reasoning_tokens=sum(c.reasoning_tokens for c in completions),
        )

    def _ask(
        self, body: Mapping[str, Any], max_tokens: int, deadline: float, attempts: list[float]
    ) -> Completion:
        """Send a request whose reply has at most ``max_tokens``, as its ``body`` says."""
        return self._read(self._call("POST", "chat/completions", deadline, body, attempts))

    def _read(self, answer: Mapping[str, Any]) -> Completion:
        choice = (_records(answer, "choices") or [{}])[0]
        message = choice.get("message") or {}
        text, reasoning = _split_reasoning(message)
        usage = answer.get("usage") or {}
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        completion_tokens = int(usage.get("completion_tokens") or 0)
        cached_tokens = int(
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens")  # OpenAI and most
            or usage.get("prompt_cache_hit_tokens")  # DeepSeek
            or (answer.get("timings") or {}).get("cache_n")  # older llama.cpp
            or 0
        )
        details = usage.get("completion_tokens_details") or {}
        return Completion(
            text,
            reasoning,
            # llama.cpp gives a path where it was not told a name.
            model=Path(str(answer.get("model") or self.model)).name,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=completion_tokens,
            reasoning_tokens=int(details.get("reasoning_tokens") or 0),
            truncated=choice.get("finish_reason") == "length",
        )

    def _address(self) -> str:
        return self._base_url if isinstance(self._base_url, str) else self._base_url()

    def _deadline(self, seconds: float | None = None) -> float:
        return time.monotonic() + min(self._timeout, seconds or self._timeout)

    def _key(self) -> str | None:
        return self._api_key or os.environ.get(self._key_variable) or None

    def _client(self, address: str) -> openai.OpenAI:
        import openai

        with self._lock:
            client = self._clients.get((os.getpid(), address))
            if client is None:
                client = openai.OpenAI(
                    api_key=self._key() or "none",
                    base_url=address,
                    max_retries=0,
                    # A proxy of the environment's can't reach this machine's own loopback.
                    http_client=openai.DefaultHttpxClient(trust_env=not is_loopback(address)),
                )
                self._clients[os.getpid(), address] = client
            return client

    def _call(
        self,
        method: str,
        path: str,
        deadline: float,
        body: Mapping[str, Any] | None = None,
        attempts: list[float] | None = None,
        *,
        max_retries: int | None = None,
    ) -> dict[str, Any]:
        """Send one HTTP request, with retries, and return the JSON object of the answer.

        Nothing else sends, and whatever ``openai`` raises is mapped to a ``ChatError`` here.

        Args:
            method: GET or POST.
            path: Relative to the base URL, or a whole URL.
            deadline: Time of ``time.monotonic()`` at which to give up.
            body: JSON to send.
            attempts: The time of each attempt is appended to it.
            max_retries: By default this object's.

        Raises:
            ChatError: If there is no such answer.
        """
        import openai

        attempts = [] if attempts is None else attempts
        retries = self._max_retries if max_retries is None else max_retries
        failure: ChatError = ChatUnavailable("there was no time to ask")
        failed = 0
        longest = _FIRST_PAUSE
        while (remaining := deadline - time.monotonic()) > 0:
            busy = False
            attempts.append(time.monotonic())
            pause = longest * self._jitter.uniform(0.5, 1.0)
            longest = min(2 * longest, _LONGEST_PAUSE)
            options: Any = {
                "timeout": openai.Timeout(remaining, connect=min(remaining, _CONNECT_SECONDS))
            }
            client = self._client(self._address())
            try:
                if method == "GET":
                    answer = client.get(path, cast_to=object, options=options)
                else:
                    answer = client.post(path, cast_to=object, body=body, options=options)
            except openai.APIStatusError as error:
                failure = self._failure(error)
                busy = error.status_code == 429
                pause = max(pause, _retry_after(error.response.headers))
            except openai.APITimeoutError:
                failure = ChatUnavailable(f"no answer within {remaining:.1f} s")
            except openai.APIConnectionError as error:
                failure = ChatUnavailable(
                    self._clean(f"no connection: {error.__cause__ or error}")
                )
            except (openai.OpenAIError, ValueError) as error:
                failure = ChatUnavailable(self._clean(f"the answer is not JSON: {error}"))
            else:
                if isinstance(answer, dict):
                    return answer
                failure = ChatUnavailable(self._clean(f"the answer is not JSON: {answer}"))
            # Raised outside of the handlers: openai's error would go along as the context, and
            # with it whatever the server said of the key.
            if not isinstance(failure, ChatUnavailable):
                raise failure
            # "Too many requests" is no failure: with many workers it is the server's way to make
            # them take turns, and may last longer than any number of retries.
            failed += not (busy and retries)
            if failed > retries or time.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
        raise ChatUnavailable(
            f"The language model did not answer in {len(attempts)} attempts: {failure}."
        )

    def _failure(self, error: openai.APIStatusError) -> ChatError:
        """Map an HTTP status of 4xx or 5xx to one of this package's errors."""
        status = error.status_code
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("message") or body.get("error") or body.get("detail") or error.message
        text = self._clean(str(said))
        if status < 500 and _TOO_LONG.search(f"{error.code} {error.type} {text}"):
            prompt_tokens, limit = body.get("n_prompt_tokens"), body.get("n_ctx")  # llama.cpp
            if limit is None and (match := _LIMIT.search(text)):
                limit = int(match[1] or match[2])
            return ContextTooLong(
                f"The prompt is too long for the model: {text}",
                prompt_tokens=prompt_tokens,
                limit=limit,
            )
        # Out of credit is a 429 too, and no waiting helps.
        if error.code != "insufficient_quota" and (status in (408, 409, 429) or status >= 500):
            return ChatUnavailable(f"HTTP {status}, {text}")
        if status in (401, 403):
            text += f" (The key is read from {self._key_variable} if it is not given.)"
        return ChatRejected(
            f"The server refuses the request, HTTP {status}: {text}", status=status
        )

    def _clean(self, text: str) -> str:
        """Put a server's words into one line of at most 300 characters, without keys."""
        key = self._key()
        if key:
            text = text.replace(key, "***")
        text = _LIKE_A_KEY.sub("***", " ".join(text.split()))
        return text if len(text) <= 300 else text[:299] + "…"


_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|(maximum|available) context|context (length|size"
    r"|window)|(prompt|input|request) is too long|too many tokens",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:context length is|context size \(|at most|limit of)\s*(\d+)|> (\d+) maximum",
    re.IGNORECASE,
)
_LIKE_A_KEY = re.compile(r"\b(sk|key|AIza)[-_]?[A-Za-z0-9_*-]{12,}")
_THOUGHT = re.compile(r"<think(?:ing)?>(.*?)</think(?:ing)?>", re.DOTALL)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"`base_url` must be an http or https address, but got {url!r}.")
    if parts.username or parts.password or parts.query:
        raise ValueError("`base_url` must hold no user, password or query; give the key apart.")
    return url.rstrip("/")


def _is_own(address: str) -> bool:
    """Whether to ask a server for more than the OpenAI interface.

    The hosted services have https addresses and nothing more to tell.
    """
    return address.startswith("http://")


def is_loopback(address: str) -> bool:
    """Whether an address is the machine's own, whichever machine that is."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _root(address: str) -> str:
    """The address that llama.cpp's and vLLM's own endpoints are below."""
    return address.removesuffix("/v1")


def _records(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    values = answer.get(name)
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _retry_after(headers: Mapping[str, str]) -> float:
    """Read how many seconds a server asks to wait: a number, or a date (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "")
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max((date - datetime.now(timezone.utc)).total_seconds(), 0.0)


def _split_reasoning(message: Mapping[str, Any]) -> tuple[str, str]:
    """Split a message into its text and the reasoning before it.

    Servers have a field for the reasoning, leave it in the text within tags, or do so with the
    opening tag left out because it was part of the prompt. A model that was held to a schema while it was thinking
    has its reply in the field of the reasoning, and no text.
    """
    text = message.get("content")
    text = text if isinstance(text, str) else ""
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    reasoning = reasoning if isinstance(reasoning, str) else ""
    thoughts = _THOUGHT.findall(text)
    text = _THOUGHT.sub("", text)
    before, closing, after = text.rpartition("</think>")
    if closing:
        thoughts.append(before)
        text = after
    before, opening, after = text.partition("<think>")  # cut off while thinking
    if opening:
        thoughts.append(after)
        text = before
    reasoning = "\n".join(filter(None, [reasoning, *thoughts])).strip()
    text = text.strip()
    if not text and reasoning.startswith("{") and reasoning.endswith("}"):
        text = reasoning
    return text, reasoning
