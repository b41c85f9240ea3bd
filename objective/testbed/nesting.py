"""A limit on tables within tables, which files of others may have in any number."""

from __future__ import annotations

from typing import Any


DEEPEST = 50


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
