"""A regular expression for the JSON that follows a schema, for engines that take no schema.

Stricter than a schema can be: one space at most between two parts, and numbers of few digits, for a
small model that begins with line breaks or digits may not stop before its reply is cut off.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping
    from collections.abc import Sequence

_COMMA = ", ?"
_DIGITS = 9  # of a number without bounds
_CHARACTERS = 300  # of a string without a greatest length: a reason of a sentence or two
_DECIMALS = r"(\.[0-9]{1,6})?"
_EXPONENT = "(e-[0-9]{1,2})?"


def schema_regex(schema: Mapping[str, Any]) -> str:
    """Regular expression of the JSON that follows a schema.

    Of JSON schema it knows what this package's own schemas use: ``anyOf``, ``enum`` and ``const``;
    truth values; integers and numbers, whose bounds hold to the digit before the point; strings, in ASCII;
    arrays of a fixed length; and objects, of whose properties, in their order, the first are required
    (all, some or none), and of the others any may come, but at least one.

    Raises:
        ValueError: If the schema is beyond that.
    """
    kind = schema.get("type")
    if "anyOf" in schema:
        return _either(schema_regex(branch) for branch in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        return _either(re.escape(json.dumps(value)) for value in values)
    if kind == "boolean":
        return "(?:true|false)"
    if kind in ("integer", "number"):
        low = schema.get("minimum", -(10**_DIGITS) + 1)
        high = schema.get("maximum", 10**_DIGITS - 1)
        if kind == "integer":
            return integer_regex(low, high)
        # Of -0.5 it is -0.
        return f"{_whole_part(low, high, least=0)}{_DECIMALS}{_EXPONENT}"
    if kind == "string":
        return rf'"[ !#-\[\]-~]{{0,{schema.get("maxLength", _CHARACTERS)}}}"'
    if kind == "array":
        return rf"\[{_COMMA.join(schema_regex(item) for item in _items(schema))}\]"
    if kind == "object" and schema.get("properties"):
        names = list(schema["properties"])
        pairs = [
            f"{re.escape(json.dumps(name))}: ?{schema_regex(value)}"
            for name, value in schema["properties"].items()
        ]
        n = len(schema.get("required", ()))
        if names[:n] == [*schema.get("required", ())]:
            parts = pairs[:n] + ([_any_of(pairs[n:])] if pairs[n:] else [])
            return rf"\{{{_COMMA.join(parts)}\}}"
    raise ValueError(f"A schema must be of those that `schema_regex` knows, but got {schema}.")


def integer_regex(low: int, high: int) -> str:
    """Regular expression of the integers from ``low`` to ``high``, both included."""
    return _whole_part(low, high, least=1)


def _whole_part(low: float, high: float, least: int) -> str:
    """The sign and the digits before the point; after a minus at least ``least``."""
    parts = []
    if low < 0:
        magnitudes = _lengths(math.floor(max(least, -high)), math.floor(-low))
        parts += [f"-{part}" for part in magnitudes]
    if high >= 0:
        parts += _lengths(math.floor(max(0, low)), math.floor(high))
    return _either(parts)


def _lengths(low: int, high: int) -> list[str]:
    """Return a pattern for each number of digits."""
    return [
        _digits(str(max(low, 10 ** (n - 1) if n > 1 else 0)), str(min(high, 10**n - 1)))
        for n in range(len(str(low)), len(str(high)) + 1)
    ]


def _digits(low: str, high: str) -> str:
    """Return patterns of the numbers from one to another one of the same length."""
    n = len(low)
    if not n:
        return ""
    if low == "0" * n and high == "9" * n:
        return "[0-9]" if n == 1 else f"[0-9]{{{n}}}"
    first, last = int(low[0]), int(high[0])
    if first == last:
        return low[0] + _digits(low[1:], high[1:])
    parts = []
    if low[1:] != "0" * (n - 1):
        parts.append(low[0] + _digits(low[1:], "9" * (n - 1)))
        first += 1
    end = None
    if high[1:] != "9" * (n - 1):
        end = high[0] + _digits("0" * (n - 1), high[1:])
        last -= 1
    if first <= last:
        lead = str(first) if first == last else f"[{first}-{last}]"
        parts.append(lead + _digits("0" * (n - 1), "9" * (n - 1)))
    return _either([*parts, end] if end is not None else parts)


def _items(schema: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if "prefixItems" in schema:
        items: Sequence[Mapping[str, Any]] = schema["prefixItems"]
        return items
    if "items" in schema and schema.get("minItems") == schema.get("maxItems") is not None:
        return [schema["items"]] * schema["minItems"]
    raise ValueError(f"An array must have a fixed length, not {schema}.")


def _any_of(pairs: Sequence[str]) -> str:
    """Return a pattern of one of the pairs and any of those after it."""
    return _either(
        first + "".join(f"({_COMMA}{later})?" for later in pairs[i + 1 :])
        for i, first in enumerate(pairs)
    )


def _either(alternatives: Iterable[str]) -> str:
    parts = list(alternatives)
    if not parts:
        raise ValueError("A schema must leave something to reply.")
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"
