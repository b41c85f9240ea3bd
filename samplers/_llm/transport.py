"""One HTTP request to a language model's server, within a time and a size.

The time is that of the whole: a time-out of the usual kind holds for each wait for a few bytes, so
that an answer that drips is never late, and for none of the name's look-up. So another thread waits.
`openai` sends; it limits neither, nor the size of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
import json
import os
import threading
import time
from typing import Any
from typing import TYPE_CHECKING
import zlib

from .address import is_loopback
from .chat import ChatError
from .chat import ChatUnavailable


if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

CONNECT_SECONDS = 10.0
# Of an answer, unpacked. The longest replies have some 100,000 tokens, lists of models 2 MB.
MAX_BYTES = 8_000_000
_PIECE_BYTES = 1 << 16
_PACKINGS = ("gzip", "x-gzip", "deflate")
_MOST_PACKINGS = 3  # one within another; servers use one


@dataclass(frozen=True)
class Answer:
    """A server's answer.

    Attributes:
        status: HTTP status.
        headers: Its headers; names in any case.
        text: The body.
        payload: The same read as JSON; ``None`` if it is none, or nested too deeply.
    """

    status: int
    headers: Mapping[str, str]
    text: str
    payload: Any


def answer_of(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Read an answer's body as text, and as JSON if it is some."""
    text = body.decode("utf-8-sig", "replace")
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        payload = None
    return Answer(status, headers, text, payload)


class Transport:
    """Sends requests. Connections are kept, by process, since they must not outlive a fork.

    Requests at the same time have a client each, so that one can be ended without the others.

    Args:
        of_environment: Whether to send ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID`` and
            ``OPENAI_CUSTOM_HEADERS``, too, as ``openai`` does to any server.
    """

    def __init__(self, *, of_environment: bool = False) -> None:
        self._of_environment = of_environment
        self._idle: dict[tuple[int, bool], list[openai.OpenAI]] = {}
        self._reading = threading.local()  # what the thread that reads a body needs
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, *, key: str | None, body: Any = None, seconds: float
    ) -> Answer:
        """Send a request and return the answer, whatever its status is.

        Args:
            method: GET or POST.
            url: The whole address.
            key: Sent as a bearer token.
            body: Sent as JSON. Lone surrogates in it become question marks.
            seconds: Time for all of it.

        Raises:
            ChatUnavailable: If none came in time. The text may hold the server's words.
            ChatError: If it is longer than ``MAX_BYTES``, or packed in a way that is not known here. That
                text may, too.
        """
        # Failures are returned, not raised: an exception of openai's has the key in its context.
        future: Future[Answer | ChatError] = Future()
        deadline = time.monotonic() + seconds
        asking: list[openai.OpenAI] = []  # the client, while it does

        def work() -> None:
            try:
                future.set_result(self._exchange(method, url, key, body, deadline, asking))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            answer = future.result(timeout=seconds)
        except FutureTimeout:
            # Headers may go on for ever, and their thread with them: nothing looks at the time there.
            with self._lock:
                late = [asking.pop()] if asking else []
            for client in late:
                with suppress(Exception):
                    client.close()
            answer = ChatUnavailable(f"no answer within {seconds:.1f} s")
        if isinstance(answer, ChatError):
            raise answer
        return answer

    def _exchange(
        self,
        method: str,
        url: str,
        key: str | None,
        body: Any,
        deadline: float,
        asking: list[openai.OpenAI],
    ) -> Answer | ChatError:
        import openai

        httpx = _httpx()
        seconds = max(deadline - time.monotonic(), 0.001)
        headers: dict[str, Any] = {"Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        else:
            headers["Authorization"] = openai.Omit()
        options: Any = {
            "headers": headers,
            "max_retries": 0,
            "timeout": httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        }
        client = self._client(is_loopback(url))
        asking.append(client)
        self._reading.deadline = deadline
        try:
            if method == "GET":
                response = client.get(url, cast_to=httpx.Response, options=options)
            else:
                headers["Content-Type"] = "application/json"
                content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
                response = client.post(
                    url, cast_to=httpx.Response, content=content, options=options
                )
        except openai.APIStatusError as error:
            response = error.response
        except _Unreadable as error:
            return error.error
        except openai.APITimeoutError:
            return ChatUnavailable(f"no answer within {seconds:.1f} s")
        except Exception as error:  # whatever a server brings about ends no study
            return ChatUnavailable(f"no connection: {error.__cause__ or error}")
        finally:
            with self._lock:
                if asking:
                    self._idle[os.getpid(), is_loopback(url)].append(asking.pop())
        return answer_of(response.status_code, response.headers, response.content)

    def _client(self, own: bool) -> openai.OpenAI:
        import openai

        httpx = _httpx()
        with self._lock:
            idle = self._idle.setdefault((os.getpid(), own), [])
            if idle:
                return idle.pop()
            client = openai.OpenAI(
                api_key="none",  # each request has its own
                http_client=httpx.Client(
                    trust_env=not own,  # a proxy can't reach this machine's own loopback
                    follow_redirects=False,  # that would send prompts where nobody said
                    event_hooks={"response": [self._bound]},
                ),
            )
            if not self._of_environment:
                client.organization = client.project = None
                client._custom_headers = {}
            return client

    def _bound(self, response: Any) -> None:
        """Let a body be read to ``MAX_BYTES`` of what it unpacks to, and to the deadline.

        httpx unpacks each piece that arrives as a whole, be it a thousand times as long.
        """
        packing = response.headers.pop("content-encoding", "")
        stream: Any = response.stream
        response.stream = _bounded_stream(stream, packing, self._reading.deadline)


def _httpx() -> Any:
    """The HTTP library that `openai` is built on: httpx2 from Python 3.11 on, before it httpx."""
    return import_module("httpx2" if find_spec("httpx2") else "httpx")


class _Unreadable(Exception):
    """A body that is not read to its end."""

    def __init__(self, error: ChatError) -> None:
        super().__init__(str(error))
        self.error = error


def _bounded_stream(stream: Any, packing: str, deadline: float) -> Any:
    httpx = _httpx()

    class Bounded(httpx.SyncByteStream):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[bytes]:
            pieces = iter(stream)
            words = [word.strip().lower() for word in packing.split(",")]
            names = [word for word in words if word not in ("", "identity")]
            if len(names) > _MOST_PACKINGS or not set(names) <= set(_PACKINGS):
                raise _Unreadable(ChatError(f"The server's answer is packed by {packing}."))
            for _ in names:
                pieces = _unpacked(pieces)
            size = 0
            for piece in pieces:
                size += len(piece)
                if size > MAX_BYTES:
                    raise _Unreadable(
                        ChatError(f"The server's answer has more than {MAX_BYTES / 1e6:g} MB.")
                    )
                if time.monotonic() > deadline:  # nobody waits any more
                    raise _Unreadable(ChatUnavailable("no whole answer in time"))
                yield piece

        def close(self) -> None:
            stream.close()

    return Bounded()


def _unpacked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip or zlib in pieces of bounded length."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either, by its header
    try:
        for piece in pieces:
            while piece:
                yield unpacker.decompress(piece, _PIECE_BYTES)
                piece = unpacker.unconsumed_tail
    except zlib.error as error:
        raise _Unreadable(ChatUnavailable(f"no answer that unpacks: {error}")) from None
