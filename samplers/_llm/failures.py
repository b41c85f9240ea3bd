"""What a server's error says, in whichever of their shapes it comes, and the error to raise for it.

Errors are objects, lists of one, texts or pages; with HTTP 200, too, and then beside the choices or
in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone
from email.utils import parsedate_to_datetime
import json
import re
from typing import Any

from .chat import ChatError
from .chat import ChatRejected
from .chat import ChatUnavailable
from .chat import ContextTooLong
from .tokens import as_tokens


_MOST_CHARS = 4000  # of a server's words that are searched for names of arguments
_SHOWN_CHARS = 300  # of them for people

_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|(?:maximum|available) context"
    r"|context (?:length|size|window)|context the overflows|(?:prompt|input|request) is too long"
    r"|too many tokens|input token count|request too large|too large for model"
    r"|reduce the length of",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:context (?:length|size|window) (?:of only |of |is |\()|tokens allowed \(|at most|limit of"
    r"|limit:?)\s*(?P<first>\d+)|(?:>|with|exceeded:) (?P<then>\d+) (?:tokens )?maximum",
    re.IGNORECASE,
)
# Names of arguments where a text points at them.
_NAMED = re.compile(
    r"(?:unknown|unrecognized|unsupported|unexpected|invalid|extra)[\w ]{0,40}?"
    r"(?:argument supplied|argument|name|field|parameter|property|value)s?:?[ ]{0,2}['\"`]?(\w+)",
    re.IGNORECASE,
)
_NO_CREDIT = ("insufficient_quota", "billing", "payment", "insufficient_balance", "credit")
# A day's limit, by the quotas that Google lists or by the words, unless these speak of a minute or
# say when to try again. Plans and billing tell nothing: they are spoken of at a minute's limit, too.
_DAILY_QUOTA = re.compile(r"quotaId\W+\w*PerDay")
_DAILY = re.compile(r"per[-_ ]?day\b", re.IGNORECASE)
_SOON = re.compile(r"per[-_ ]?min|try again in", re.IGNORECASE)
# All that an error has which is not within one, as some servers send it with any status.
_OF_ERRORS = {"object", "message", "detail", "msg", "code", "type", "status", "param"}
# Statuses by the words that stand where one is missing.
_STATUSES = {
    "rate_limit": 429,
    "quota": 429,
    "exhausted": 429,
    "overload": 503,
    "unavailable": 503,
    "timeout": 504,
    "auth": 401,
    "api_key": 401,
    "permission": 403,
    "not_found": 404,
    "invalid": 400,
    "bad_request": 400,
}


@dataclass(frozen=True)
class Refusal:
    """An error as a server told it.

    Attributes:
        status: HTTP status, or the one that an answer of HTTP 200 names.
        words: The server's words in one line, without keys.
        kind: Its code and type, if it has any.
        names: Names of arguments that it points at.
        prompt_tokens, limit: Tokens of the prompt, and of the context, if it says them.
    """

    status: int
    words: str
    kind: str = ""
    names: frozenset[str] = frozenset()
    prompt_tokens: int | None = None
    limit: int | None = None

    @property
    def shown(self) -> str:
        """The words, cut for people."""
        return shorten(self.words)

    @property
    def out_of_credit(self) -> bool:
        """Whether no waiting helps against "too many requests"."""
        daily = _DAILY.search(self.words) and not _SOON.search(self.words)
        return bool(daily) or any(word in self.kind for word in _NO_CREDIT)


class Refused(ChatRejected):
    """A request that may be taken in another form."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message, status=refusal.status)
        self.refusal = refusal


def shorten(text: str) -> str:
    """Cut a text at 300 characters."""
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def refusal(status: int, payload: Any, text: str, clean: Any) -> Refusal | None:
    """Read an answer's error, ``None`` if it has none.

    Args:
        status: Its HTTP status.
        payload: Its body, read as JSON; ``None`` if it is none.
        text: Its body.
        clean: Function that makes a server's text of any length fit to be shown, in one line.
    """
    if isinstance(payload, list) and payload:
        payload = payload[0]
    body = payload if isinstance(payload, dict) else {}
    error = body.get("error") or _error_of_a_choice(body)
    if not error and body.keys() <= _OF_ERRORS:
        error = body
    if status < 400:
        if not error:
            return None
        status = _status_of(error)
    elif not error:
        error = body or text
    while isinstance(error, dict) and isinstance(error.get("error"), (dict, str)):
        error = error["error"]
    fields = error if isinstance(error, dict) else {}
    kind = " ".join(_text(fields[k]) for k in ("code", "type", "status") if fields.get(k))
    if _DAILY_QUOTA.search(text):
        kind += f" {_NO_CREDIT[0]}"
    return Refusal(
        status,
        clean("; ".join(_words(error))) or "no reason given",
        clean(kind).lower(),
        frozenset(_names(error)),
        as_tokens(fields.get("n_prompt_tokens")) or None,
        as_tokens(fields.get("n_ctx")) or None,
    )


def to_error(refused: Refusal, key_variable: str) -> ChatError:
    """Map an error to one of this package's."""
    status, text = refused.status, refused.shown
    if status < 500 and _TOO_LONG.search(f"{refused.kind} {refused.words}"):
        limit = refused.limit
        if limit is None and (match := _LIMIT.search(refused.words.replace(",", ""))):
            limit = as_tokens(int(match["first"] or match["then"])) or None
        return ContextTooLong(
            f"The prompt is too long for the model: {text}",
            prompt_tokens=refused.prompt_tokens,
            limit=limit,
        )
    # Out of credit is a 429 too, and no waiting helps.
    if (status in (408, 409, 425, 429) and not refused.out_of_credit) or status >= 500:
        return ChatUnavailable(f"HTTP {status}, {text}")
    if status in (401, 403):
        text += f" (The key is read from {key_variable} if it is not given.)"
    if status in (404, 405):
        text += " (Is it the right address, which usually ends in /v1, and the right model?)"
    return Refused(f"The server refuses the request, HTTP {status}: {text}", refused)


def retry_after(headers: Mapping[str, str]) -> float:
    """Read how many seconds a server asks to wait: a number, or a date (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after") or ""
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            if date.tzinfo is None:
                date = date.replace(tzinfo=timezone.utc)
            seconds = (date - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, OverflowError):  # no date, or one of a zone that no clock has
            return 0.0
    return max(0.0, seconds)  # 0 for NaN, too


def _error_of_a_choice(body: Mapping[str, Any]) -> Any:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first.get("error") if isinstance(first, dict) else None


def _status_of(error: Any) -> int:
    """Return the status that an error names; 502, as of a gateway, if it names none."""
    fields = error if isinstance(error, dict) else {}
    code = _text(fields.get("code") or fields.get("status") or "")
    if re.fullmatch("[45][0-9]{2}", code):
        return int(code)
    kind = " ".join(_text(fields.get(name) or "") for name in ("code", "type", "status")).lower()
    return next((status for word, status in _STATUSES.items() if word in kind), 502)


def _words(error: Any) -> Iterator[str]:
    """Yield what an error says: its message, those of its parts, and of who is behind a gateway."""
    if isinstance(error, str):
        yield error
        return
    if isinstance(error, dict):
        said = error.get("message") or error.get("detail") or error.get("msg")
        metadata = error.get("metadata")
        if said:
            yield _text(said)
        if isinstance(metadata, dict) and metadata.get("raw"):
            yield _text(metadata["raw"])
        if said:
            return
    if error:
        yield _text(error)


def _text(value: Any) -> str:
    """Return a text, or JSON of anything else that isn't nested too deeply."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""


def _names(error: Any) -> Iterator[str]:
    """Yield the names of arguments that an error points at: ``param``, ``loc``, in its words."""
    fields = error if isinstance(error, dict) else {}
    if isinstance(fields.get("param"), str):
        yield re.split(r"[.\[]", fields["param"])[0]
    for parts in (fields.get("detail"), fields.get("message"), fields.get("details")):
        if isinstance(parts, dict):
            parts = parts.get("detail")
        for part in parts if isinstance(parts, list) else []:
            where = part.get("loc") if isinstance(part, dict) else None
            if isinstance(where, list):
                yield from (name for name in where if isinstance(name, str) and name != "body")
    for words in _words(error):
        yield from _NAMED.findall(words[:_MOST_CHARS])
