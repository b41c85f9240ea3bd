"""``report``: tables, plots and statistics of the studies in a storage."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from enum import Enum
import json
import math
from pathlib import Path
import re
from typing import Annotated
from typing import Any

import optuna
import typer

from studies.commands import options
from studies.errors import Misuse
from studies.report import series
from studies.report import tables
from studies.report.notes import notes
from studies.report.page import build_page
from studies.report.page import Report
from studies.report.runs import Contents
from studies.report.runs import load_contents
from studies.report.runs import Run
from studies.report.statistics import in_words
from studies.report.transcripts import load_transcripts
from studies.storage.open import artifact_folder
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage


class PictureFormat(str, Enum):
    svg = "svg"
    pdf = "pdf"
    png = "png"


def report(
    storage: options.Storage = options.DEFAULT_STORAGE,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where report.html, the tables, the series and the pictures are written.",
        ),
    ] = Path("report"),
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="The method to compare with. [default: random, else the first]"
        ),
    ] = None,
    comparison: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only this one of the storage's comparisons. [default: each, in a folder of its "
            "own if there are several]",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="TIME",
            parser=options.parse_duration,
            help="Leave out what runs did after this training time, such as 30m.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Leave out what runs did after this many trials.")
    ] = None,
    price_in: Annotated[
        float | None, typer.Option(min=0, help="Price of a million prompt tokens, for the cost.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(min=0, help="Price of a million completion tokens.")
    ] = None,
    pictures: Annotated[
        PictureFormat, typer.Option(help="Format of the static pictures.")
    ] = PictureFormat.svg,
    pin: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Also show the comparison's plots on this study's page in optuna-dashboard.",
        ),
    ] = None,
    artifacts: options.Artifacts = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Comparison of methods",
    as_json: options.Json = False,
) -> None:
    """Write one self-contained page, pictures, and CSV of all that they show.

    From the storage alone: studies with a method and a seed are its runs, and their repetitions
    by `revalidate` belong to them.
    """
    opened = open_storage(storage, must_exist=True)
    found = _comparisons(opened, storage, comparison)
    if pin is not None and pin not in optuna.get_all_study_names(opened):
        raise Misuse(f"--pin must be a study of {storage}, but there is none of name {pin!r}.")
    store = open_artifacts(storage, artifacts) if _has_artifacts(storage, artifacts) else None
    results = {}
    for name, contents in found.items():
        runs = [run.until(budget or math.inf, trials or math.inf) for run in contents.runs]
        empty = [run.study for run in runs if not run.rows]
        runs = [run for run in runs if run.rows]
        if not runs:
            raise Misuse("--budget and --trials must leave a finished trial, but leave none.")
        content = Report(
            runs,
            _reference(runs, reference),
            f"{title}: {name}" if name else title,
            [*contents.unstarted, *empty],
            tables.Prices(price_in, price_out),
            load_transcripts(runs, opened, store) if store else (),
        )
        folder = out / _folder_name(name) if len(found) > 1 else out
        results[name] = _write(content, folder, pictures.value)
        if pin is not None:
            _pin(runs, optuna.load_study(study_name=pin, storage=opened), name)
        if not as_json:
            _say(content, folder)
    if as_json:
        several = len(results) > 1
        print(json.dumps(results if several else next(iter(results.values())), indent=2))


def _comparisons(
    storage: optuna.storages.BaseStorage, url: str, chosen: str | None
) -> dict[str, Contents]:
    found = {name: c for name, c in load_contents(storage).items() if c.runs}
    if not found:
        raise Misuse(f"{url} must hold a study with a finished trial, but holds none.")
    if chosen is None:
        return found
    if chosen not in found:
        names = ", ".join(name or "(unnamed)" for name in found)
        raise Misuse(f"--comparison must be one of {names}, but got {chosen!r}.")
    return {chosen: found[chosen]}


def _has_artifacts(storage: str, folder: Path | None) -> bool:
    return (folder or artifact_folder(storage)).is_dir()


def _reference(runs: Sequence[Run], asked: str | None) -> str:
    methods = sorted(tables.by_method(runs))
    if asked is None:
        return "random" if "random" in methods else methods[0]
    if asked not in methods:
        raise Misuse(f"--reference must be one of {', '.join(methods)}, but got {asked!r}.")
    return asked


def _folder_name(comparison: str) -> str:
    return re.sub(r"[^\w.-]+", "-", comparison).strip(".-") or "unnamed"


def _write(content: Report, folder: Path, picture_format: str) -> dict[str, Any]:
    """Write everything; the facts that ``--json`` prints."""
    from studies.report.pictures import write_pictures  # matplotlib is slow to import

    runs = content.runs
    written = {
        "methods": tables.method_rows(runs, content.prices),
        "tests": tables.comparison_rows(runs, content.reference),
        "runs": tables.run_rows(runs),
    }
    drawn = {
        "time": series.best_so_far(runs, "seconds"),
        "trials": series.best_so_far(runs, "trials"),
        "final": series.final_values(runs),
        "failures": series.failures(runs),
        "failure-map": series.failure_map(runs),
        "sources": series.sources(runs),
        "ratios": series.ratios(runs),
        "models": series.models(runs),
        "llm": series.language_model(runs),
    }
    drawn = {name: records for name, records in drawn.items() if records}
    for part in (folder, folder / "series", folder / "pictures"):
        part.mkdir(parents=True, exist_ok=True)
    for name, rows in {**written, "trials": tables.trial_rows(runs)}.items():
        _write_csv(folder / f"{name}.csv", rows)
    for name, records in drawn.items():
        _write_csv(folder / "series" / f"{name}.csv", records)
    facts: dict[str, Any] = {name: _plain(rows) for name, rows in written.items()}
    facts["notes"] = notes(runs, content.reference, content.unstarted)
    whole = {**facts, "series": {name: _plain(records) for name, records in drawn.items()}}
    (folder / "report.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    write_pictures(runs, folder / "pictures", picture_format)
    (folder / "report.html").write_text(build_page(content), encoding="utf-8")
    return facts


def _pin(runs: Sequence[Run], study: optuna.Study, comparison: str) -> None:
    from optuna_dashboard import save_plotly_graph_object

    from studies.report.plots import comparison_plots
    from studies.report.plots import TITLES

    prefix = f"report-{_folder_name(comparison)}" if comparison else "report"
    for name, figure in comparison_plots(runs).items():
        figure.update_layout(title=TITLES[name], margin_t=60)
        save_plotly_graph_object(study, figure, graph_object_id=f"{prefix}-{name}")


def _say(content: Report, folder: Path) -> None:
    for kind, rows in tables.all_comparisons(content.runs, content.reference).items():
        for sentence in in_words(rows):
            print(sentence if kind == "best" else f"Revalidated: {sentence}")
    for sentence in notes(content.runs, content.reference, content.unstarted):
        print(f"note: {sentence}")
    trials = sum(len(run.rows) for run in content.runs)
    print(f"{len(content.runs)} runs, {trials} trials: {folder / 'report.html'}")


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(map(tables.flat, rows))


def _plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without NaN, which JSON lacks."""
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows
    ]
