"""Limits on tables within tables, which files of others may have in any number."""

from __future__ import annotations

import sys
from typing import Any


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEEPEST = 50
_MOST_DOTS = 1000


def read_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds, see `shallow`.

    Raises:
        ValueError: If it is none, or has a line of more than `_MOST_DOTS` dots: a dotted key takes
            tomllib the square of its length.
    """
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"it has a line of more than {_MOST_DOTS} dots")
    tables: dict[str, Any] = shallow(tomllib.loads(text))
    return tables


def shallow(data: Any) -> Any:
    """Return what was read of a file.

    Raises:
        ValueError: If it has lists or tables within others, more than `DEEPEST` deep. Whatever goes
            through it by recursion, such as ``repr``, would fail.
    """
    level = [data]
    for _ in range(DEEPEST):
        tables = [v for v in level if isinstance(v, (dict, list))]
        level = [item for v in tables for item in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return data
    raise ValueError(f"it has tables or lists within others, more than {DEEPEST} deep")
