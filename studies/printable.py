"""Text of others, made fit to be printed and to be opened in a spreadsheet; numbers as text."""

from __future__ import annotations

import re
from typing import Any
from typing import TextIO


# Control characters, of which terminals make commands, without tab and line ends (``\n``, and what
# Windows writes); marks that turn the direction of writing, by which a text looks like another one;
# halves of surrogate pairs, which can't be written.
_UNPRINTABLE = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    r"|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# A cell that begins so is a formula to spreadsheets (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    """Return a text with a ``\N{REPLACEMENT CHARACTER}`` for what a terminal wouldn't just show."""
    return _UNPRINTABLE.sub("\ufffd", text)


def cell(text: str) -> str:
    """Return a text as a cell of a CSV file, with an apostrophe before what begins a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def decimals(value: float, sign: str = "") -> str:
    """Return a value to four decimals, and one of which they would say little to four digits."""
    return f"{value:{sign}{'.4g' if 0 < abs(value) < 0.01 else '.4f'}}"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters, which says where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def times(n: int) -> str:
    """Write ``once``, or ``3 times``."""
    return "once" if n == 1 else f"{n} times"


class PrintableStream:
    """A stream of text that shows all that is written to it, and obeys none of it.

    rich writes its own colours past it, to what it finds as ``rich_proxied_file``:
    `studies.commands.console.console` keeps escapes of others out of them.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        self._held = ""  # a carriage return, until what follows says whether it ends a line

    def write(self, text: str) -> int:
        """Write a text as :func:`printable` makes it."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return self.rich_proxied_file.write(printable(text.removesuffix("\r")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)
