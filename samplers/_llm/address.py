"""Addresses and keys of servers, checked before anything is sent."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from .chat import ChatSettingError
from .masking import mask_all


def checked_url(url: str) -> str:
    """Return a base URL without the slash at its end.

    Raises:
        ChatSettingError: If it can't be one.
    """
    shown = mask_all(url.strip())
    advice = (
        "The base URL of a language model (--llm, OPENAI_BASE_URL, `base_url`) must be like "
        "http://127.0.0.1:8000/v1"
    )
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ChatSettingError(f"{advice}, but got {shown!r}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        hint = "; leave out the quotes" if url[:1] in ("'", '"') else ""
        # Of what is no address nobody knows which part is the password.
        shown = "***" if "@" in url and "://" not in url else shown
        raise ChatSettingError(f"{advice}, with http:// or https://, but got {shown!r}{hint}.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ChatSettingError(
            f"{advice}: no user, password or query; the key is given apart, as OPENAI_API_KEY."
        )
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ChatSettingError(f"{advice}, without spaces, but got {shown!r}.")
    return url.rstrip("/").removesuffix("/chat/completions")


def checked_key(key: str | None, where: str) -> str | None:
    """Return a key without the line end that files have; ``None`` if nothing is left.

    Raises:
        ChatSettingError: If it can't be part of an HTTP header. The message doesn't show it.
    """
    key = (key or "").strip()
    if any(not "!" <= character <= "~" for character in key):
        raise ChatSettingError(
            f"The key of a language model ({where}) must consist of ASCII characters without "
            "spaces, but this one has others; copy it again."
        )
    return key or None


def is_own(address: str) -> bool:
    """Whether to ask a server for more than the OpenAI interface.

    The hosted services have https addresses and nothing more to tell.
    """
    return address.startswith("http://")


def root(address: str) -> str:
    """The address that llama.cpp's and vLLM's own endpoints are below."""
    return address.removesuffix("/v1")


def is_loopback(address: str) -> bool:
    """Whether an address is the machine's own, whichever machine that is."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
