"""The work of ``report``."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import csv
from dataclasses import asdict
from datetime import date
import hashlib
from importlib.metadata import version
from itertools import compress
import json
import os
from pathlib import Path
import re
from typing import Any
from urllib.parse import quote

import optuna

from studies.commands import options
from studies.commands.as_json import finite
from studies.commands.console import say
from studies.errors import masked
from studies.errors import Misuse
from studies.printable import cell
from studies.printable import printable
from studies.report import tables
from studies.report.best import best_sentences
from studies.report.content import Report
from studies.report.drawing import HeatMap
from studies.report.interactive import draw
from studies.report.interactive import TEMPLATE
from studies.report.page import build_page
from studies.report.page import PLOTS
from studies.report.plots import pictures
from studies.report.runs import Contents
from studies.report.runs import load_contents
from studies.report.runs import Run
from studies.report.statistics import in_words
from studies.report.structures import TITLE
from studies.report.time_to_target import in_one_sentence
from studies.report.tree import code_runs
from studies.storage.open import study_names


_UNNAMED = "(unnamed)"  # a comparison of studies that belong to none
_LONGEST_NAME = 60  # characters, of up to four bytes, of which a file's name may have 255


def comparisons(
    storage: optuna.storages.BaseStorage,
    url: str,
    chosen: str | None,
    studies: Collection[str] | None = None,
) -> dict[str, Contents]:
    """Return the storage's comparisons by name, or only the chosen one, or only of these studies."""
    there = study_names(storage)
    if unknown := [name for name in studies or () if name not in there]:
        raise Misuse(
            f"--study must be one of {', '.join(there) or 'none'}, but got {', '.join(unknown)}."
        )
    problems: list[str] = []
    found = load_contents(storage, problems.append, studies)
    if not found:
        none = f"{masked(url)} must hold a study with a finished trial, but holds none."
        if studies:
            none = (
                f"--study must name a study with a finished trial, but got {', '.join(studies)}."
            )
        raise Misuse("; ".join(problems) or none)
    for problem in problems:
        options.complain(problem)
    if chosen is None:
        return found
    if chosen == _UNNAMED and chosen not in found:
        chosen = ""
    if chosen not in found:
        names = ", ".join(name or _UNNAMED for name in found)
        raise Misuse(f"--comparison must be one of {names}, but got {chosen!r}.")
    return {chosen: found[chosen]}


def until(found: Mapping[str, Contents], seconds: float, trials: float) -> dict[str, Contents]:
    """Return the comparisons without what runs did later; those of which nothing is left are
    unstarted.

    Raises:
        Misuse: If nothing is left of a whole comparison.
    """
    cut = {}
    for name, contents in found.items():
        runs = [run.until(seconds, trials) for run in contents.runs]
        empty = [run.study for run in runs if not run.rows]
        if len(empty) == len(runs):
            raise Misuse(
                "--budget and --trials must leave a finished trial, but leave none of"
                f" {name or _UNNAMED}."
            )
        cut[name] = Contents([run for run in runs if run.rows], [*contents.unstarted, *empty])
    return cut


def references_of(found: Mapping[str, Contents], asked: str | None) -> dict[str, str]:
    """Return the method that the others are compared with, by the comparison's name.

    A comparison without the one that is asked for keeps its default, which is said.

    Raises:
        Misuse: If no comparison has it.
    """
    methods = {name: sorted(tables.by_method(c.runs)) for name, c in found.items()}
    known = sorted(set().union(*methods.values()))
    if asked is not None and asked not in known:
        raise Misuse(f"--reference must be one of {', '.join(known)}, but got {asked!r}.")
    references = {}
    for name, own in methods.items():
        default = "random" if "random" in own else own[0]
        references[name] = asked if asked in own else default
        if asked is not None and asked not in own and len(own) > 1:
            options.complain(f"{name or _UNNAMED} has no {asked}: its reference is {default}")
    return references


def title_of(asked: str | None, comparison: str, runs: Sequence[Run]) -> str:
    """Return the heading of a page."""
    if asked is None and len(runs) == 1:
        return runs[0].study
    if asked is None and len(methods := tables.by_method(runs)) == 1:
        asked = f"{next(iter(methods))} with {len(runs)} seeds"
    heading = asked or "Comparison of methods"
    return f"{heading}: {comparison}" if comparison else heading


def folder_names(comparisons: Iterable[str]) -> dict[str, str]:
    """Return comparisons' names as those of folders, each another one, also where A is a."""
    names: dict[str, str] = {}
    given: set[str] = set()
    for comparison in comparisons:
        name = re.sub(r"[^\w.-]+", "-", comparison).strip(".-")[:_LONGEST_NAME] or "unnamed"
        if name.casefold() in given:
            digest = hashlib.sha256(comparison.encode(errors="replace")).hexdigest()
            name = f"{name}-{digest[:6]}"
        given.add(name.casefold())
        names[comparison] = name
    return names


def made_now() -> str:
    """Say when, with which versions and by which command a report is made."""
    return (
        f"Made on {date.today()} by optuna-autoresearch {version('optuna-autoresearch')} with "
        f"Optuna {optuna.__version__}: {options.this_command()}"
    )


def address(artifacts: Path, folder: Path) -> str:
    """Return the address of the folder of artifacts, as a page in ``folder`` links to it."""
    return quote(Path(os.path.relpath(artifacts, folder)).as_posix())


def write(content: Report, folder: Path, picture_format: str | None) -> dict[str, Any]:
    """Write everything, and return the facts that ``--json`` prints."""
    runs = content.runs
    written = {
        "methods": content.methods,
        "tests": tables.comparison_rows(content.tests),
        "times_to_target": [asdict(row) for row in content.times],
        "runs": content.run_rows,
    }
    drawn = {name: records for name, records in content.series.items() if records}
    (folder / "series").mkdir(parents=True, exist_ok=True)
    for name, rows in {**written, "trials": tables.trial_rows(runs)}.items():
        _write_csv(folder / f"{name}.csv", rows)
    for name, records in drawn.items():
        _write_csv(folder / "series" / f"{name}.csv", records)
    facts: dict[str, Any] = {**written, "notes": content.notes}
    whole = {**facts, "series": drawn}
    (folder / "report.json").write_text(
        json.dumps(finite(whole), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    page = printable(build_page(content))  # which somebody may look at in a terminal
    (folder / "report.html").write_text(page, encoding="utf-8")
    if picture_format is not None:
        from studies.report.static import save  # matplotlib is slow, to import too

        (folder / "pictures").mkdir(exist_ok=True)
        save(pictures(runs, content.plots), folder / "pictures", picture_format)
    return facts


def pin_plots(content: Report, study: optuna.Study, folder: str) -> None:
    """Show the plots on the study's page in optuna-dashboard, of trees the study's own.

    Those of several comparisons are told apart by the names of their folders.
    """
    from optuna_dashboard import save_plotly_graph_object

    prefix = f"report-{folder}" if folder else "report"
    own = [run.study == study.study_name for run in code_runs(content.runs)]
    titles = {**{name: title for name, (_, title, _) in PLOTS.items()}, "structures": TITLE}
    for name, drawings in content.plots.items():
        if name == "structures":
            drawings = list(compress(drawings, own))
        if not drawings or isinstance(drawings[0], HeatMap):
            continue  # a map shows one method of many
        figure = draw(drawings[0]).update_layout(
            template=TEMPLATE, title=titles[name], margin_t=60
        )
        save_plotly_graph_object(study, figure, graph_object_id=f"{prefix}-{name}")


def say_all(content: Report, folder: Path) -> None:
    """Print the findings, the notes and where the report is."""
    if content.winner is not None:
        say(" ".join(best_sentences(content.runs, content.winner)))
    for kind, rows in content.tests.items():
        for sentence in in_words(rows):
            say(sentence if kind == "best" else f"Revalidated: {sentence}")
    if sentence := in_one_sentence(content.times):
        say(sentence)
    for sentence in content.notes:
        say(f"note: {sentence}")
    trials = sum(len(run.rows) for run in content.runs)
    runs = len(content.runs)
    print(f"{runs} run{'s' * (runs != 1)}, {trials} trials: {folder / 'report.html'}")


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a table; of one without rows there is no file, nor one of before."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(cell, rows[0]))
        writer.writerows(map(tables.flat, rows))
