"""A chat model behind any server that speaks OpenAI's protocol, as such servers really answer.

Its parts: ``transport`` (one HTTP request by ``openai``, within a time and a size), ``client`` (its
repetition), ``failures`` (errors in all their shapes), ``dialect`` (what a server understands of a
request) and ``answers`` (its replies). docs/language_models.md says which libraries were weighed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
import math
import threading
import time
from typing import Any
from typing import TYPE_CHECKING

import optuna

from .address import is_own
from .address import root
from .answers import model_name
from .answers import read_completion
from .answers import records
from .chat import BudgetExhausted
from .chat import ChatError
from .chat import ChatRejected
from .chat import ChatUnavailable
from .chat import ContextTooLong
from .client import Client
from .client import OPENAI_KEY
from .client import PATIENCE
from .dialect import known_dialect
from .dialect import MOST_THINKING_TOKENS
from .dialect import remember
from .dialect import Request
from .dialect import STRICT
from .dialect import THINKING_TOKENS
from .failures import Refused
from .tokens import as_tokens
from .tokens import estimate_tokens
from .transport import CONNECT_SECONDS


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from .chat import Completion
    from .chat import Message

_logger = optuna.logging.get_logger(f"optuna.{__name__}")


OPENAI_URL = "https://api.openai.com/v1"
CHECK = ({"role": "user", "content": 'Reply with this JSON object: {"ready": true}'},)
_CHECK_SCHEMA = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}},
    "required": ["ready"],
    "additionalProperties": False,
}
_CHECK_TOKENS = 64
_passed: set[tuple[object, ...]] = set()  # checks: address, model and key

_LEAST_THINKING_TOKENS = 1024  # in a context that doesn't hold more
_ASK_AGAIN_SECONDS = 60.0  # a server that was away
_MOST_ADAPTATIONS = 12  # of one request to its server
_OLLAMA_TOKENS = 4096  # its context on most machines
_CUT = 0.5  # share of our own estimate of a prompt, which is up to 1.7 times too many for prose


class OpenAIChat:
    """A model behind an OpenAI-compatible address.

    The key is never part of a ``repr``, a log, an error or a pickle, nor of a reply, whatever the
    server says and however it encodes it; an unpickled chat reads it from the environment.

    Args:
        model: Name of the model; by default the only one that the server lists.
        base_url: Address, usually ending in ``/v1``; or a function that returns it, asked before
            every request, for a server that is started when it is needed.
        api_key: By default the environment variable ``key_variable``. A server of one's own may
            need none.
        key_variable: Where the key is if it is not given. With OpenAI's own variable ``OPENAI_ORG_ID``,
            ``OPENAI_PROJECT_ID`` and ``OPENAI_CUSTOM_HEADERS`` are sent, too.
        timeout: Seconds for one ``complete``, retries and pauses included.
        max_retries: Retries of one request at most, within ``timeout``; with 0 none is made. Those
            that a server answers by 429, "too many requests", aren't counted: they last as long as
            ``timeout``.
        context_tokens: Tokens of the model's context; by default what the server says, if it
            does; of an Ollama that doesn't, 4,096.
        extra: Further fields of the request's body, for example ``{"cache_prompt": False}``,
            without which llama.cpp's replies for a seed depend on what it has cached.

    Raises:
        ChatSettingError: If the address or the key can't be one.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | Callable[[], str] = OPENAI_URL,
        api_key: str | None = None,
        key_variable: str = OPENAI_KEY,
        timeout: float = PATIENCE,
        max_retries: int = 5,
        context_tokens: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = Client(base_url, api_key, key_variable, max_retries)
        self._model = (model or "").strip() or None
        self._timeout = timeout
        self._context_tokens = context_tokens
        self._extra = dict(extra or {})
        self._set_up()

    def _set_up(self) -> None:
        """Create the attributes that are not pickled."""
        self._lock = threading.RLock()
        # When to ask the server for its context and for a count, by ``time.monotonic()``.
        self._context_from = 0.0
        self._context_meanwhile: int | None = None  # while that is not known
        self._tokenizer_from = 0.0
        self._token_counts: dict[str, int] = {}
        self._warned_of_cut = False

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_token_counts"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r}, base_url={self.where!r})"

    @property
    def where(self) -> str:
        """The address, for people."""
        address = self._client.base_url
        return address if isinstance(address, str) else "started when needed"

    @property
    def starts_server(self) -> bool:
        """Whether its server is started when it is needed, as the embedded model's."""
        return not isinstance(self._client.base_url, str)

    @property
    def model(self) -> str:
        """Name of the model."""
        with self._lock:
            if self._model is None:
                listed = self._client.call("GET", "models", self._deadline())
                ids = (entry.get("id") for entry in records(listed, "data"))
                names = [model_name(i, self._client.clean) for i in ids if isinstance(i, str)]
                names = [name for name in names if name]
                if len(names) != 1:
                    raise ChatRejected(
                        "A model must be named (--model, OPENAI_MODEL, `model`), since the server "
                        f"does not list exactly one but {', '.join(names[:8]) or 'none'}"
                        f"{', ...' if len(names) > 8 else ''}."
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
            told = self._context_tokens
            return self._context_meanwhile if told is None else told

    def _ask_context(self) -> int | None:
        """Ask llama.cpp for it among its properties, vLLM in its list of models, then Ollama.

        Raises:
            ChatError: If the server is away, or refuses the first two.
        """
        address, deadline = self._client.address(), self._deadline(CONNECT_SECONDS)
        if not is_own(address):
            return None
        with suppress(ChatError):  # if it is not llama.cpp
            properties = self._client.call(
                "GET", f"{root(address)}/props", deadline, max_retries=0
            )
            settings = properties.get("default_generation_settings")
            if isinstance(settings, dict) and (length := as_tokens(settings.get("n_ctx"))):
                return length
        listed = self._client.call("GET", "models", deadline, max_retries=0)
        for entry in records(listed, "data"):
            length = as_tokens(entry.get("max_model_len"))
            if length and entry.get("id") == self.model:
                return length
        return self._ask_ollama(f"{root(address)}/api", deadline)

    def _ask_ollama(self, api: str, deadline: float) -> int | None:
        """Ask Ollama for the context that it gave the model; ``None`` if it is another server.

        It cuts off the beginning of a longer prompt, and says nothing.
        """
        try:
            told = self._client.call("GET", f"{api}/version", deadline, max_retries=0)
        except ChatError:
            return None
        if not isinstance(told.get("version"), str):
            return None
        self._context_meanwhile = _OLLAMA_TOKENS
        with suppress(ChatRejected):
            # It is told of a model that is loaded, which this request without a prompt does.
            body = {"model": self.model}
            self._client.call("POST", f"{api}/generate", self._deadline(), body, max_retries=0)
            soon = self._deadline(CONNECT_SECONDS)
            loaded = self._client.call("GET", f"{api}/ps", soon, max_retries=0)
            for entry in records(loaded, "models"):
                length = as_tokens(entry.get("context_length"))
                if length and entry.get("name") in (self.model, f"{self.model}:latest"):
                    return length
        _logger.warning(
            f"Ollama does not tell the context of {self.model}, and would cut longer prompts "
            f"without saying so: they are kept within {_OLLAMA_TOKENS} tokens, its default. A newer "
            "version tells; OLLAMA_CONTEXT_LENGTH, or num_ctx in a Modelfile, makes it larger."
        )
        return _OLLAMA_TOKENS

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
        address = self._client.address()
        if not is_own(address):
            return None
        # llama.cpp reads "content" and vLLM "model" and "prompt".
        body = {"content": text, "prompt": text, "model": self._model or ""}
        url = f"{root(address)}/tokenize"
        answer = self._client.call(
            "POST", url, self._deadline(CONNECT_SECONDS), body, max_retries=0
        )
        tokens = answer.get("tokens")
        count = len(tokens) if isinstance(tokens, list) else answer.get("count")
        return count if type(count) is int and 0 <= count <= 4 * len(text) + 16 else None

    @property
    def counts_tokens(self) -> bool:
        """Whether the server counts, as far as it was asked; else tokens are estimated."""
        return bool(self._token_counts)

    def check(self, *, patient: bool = True) -> None:
        """Ask for one word, so that a wrong address, key or model shows before it costs anything.

        What the server understands of a request is known from then on. A check that was passed is
        not repeated in this process; nor is a server checked that is started when needed.

        Args:
            patient: Whether to wait for a server that is away or has too many requests, as
                ``complete`` does.

        Raises:
            ChatError: If a request would fail.
        """
        address = self._client.base_url
        key = address, self._model, hash(self._client.key())
        if key in _passed or not isinstance(address, str):
            return
        if not patient:
            with suppress(ChatRejected):  # if it has no list
                self._client.call("GET", "models", self._deadline(CONNECT_SECONDS), max_retries=0)
        with suppress(BudgetExhausted):  # which is told when it matters
            deadline = self._deadline()
            self._converse(
                Request(CHECK, _CHECK_SCHEMA, _CHECK_TOKENS, 0.0, None, deadline, patient)
            )
        _passed.add(key)

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
        request = Request(messages, schema, max_tokens, temperature, seed, self._deadline())
        try:
            return self._converse(request)
        except ChatError as error:
            error.seconds = time.monotonic() - request.started
            error.attempts = len(request.attempts)
            if error.completion is not None:
                request.completions.append(error.completion)
            if request.completions:
                error.completion = request.reply()
            raise

    def _converse(self, request: Request) -> Completion:
        """Ask until the server takes the request's parameters, and let a model think to its end."""
        most_thinking = MOST_THINKING_TOKENS
        level = STRICT
        refused: ContextTooLong | None = None
        for _ in range(_MOST_ADAPTATIONS):
            address = self._client.address()
            dialect = known_dialect(address, self.model)
            thinking = min(dialect.thinking_tokens, most_thinking)
            room = request.max_tokens + thinking
            if dialect.longest is not None:
                room = min(room, dialect.longest)
            body = {
                **dialect.body(request, level, room),
                "model": self.model,
                **self._extra,
            }
            try:
                last = self._ask(body, room, request)
            except ContextTooLong as error:
                if thinking <= _LEAST_THINKING_TOKENS:
                    raise
                # Beside this prompt. If it is too little for the model, the prompt is too long.
                refused, most_thinking = error, thinking // 2
                continue
            except Refused as error:
                change = dialect.after(error.refusal, body, level)
                # What `extra` asks for is sent whatever the dialect leaves out.
                if change is None or self._extra.keys() & (change[0].dropped - dialect.dropped):
                    raise
                now, level = change
            else:
                request.completions.append(last)
                kept = "response_format" in body and level <= dialect.format
                now = dialect.understood(kept)
                if last.is_starved and refused is not None and thinking < THINKING_TOKENS:
                    raise refused
                roomier = now.with_room_to_think() if refused is None else None
                if not last.is_starved or roomier is None or room == dialect.longest:
                    remember(address, self.model, dialect, now)
                    return request.reply()
                now = roomier
            if remember(address, self.model, dialect, now):
                _logger.info(f"{self.model} at {address} is from now on asked as {now}.")
        raise ChatRejected("The server refuses the request in whichever form it is asked.")

    def _ask(self, body: Mapping[str, Any], max_tokens: int, request: Request) -> Completion:
        """Send a request whose reply has at most ``max_tokens``, as its ``body`` says."""
        answer = self._client.call(
            "POST",
            "chat/completions",
            request.deadline,
            body,
            request.attempts,
            patient=request.patient,
            needs="choices",
        )
        completion = read_completion(answer, self.model, self._client.clean)
        self._warn_of_cut(body, completion)
        return completion

    def _warn_of_cut(self, body: Mapping[str, Any], completion: Completion) -> None:
        """Say once that a server may have read only the end of a prompt.

        Those that count for us refuse what is too long, as the hosted ones do.
        """
        address = self._client.address()
        if self._warned_of_cut or self.counts_tokens or not is_own(address):
            return
        # Some tell only the tokens that were not in their cache, and some of these how many were.
        read = completion.prompt_tokens + completion.cached_tokens
        sent = sum(estimate_tokens(message["content"]) for message in body["messages"])
        if 0 < read < _CUT * sent:
            self._warned_of_cut = True
            _logger.warning(
                f"{self.model} at {address} says that it read {read} tokens of a prompt of about "
                f"{sent}. Unless the others were in its cache, it may cut prompts that are longer "
                "than its context: then make that larger, or give its length as `context_tokens`."
            )

    def _deadline(self, seconds: float | None = None) -> float:
        return time.monotonic() + min(self._timeout, seconds or self._timeout)
