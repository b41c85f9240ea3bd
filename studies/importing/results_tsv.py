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
import re
from typing import Any

from objective.testbed.interface import shown
from objective.testbed.metric import METRIC
from studies.errors import Misuse
from studies.printable import printable


METHOD = "autoresearch"

_COLUMNS = ("commit", "memory_gb", "status", "description")  # and the metric's
_MB = 1024  # in a gigabyte, as the file counts them


def is_results(text: str) -> bool:
    """Return whether a text begins with the header of a results.tsv."""
    header = _cells(text[:1000].partition("\n")[0])
    return header[:1] == ["commit"] and "status" in header and len(header) >= len(_COLUMNS)


def metric_of(text: str) -> str:
    """Return the name of the metric in the header of a results.tsv.

    Raises:
        Misuse: If it is not clear which column that is.
    """
    return printable(_metric_of(_cells(text.partition("\n")[0])))


def _metric_of(header: list[str]) -> str:
    names = [name for name in header if name]
    others = [name for name in names if name not in _COLUMNS]
    if len(set(names)) < len(names) or not (len(others) == 1 or METRIC.name in others):
        raise Misuse(
            f"a results.tsv must have one column beside {', '.join(_COLUMNS)}, the metric, and none"
            f" twice, but has {shown(printable(', '.join(names)))}"
        )
    return METRIC.name if METRIC.name in others else others[0]


def read_results(text: str, skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the experiments in the terms of JSON lines (`studies.importing.foreign`)."""
    first, *lines = text.split("\n")
    header = _cells(first)
    metric = _metric_of(header)
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        cells = _cells(line)
        if len(cells) < len(header):
            skipped["a line with fewer columns than the header (cut off, perhaps)"] += 1
            continue
        row = dict(zip(header, cells))
        value, status = _number(row[metric]), row["status"].lower()
        # No bits per byte are 0, which is what the file has of a crash; of an error it may be.
        failed = status == "crash" or (value == 0 and metric == METRIC.name)
        if value is None and not failed:
            skipped["a value that is no number"] += 1
            continue
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
        return None if "_" in text else float(text)  # Python reads 1_0 as 10
    except ValueError:
        return None
