"""The prompts and replies that a page shows: some of each run's, cut to a size that opens.

They are what a language model wrote, so data and never markup: the page sets them as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore

from studies.report.runs import Row
from studies.report.runs import Run
from studies.report.tables import by_method
from studies.storage.open import read_artifact


PER_RUN = 12
MOST_CHARACTERS = 12_000  # of one transcript
MOST_IN_ALL = 4_000_000

_BEGINNING = 0.6  # of a cut transcript; the rest is its end, where the reply is


def load_transcripts(
    runs: Sequence[Run], storage: optuna.storages.BaseStorage, artifacts: FileSystemArtifactStore
) -> list[dict[str, Any]]:
    """Load prompts and replies of some trials of each run: ``run`` (index), ``trial``, ``text``.

    Improvements first, then trials evenly spread over the run; the best run of each method first,
    until the page has `MOST_IN_ALL` characters.
    """
    found: list[dict[str, Any]] = []
    total = 0
    for run in _by_rank(runs):
        chosen = _chosen(run)
        if not chosen:
            continue
        study = optuna.load_study(study_name=run.study, storage=storage)
        # At once, and kept by the study's own storage.
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        for row in chosen:
            text = read_artifact(study, trials[row.number], artifacts, "llm-")
            if text is None:
                continue
            text = shorten(text)
            total += len(text)
            if total > MOST_IN_ALL:
                return found
            found.append({"run": runs.index(run), "trial": row.number, "text": text})
    return found


def asked(run: Run) -> list[Row]:
    """Return the trials in which the language model was asked."""
    return [row for row in run.rows if "llm_attempts" in row.attrs]


def shorten(text: str, most: int = MOST_CHARACTERS) -> str:
    """Cut the middle of a text longer than ``most`` characters, and say so in its place."""
    if len(text) <= most:
        return text
    head = int(most * _BEGINNING)
    cut = len(text) - most
    return f"{text[:head]}\n\n[... {cut:,} characters left out ...]\n\n{text[head + cut :]}"


def _by_rank(runs: Sequence[Run]) -> list[Run]:
    """Order runs: the best of each method, then the second of each, ..."""
    ranked = []
    for group in by_method(runs).values():
        ordered = sorted(group, key=lambda run: (math.isnan(run.best), run.metric.cost(run.best)))
        ranked += list(enumerate(ordered))
    return [run for _, run in sorted(ranked, key=lambda item: item[0])]


def _chosen(run: Run) -> list[Row]:
    rows = asked(run)
    improving = {row.number for row in run.incumbents}
    first = [row for row in rows if row.number in improving][-PER_RUN:]
    others = [row for row in rows if row not in first]
    left = PER_RUN - len(first)
    spread = others[:: math.ceil(len(others) / left)] if left and others else []
    return sorted([*first, *spread], key=lambda row: row.number)


def counts(runs: Sequence[Run], transcripts: Sequence[Mapping[str, Any]]) -> str:
    """Say how many of all the turns have a transcript here."""
    total = sum(len(asked(run)) for run in runs)
    return f"{len(transcripts)} of {total} trials that asked a language model"
