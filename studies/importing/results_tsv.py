"""``results.tsv`` of karpathy/autoresearch: a line an experiment, by whoever edited ``train.py``.

::

    commit	val_bpb	memory_gb	status	description
    a1b2c3d	0.997900	44.0	keep	baseline
    b2c3d4e	1.005000	44.0	discard	switch to GeLU activation
    c3d4e5f	0.000000	0.0	crash	double model width (OOM)

The file says neither which values the constants had nor how long a training took, so that its
trials have no parameters and are charged nothing. They are one study, ``autoresearch-seed0``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import math
import re
from typing import Any

from studies.printable import printable


METHOD = "autoresearch"

_COLUMNS = ("commit", "memory_gb", "status", "description")  # and the metric's
_MB = 1024  # in a gigabyte, as the file counts them


def is_results(text: str) -> bool:
    """Return whether a text begins with the header of a results.tsv."""
    header = _cells(text[:1000].partition("\n")[0])
    return header[:1] == ["commit"] and "status" in header and len(header) >= len(_COLUMNS)


def metric_of(text: str) -> str:
    """Return the name of the metric in the header of a results.tsv."""
    return printable(_cells(text.partition("\n")[0])[1])


def read_results(text: str, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the experiments in the terms of JSON lines (`studies.importing.foreign`)."""
    first, *lines = text.split("\n")
    header = _cells(first)
    metric = header[1]
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        cells = _cells(line)
        if len(cells) < len(header):
            skipped["a line with fewer columns than the header (cut off, perhaps)"] += 1
            continue
        row = dict(zip(header, cells))
        value, status = _number(row[metric]), row["status"].lower()
        failed = status == "crash" or not value
        about = row.get("description", "")
        memory = _number(row.get("memory_gb", ""))
        yield {
            "backend": METHOD,
            "seed": 0,
            "trial_id": number,
            "config": {},
            "val_bpb": None if failed else value,
            "success": not failed,
            "source": "enqueued" if re.match(r"baseline\b", about, re.IGNORECASE) else "",
            "error": about if failed else None,
            "attributes": {
                "commit": row["commit"],
                "decision": status,
                "description": about,
                "peak_memory_mb": memory * _MB if memory else None,
            },
        }


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("\t")]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
