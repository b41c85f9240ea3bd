"""``report``: tables, plots and statistics of the studies in a storage."""

from __future__ import annotations

from enum import Enum
import math
from pathlib import Path
from typing import Annotated

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import Misuse


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
            help="Where report.html, the tables, the series and pictures are written.",
        ),
    ] = Path("report"),
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="The method to compare with. [default: random, else the first]"
        ),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            metavar="NAME",
            help="Only this one, with its repetitions; may be repeated. [default: all]",
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
        int | None,
        typer.Option(metavar="N", min=1, help="Leave out what runs did after this many trials."),
    ] = None,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    pictures: Annotated[
        PictureFormat | None,
        typer.Option(help="Also draw every plot as a picture of this format, for a paper."),
    ] = None,
    pin: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Also show the comparison's plots on this study's page in optuna-dashboard.",
        ),
    ] = None,
    artifacts: options.Artifacts = None,
    title: Annotated[
        str | None,
        typer.Option(
            help="Heading of the page. [default: the study's name, or Comparison of methods]"
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write one self-contained page, and CSV of all that it shows.

    From the storage alone: studies with a method and a seed are its runs, and their repetitions
    by `revalidate` belong to them. Studies made with Optuna alone have a report each, and so has
    each metric.
    """
    import optuna

    from studies.best import find_winner
    from studies.commands.work import report as work
    from studies.report import tables
    from studies.report.best import best_run
    from studies.report.content import Report
    from studies.report.transcripts import load_transcripts
    from studies.spec import Where
    from studies.storage.open import opened
    from studies.storage.open import study_names

    with opened(storage, must_exist=True, read_only=pin is None) as there:
        there = optuna.storages.get_storage(there)  # which reads a study once, and keeps it
        found = work.comparisons(there, storage, comparison, study)
        if pin is not None and pin not in study_names(there):
            raise Misuse(f"--pin must be a study of {storage}, but there is none of name {pin!r}.")
        where = Where(storage, artifacts)
        # All are checked before the first is written.
        found = work.until(found, budget or math.inf, trials or math.inf)
        references = work.references_of(found, reference)
        # A report makes no folder.
        store = where.open_artifacts() if where.folder.is_dir() else None
        results = {}
        folders = work.folder_names(found)
        for name, contents in found.items():
            runs = contents.runs
            folder = out / folders[name] if len(found) > 1 else out
            best = None if budget or trials else best_run(runs)
            content = Report(
                runs,
                references[name],
                work.title_of(title, name, runs),
                contents.unstarted,
                tables.Prices(price_in, price_out),
                load_transcripts(runs, there, store) if store else (),
                None
                if best is None
                else find_winner(optuna.load_study(study_name=best.study, storage=there), there),
                work.made_now(),
                work.address(where.folder, folder) if store else "",
            )
            results[name] = work.write(content, folder, pictures and pictures.value)
            if pin is not None:
                pinned = optuna.load_study(study_name=pin, storage=there)
                work.pin_plots(content, pinned, folders[name] if name else "")
            if not as_json:
                work.say_all(content, folder)
    if as_json:
        several = len(results) > 1
        print_json(results if several else next(iter(results.values())))
