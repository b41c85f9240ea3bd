"""One HTTP request to a language model's server, within a time and a size.

The time is that of the whole: a time-out of the usual kind holds for each wait for a few bytes, so
that an answer that drips is never late, and for none of the name's look-up. So another thread waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
import json
import os
import threading
import time
from typing import Any
from typing import TYPE_CHECKING

from .address import is_loopback
from .chat import ChatError
from .chat import ChatUnavailable


if TYPE_CHECKING:
    import requests

CONNECT_SECONDS = 10.0
# Of an answer, unpacked. The longest replies have some 100,000 tokens, lists of models 2 MB.
MAX_BYTES = 8_000_000
_PIECE_BYTES = 1 << 16


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


class Transport:
    """Sends requests. Connections are kept, by process, since they must not outlive a fork."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, bool], requests.Session] = {}
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
            ChatError: If it is longer than ``MAX_BYTES``.
        """
        # Failures are returned, not raised: an exception of requests' has the key in its context.
        future: Future[Answer | ChatError] = Future()
        deadline = time.monotonic() + seconds

        def work() -> None:
            try:
                future.set_result(self._exchange(method, url, key, body, deadline))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            answer = future.result(timeout=seconds)
        except FutureTimeout:
            answer = ChatUnavailable(f"no answer within {seconds:.1f} s")
        if isinstance(answer, ChatError):
            raise answer
        return answer

    def _exchange(
        self, method: str, url: str, key: str | None, body: Any, deadline: float
    ) -> Answer | ChatError:
        from http.client import HTTPException

        import requests
        from urllib3.exceptions import HTTPError

        seconds = max(deadline - time.monotonic(), 0.001)
        data = None
        if body is not None:
            data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")

        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if key:
                request.headers["Authorization"] = f"Bearer {key}"
            return request

        try:
            with self._session(is_loopback(url)).request(
                method,
                url,
                data=data,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                auth=authorize,  # if there is none, requests looks for one in ~/.netrc
                timeout=(min(seconds, CONNECT_SECONDS), seconds),
                allow_redirects=False,  # that would send prompts where nobody said
                stream=True,
            ) as response:
                content = _read(response, deadline)
                status, headers = response.status_code, response.headers
        except (requests.ConnectTimeout, requests.ReadTimeout):
            return ChatUnavailable(f"no answer within {seconds:.1f} s")
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            return ChatUnavailable(f"no connection: {error}")
        if isinstance(content, ChatError):
            return content
        text = content.decode("utf-8-sig", "replace")
        try:
            payload = json.loads(text)
        except (ValueError, RecursionError):
            payload = None
        return Answer(status, headers, text, payload)

    def _session(self, own: bool) -> requests.Session:
        import requests

        with self._lock:
            session = self._sessions.get((os.getpid(), own))
            if session is None:
                session = requests.Session()
                # A proxy of the environment's can't reach this machine's own loopback.
                session.trust_env = not own
                self._sessions[os.getpid(), own] = session
            return session


def _read(response: requests.Response, deadline: float) -> bytes | ChatError:
    """Read a body to its end, unpacked piece by piece, so that no piece is beyond bounds."""
    content = bytearray()
    while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
        content += piece
        if len(content) > MAX_BYTES:
            return ChatError(f"The server's answer has more than {MAX_BYTES / 1e6:g} MB.")
        if time.monotonic() > deadline:  # nobody waits any more
            return ChatUnavailable("no whole answer in time")
    return bytes(content)
