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


ROOT = Path(__file__).parents[2]


def they_see_each_others_trials(
    study: Study, module: str, url: str, folder: Path, row_of: Callable[[FrozenTrial], str]
) -> bool:
    """Return whether each process showed its model every trial that had ended before its own began.

    Args:
        study: The study ``shared`` of the database.
        module: Has a function ``work(url, path)``, which does trials of the study and writes to
            ``path`` a text that it sent for each, as JSON by the trial's number.
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

    trials = {str(t.number): t for t in study.trials}
    sees = []
    for own, others in permutations([json.loads(path.read_text()) for path in paths]):
        for number, text in own.items():
            start = trials[number].datetime_start
            for trial in (trials[other] for other in others):
                assert trial.datetime_complete and start
                if trial.datetime_complete < start:
                    sees.append(row_of(trial) in text)
    return bool(sees) and all(sees)
