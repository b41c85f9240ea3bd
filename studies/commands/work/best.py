"""The work of ``best``, and what ``run`` says of the winner in the end."""

from __future__ import annotations

import os
from pathlib import Path
import tempfile
from typing import Any

import optuna
from rich.text import Text

from objective.best import values_run
from studies.best import sentences
from studies.best import Winner
from studies.code_agent.files import split
from studies.commands import options
from studies.commands.tables import cell
from studies.errors import Misuse
from studies.repetitions import SUFFIX
from studies.rows import Rows
from studies.storage.open import study_names


def choose(storage: optuna.storages.BaseStorage, url: str, name: str | None) -> str:
    """Return this name if there is such a study, or that of the only one.

    Raises:
        Misuse: If there is none, or there are several.
    """
    names = [n for n in study_names(storage) if not n.endswith(SUFFIX)]
    if not names:
        raise Misuse(f"there is no study in {url} yet")
    if name not in names and (name is not None or len(names) > 1):
        got = "" if name is None else f", but got {name!r}"
        raise Misuse(f"--study must be one of {', '.join(sorted(names))}{got}")
    return name or names[0]


def write(path: Path, text: str) -> None:
    """Write a script; of several files each into a folder of that path.

    Raises:
        Misuse: If that would replace a file: the study needs its own script as it was tuned. Then
            nothing was written.
    """
    news = split(text)
    if len(news) > 1 and path.exists() and not path.is_dir():
        raise Misuse(f"--write must name a folder, for {', '.join(news)}, but {path} is a file")
    files = {path / name: new for name, new in news.items()} if len(news) > 1 else {path: text}
    for file, new in files.items():
        if file.is_dir() or (file.exists() and file.read_bytes() != new.encode()):
            raise Misuse(
                f"--write must name a new file, but {file} is there and differs: name another"
            )
    for file, new in files.items():
        if file.exists():  # and is the same, perhaps where nothing may be written
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=file.parent, delete=False) as half:
            half.write(new.encode())
        os.chmod(half.name, 0o644)
        os.replace(half.name, file)  # a file is written whole or not at all


def table_of(winner: Winner) -> Rows:
    """Show the best configuration, beside the baseline if there is one."""
    baseline = winner.baseline
    heads = ("best",) if baseline is None else ("baseline", "best")
    table = Rows("", *heads)
    olds = None if baseline is None else values_run(baseline)

    def add(name: str, old: Any, new: Any, changed: bool, end: bool = False) -> None:
        cells = [] if olds is None else [cell(old)]
        style = "bold" if changed else ""
        table.add_row(name, *cells, Text(cell(new), style=style), end_section=end)

    add("trial", baseline and baseline.number, winner.trial.number, False)
    value = baseline and baseline.values[0]
    add(winner.metric.name, value, winner.trial.values[0], True, end=True)
    for name, new in values_run(winner.trial).items():
        old = None if olds is None else olds.get(name)
        add(name, old, new, olds is not None and old != new)
    return table


def lines_of(winner: Winner, storage: str, artifacts: Path | None = None) -> list[str]:
    """Say how sure the winner is, what it gains, and where other values are stored."""
    study, number = winner.study, winner.trial.number
    again = options.command("revalidate", storage, artifacts, "--study", study.study_name)
    lines = list(sentences(winner, again))
    if trainings := sum(r.trainings for r in winner.repeated.values()):
        seconds = sum(r.seconds for r in winner.repeated.values())
        lines.append(f"repetitions: {trainings}, {seconds:.1f} s charged")
    if winner.by_value.number != number:
        other = winner.repeated[winner.by_value.number]
        came = f"it came to {cell(other.mean)}" if other.values else "it failed"
        if other.values and other.failed:  # which may be why it isn't the best
            came += f" and failed in {other.failed} of {other.trainings}"
        lines.append(
            f"trial {winner.by_value.number} had the best value, {cell(winner.by_value.values[0])};"
            f" when it was trained again, {came}"
        )
    if trained := study.user_attrs.get("train_seconds"):
        lines.append(
            f"each training took {cell(float(trained))} s: with another TIME_BUDGET the script comes to"
            f" another {winner.metric.name}"
        )
    if winner.command:
        lines.append(f"to run it: {winner.command}")
    run = values_run(winner.trial)
    for parameter, value in winner.stored.items():
        lines.append(
            f"{parameter}: {cell(run[parameter])} was run where {cell(value)} is stored"
            " (the testbed's rule)"
        )
    return lines
