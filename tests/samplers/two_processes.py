"""Two processes that work on one study at once, and what each let its language model see."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
import json
from pathlib import Path
import subprocess
import sys

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState


ROOT = Path(__file__).parents[2]


def finished(study: Study) -> list[int]:
    """Return the numbers of the trials that the storage has a value of."""
    return [t.number for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]


def check_they_see_each_others_trials(
    study: Study, module: str, url: str, folder: Path, row_of: Callable[[FrozenTrial], str]
) -> None:
    """Check that each process shows its model every trial that the storage has when its own begins.

    Args:
        study: The study ``shared`` of the database.
        module: Has a function ``work(url, path)``, which does trials of the study and writes to
            ``path`` JSON of each by its number: the numbers of those that had `finished` before,
            and a text that it sent.
        url: Of the database.
        folder: For the files.
        row_of: What is shown of a trial.
    """
    paths = [folder / f"{i}.json" for i in range(2)]
    code = f"import sys; from {module} import work; work(*sys.argv[1:])"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, url, str(path)], cwd=ROOT) for path in paths
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0]

    trials = {t.number: t for t in study.trials}
    n_seen = 0
    for own, others in permutations([json.loads(path.read_text()) for path in paths]):
        for numbers, text in own.values():
            for number in numbers:
                if str(number) in others:
                    assert row_of(trials[number]) in text, f"{trials[number]} is not in {text}"
                    n_seen += 1
    assert n_seen > 0
