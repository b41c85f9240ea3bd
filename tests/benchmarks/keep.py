"""The files in which benchmarks leave their measurements."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import astuple
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RESULTS = Path(__file__).parent / "results"


def keep(name: str, text: str, runs: Sequence[DataclassInstance] = ()) -> None:
    """Write the tables of a benchmark to ``name.md`` and its runs, if any, to ``name.csv``.

    Args:
        name: The benchmark's.
        text: Markdown.
        runs: All of a class; a column a field, numbers with six digits.
    """
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    if not runs:
        return
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(runs[0]))
        writer.writerows(
            [f"{v:.6g}" if isinstance(v, float) else v for v in astuple(run)] for run in runs
        )
