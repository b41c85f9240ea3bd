"""Two processes that work on one study at once, and what each let its language model see."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
import json
import multiprocessing
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState


def finished(study: Study) -> list[int]:
    """Return the numbers of the trials that the storage has a value of."""
    return [t.number for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]


def check_they_see_each_others_trials(
    study: Study,
    work: Callable[[str, str], None],
    url: str,
    folder: Path,
    row_of: Callable[[FrozenTrial], str],
) -> None:
    """Check that each process shows its model every trial that the storage has when its own begins.

    Args:
        study: The study ``shared`` of the database.
        work: Given ``url`` and a path, does trials of the study and writes to the path JSON of
            each by its number: the numbers of those that had `finished` before, and a text that it
            sent.
        url: Of the database.
        folder: For the files.
        row_of: What is shown of a trial.
    """
    paths = [folder / f"{i}.json" for i in range(2)]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(url, str(path))) for path in paths]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]

    trials = {t.number: t for t in study.trials}
    n_seen = 0
    for own, others in permutations([json.loads(path.read_text()) for path in paths]):
        for numbers, text in own.values():
            for number in numbers:
                if str(number) in others:
                    assert row_of(trials[number]) in text, f"{trials[number]} is not in {text}"
                    n_seen += 1
    assert n_seen > 0
