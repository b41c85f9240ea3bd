"""Texts from elsewhere, made fit to be shown and stored: without keys, passwords and escapes."""

from __future__ import annotations

import base64
from functools import lru_cache
import html
import json
import re
from urllib.parse import quote
from urllib.parse import quote_plus
from urllib.parse import unquote


MASK = "***"

# A shorter one, such as a server of one's own is given, is no secret; and "1" is in every reply.
_SHORTEST = 6

# Lone surrogates, which no file and no database takes, and control characters but those of lines.
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
# Escape sequences of terminals: colours and the cursor; titles and links; others of two characters.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\\]P_^X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*"
    "(?:\x07|\x1b\\\\|\x9c)?|\x1b[ -/]*[0-~]"
)
_LIKE_A_KEY = re.compile(
    r"\b(?:sk|pk|rk|key|gsk|hf|xai|nvapi|AIza|ghp|r8|Bearer )[-_]?[A-Za-z0-9_*.~+/-]{12,}"
)
# Up to the last @: a password with one in it should be written %40, but not everybody knows. Lengths
# have limits, since a long text without a blank would take the square of its length.
_LOGIN = re.compile(r"(?P<begin>[a-zA-Z][\w+.-]{0,40}://[^\s:/'\"]{0,200}):[^\s'\"]{0,500}@")
# A text that is an address as a whole, whose password may have blanks and quotes, and any length.
_ADDRESS = re.compile(r"\s*[a-zA-Z][\w+.-]*://[^:/]*:(?P<password>.*)@[^@]*", re.DOTALL)
_PARAMETER = re.compile(
    r"(?P<begin>[?&;\s](?:[\w-]*password|passwd|pwd|api[-_]?key|key|token)=)[^&;\s'\"]+", re.I
)


def mask(text: str, *secrets: str | None) -> str:
    """Replace each secret by asterisks, as it is and as it may have been escaped or encoded.

    The encodings are those of URLs, JSON, Python, HTML, base64 (also of a longer text with the
    secret in it) and hexadecimal digits. Secrets of fewer than 6 characters stay: they are none.
    """
    for secret in secrets:
        for form in _forms(secret) if secret else ():
            text = text.replace(form, MASK)
    return text


def mask_urls(text: str, *secrets: str | None) -> str:
    """Mask the secrets, and the passwords of addresses."""
    text = _LOGIN.sub(rf"\g<begin>:{MASK}@", mask(text, *secrets))
    return _PARAMETER.sub(rf"\g<begin>{MASK}", text)


def mask_all(text: str, *secrets: str | None) -> str:
    """Mask the secrets, the passwords of addresses, and whatever else looks like a key."""
    return _LIKE_A_KEY.sub(MASK, mask_urls(text, *secrets))


def passwords(text: str) -> list[str]:
    """Return the passwords of the addresses in a text, for ``mask``, as written and decoded.

    That of a text which is one address is found whatever it consists of.
    """
    whole = _ADDRESS.fullmatch(text)
    found = [whole["password"], unquote(whole["password"])] if whole else []
    found += [match[0][len(match["begin"]) + 1 : -1] for match in _LOGIN.finditer(text)]
    return found + [match[0][len(match["begin"]) :] for match in _PARAMETER.finditer(text)]


def printable(text: str) -> str:
    """Take a terminal's escape sequences out; other characters that can't be shown become U+FFFD.

    Tabs, line ends of all kinds and form feeds stay: they may be part of a script.
    """
    return _UNPRINTABLE.sub("\ufffd", _ESCAPES.sub("", text))


@lru_cache(maxsize=64)
def _forms(secret: str) -> tuple[str, ...]:
    """Return the forms in which a secret may be met, the longest first."""
    if len(secret) < _SHORTEST:
        return ()
    data = secret.encode("utf-8", "surrogatepass")
    forms = {
        secret,
        quote(secret, safe="", errors="replace"),
        quote(secret, errors="replace"),
        quote_plus(secret, errors="replace"),
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret)[1:-1])[1:-1],  # an error within an error
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        repr(data)[2:-1],
        html.escape(secret),
        "".join(f"\\u{ord(character):04x}" for character in secret),
        "".join(f"%{byte:02x}" for byte in data),
        data.hex(),
        *(_base64(data, before) for before in range(3)),
    }
    forms |= {re.sub("%[0-9A-Fa-f]{2}", lambda match: match[0].lower(), form) for form in forms}
    forms |= {form.replace("+", "-").replace("/", "_") for form in forms}  # base64 in addresses
    forms |= {form.replace("/", "\\/") for form in forms}  # as PHP writes JSON
    if len(secret) >= 2 * _SHORTEST:
        forms |= {form.upper() for form in forms} | {form.lower() for form in forms}
    return tuple(sorted((f for f in forms if len(f) >= _SHORTEST), key=len, reverse=True))


def _base64(data: bytes, before: int) -> str:
    """Encode data that so many bytes stand before, without the characters shared with others."""
    encoded = base64.b64encode(bytes(before) + data).decode()
    end = (before + len(data)) // 3 * 4
    return encoded[(0, 2, 3)[before] : end]
