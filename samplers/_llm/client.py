"""Requests to one server, repeated while that may help, and its errors mapped to ``ChatError``s."""

from __future__ import annotations

from collections.abc import Mapping
import os
import random
import time
from typing import Any
from typing import TYPE_CHECKING

import optuna

from .address import checked_key
from .address import checked_url
from .answers import records
from .chat import ChatError
from .chat import ChatRejected
from .chat import ChatUnavailable
from .dialect import may_help
from .failures import refusal
from .failures import Refused
from .failures import retry_after
from .failures import shorten
from .failures import to_error
from .masking import mask
from .masking import mask_all
from .masking import printable
from .transport import Transport


if TYPE_CHECKING:
    from collections.abc import Callable

    from .transport import Answer

_logger = optuna.logging.get_logger(f"optuna.{__name__}")

OPENAI_KEY = "OPENAI_API_KEY"  # the variable that OpenAI's own libraries read

PATIENCE = 600.0  # seconds for one request and its repetitions
FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 30.0  # seconds
_SILENT_PAUSE = 10.0  # seconds: whoever waits longer is told why
_MOST_CHARS = 4000  # of a server's words: for finding out what they are about, and for people


class Client:
    """The connection of an ``OpenAIChat``, whose arguments these are.

    Raises:
        ChatSettingError: If the address or the key can't be one.
    """

    def __init__(
        self,
        base_url: str | Callable[[], str],
        api_key: str | None,
        key_variable: str,
        max_retries: int,
    ) -> None:
        self.base_url = checked_url(base_url) if isinstance(base_url, str) else base_url
        self._api_key = checked_key(api_key, "`api_key`")
        self._key_variable = key_variable
        self._max_retries = max_retries
        self.key()  # one that can't be is found now
        self._set_up()

    def _set_up(self) -> None:
        # What else OpenAI's variables name goes where their key does, and nowhere else.
        own = isinstance(self.base_url, str) and self._key_variable == OPENAI_KEY
        self._transport = Transport(of_environment=own)
        self._jitter = random.Random()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_transport"], state["_jitter"]
        return {**state, "_api_key": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def address(self) -> str:
        """Return the base URL."""
        return self.base_url if isinstance(self.base_url, str) else self.base_url()

    def key(self) -> str | None:
        """Return the key to send, if there is one."""
        if not isinstance(self.base_url, str):  # a server that this process started needs none
            return self._api_key
        variable = self._key_variable
        return self._api_key or checked_key(os.environ.get(variable), variable)

    def call(
        self,
        method: str,
        path: str,
        deadline: float,
        body: Mapping[str, Any] | None = None,
        attempts: list[float] | None = None,
        *,
        max_retries: int | None = None,
        patient: bool = True,
        needs: str = "",
    ) -> dict[str, Any]:
        """Send one HTTP request, with retries, and return the JSON object of the answer.

        Nothing else sends, and whatever goes wrong is mapped to a ``ChatError`` here.

        Args:
            method: GET or POST.
            path: Relative to the base URL, or a whole URL.
            deadline: Time of ``time.monotonic()`` at which to give up.
            body: JSON to send.
            attempts: The time of each attempt is appended to it.
            max_retries: By default the client's.
            patient: Whether to ask again after "too many requests".
            needs: Name of a list of objects that an answer must have.

        Raises:
            ChatError: If there is no such answer.
        """
        attempts = [] if attempts is None else attempts
        before = len(attempts)  # of this request in another form
        retries = self._max_retries if max_retries is None else max_retries
        failure: ChatError = ChatUnavailable("there was no time to ask")
        failed = futile = 0
        silent = True
        longest = FIRST_PAUSE
        while (remaining := deadline - time.monotonic()) > 0:
            busy = False
            attempts.append(time.monotonic())
            pause = longest * self._jitter.uniform(0.5, 1.0)
            longest = min(2 * longest, LONGEST_PAUSE)
            address = self.address()
            url = path if "://" in path else f"{address}/{path}"
            try:
                answer = self._transport.send(
                    method, url, key=self.key(), body=body, seconds=remaining
                )
            except ChatUnavailable as error:
                if len(attempts) == before + 1 or time.monotonic() < deadline:
                    failure = ChatUnavailable(self.shown(str(error)))
                # Or the deadline cut it short, and what was said before tells more.
            except ChatError as error:
                failure = ChatError(self.shown(str(error)))
            else:
                refused = refusal(answer.status, answer.payload, answer.text, self.line)
                if refused is not None:
                    failure = to_error(refused, self._key_variable)
                    futile += refused.status == 500
                    if refused.status >= 500 and body and may_help(refused, body, futile):
                        failure = Refused(str(failure), refused)
                    busy = refused.status == 429
                    pause = max(pause, retry_after(answer.headers))
                else:
                    found = self._found(answer, needs)
                    if isinstance(found, dict):
                        return found
                    failure = found
            if not isinstance(failure, ChatUnavailable):
                raise failure
            # "Too many requests" is no failure: with many workers it is the server's way to make
            # them take turns, and may last longer than any number of retries.
            failed += not (busy and retries)
            given_up = failed > retries or (busy and not patient)
            if given_up or time.monotonic() + pause >= deadline:
                break
            if silent and pause > _SILENT_PAUSE:
                silent = False
                _logger.warning(
                    f"The language model is asked again in {pause:.0f} seconds, and for another "
                    f"{deadline - time.monotonic():.0f} if need be: {failure}."
                )
            time.sleep(pause)
        raise ChatUnavailable(
            f"The language model did not answer in {len(attempts) - before} attempts: {failure}."
        )

    def _found(self, answer: Answer, needs: str) -> dict[str, Any] | ChatError:
        """Return the object that an answer is, or the error that it is not what it has to be."""
        if 300 <= answer.status < 400:
            where = self.shown(answer.headers.get("location", ""))
            return ChatRejected(
                f"The server's address has changed to {where}; give that one as the base URL.",
                status=answer.status,
            )
        if not isinstance(answer.payload, dict):
            return ChatUnavailable(f"the answer is not JSON: {self.shown(answer.text)}")
        if needs and not records(answer.payload, needs):
            return ChatUnavailable(f"the answer has no {needs}: {self.shown(answer.text)}")
        return answer.payload

    def clean(self, text: str) -> str:
        """Make a server's text fit to be stored: no key, and nothing that can't be printed."""
        return mask(printable(text), self.key())

    def line(self, text: str) -> str:
        """Make a server's words about an error fit to be shown, in one line.

        They are cut before they are masked, which takes long of a long text, and between words: a key
        that is cut in two would not be found.
        """
        line = " ".join(printable(text).split())
        if len(line) > _MOST_CHARS:
            line = line[:_MOST_CHARS].rpartition(" ")[0] + " …"
        return mask_all(line, self.key())

    def shown(self, text: str) -> str:
        """Do the same, and cut them."""
        return shorten(self.line(text))
