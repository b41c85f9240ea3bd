"""``report``: tables, plots and statistics of the studies in a storage."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import asdict
import json
import math
from pathlib import Path
from typing import Annotated
from typing import Any

import typer

from objective import open_storage
from studies import options
from studies.errors import Misuse
from studies.report import tables
from studies.report.page import build_page
from studies.report.runs import load_runs


def report(
    storage: options.Storage = options.DEFAULT_STORAGE,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where report.html and the tables are written.")
    ] = Path("report"),
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="The method to compare with. [default: random, else the first]"
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Comparison of methods",
    as_json: options.Json = False,
) -> None:
    """Write one self-contained page, and CSV of all that it shows, from the stored studies."""
    runs = load_runs(open_storage(storage, must_exist=True))
    if not runs:
        raise Misuse(f"{storage} must hold a study with a finished trial, but holds none.")
    methods = list(tables.by_method(runs))
    if reference is None:
        reference = "random" if "random" in methods else methods[0]
    if reference not in methods:
        raise Misuse(f"--reference must be one of {', '.join(methods)}, but got {reference!r}.")
    rows = tables.method_rows(runs)
    tests = [
        {**asdict(row), "sentence": row.sentence} for row in tables.comparisons(runs, reference)
    ]
    out.mkdir(parents=True, exist_ok=True)
    _write_csv(out / "methods.csv", rows)
    _write_csv(out / "tests.csv", tests)
    _write_csv(out / "trials.csv", tables.trial_rows(runs))
    page = out / "report.html"
    page.write_text(build_page(runs, reference, title), encoding="utf-8")
    if as_json:
        print(json.dumps({"methods": _plain(rows), "tests": _plain(tests)}, indent=2))
    else:
        for test in tests:
            print(test["sentence"])
        print(f"{len(runs)} runs, {sum(row['trials'] for row in rows)} trials: {page}")


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without NaN, which JSON lacks."""
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows
    ]
