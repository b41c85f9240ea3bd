"""Time that ``optuna-autoresearch import`` takes for 10,000 trials of 14 hyperparameters.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.import_speed

20 runs of 500 trials in a file of each form, imported by the command line in a process of its own,
so that start-up and reading the file count; in brackets the processor's time, which other work on
the machine would not lengthen. The last column is what ``Study.add_trials`` takes for 200 of them,
times 50 (a journal gets its trials by that anyway). Writes ``results/import_speed.md``.
"""

from __future__ import annotations

import json
from pathlib import Path
import random
import resource
import subprocess
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any
import warnings

import optuna

from studies.storage.open import open_storage
from tests.studies.importing.conftest import lines_of
from tests.studies.importing.conftest import nested


METHODS, SEEDS, TRIALS = 4, 5, 500
ONE_BY_ONE = 200
RESULTS = Path(__file__).parent / "results"


def content() -> dict[str, Any]:
    """Methods by seeds by trials, made of the tests' own."""
    rows = [row for seeds in nested(1200).values() for trials in seeds.values() for row in trials]
    rng = random.Random(0)
    return {
        f"method {m}": {
            str(seed): [{**row, "tid": i} for i, row in enumerate(rng.sample(rows, TRIALS))]
            for seed in range(SEEDS)
        }
        for m in range(METHODS)
    }


def seconds_of(*arguments: str) -> str:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "studies", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{time.perf_counter() - start:.1f} ({cpu:.1f})"


def one_by_one(folder: str, source: str) -> str:
    """Seconds of `Study.add_trials` for as many trials as were imported."""
    trials = optuna.load_study(study_name="method 0-seed0", storage=open_storage(source)).trials
    study = optuna.create_study(storage=open_storage(f"sqlite:///{folder}/one-by-one.db"))
    start, cpu = time.perf_counter(), time.process_time()
    study.add_trials(trials[:ONE_BY_ONE])
    factor = METHODS * SEEDS * TRIALS / ONE_BY_ONE
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return f"{wall * factor:.0f} ({cpu * factor:.0f})"


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    lines = [
        f"Seconds for {METHODS * SEEDS * TRIALS:,} trials:",
        "",
        "| storage | form | import | the same again (nothing new) | add_trials |",
        "|---|---|---|---|---|",
    ]
    with TemporaryDirectory() as folder:
        made = content()
        files = {"JSON": f"{folder}/nested.json", "JSON lines": f"{folder}/lines.jsonl"}
        Path(files["JSON"]).write_text(json.dumps(made))
        rows = [{**row, "timestamp": 1.7e9 + i} for i, row in enumerate(lines_of(made))]
        Path(files["JSON lines"]).write_text("\n".join(map(json.dumps, rows)))
        for kind, url in (("SQLite", "sqlite:///{}.db"), ("journal", "journal:{}.log")):
            for form, file in files.items():
                storage = url.format(f"{folder}/{form.split()[-1]}")
                first = seconds_of("import", file, "--storage", storage)
                again = seconds_of("import", file, "--storage", storage)
                slow = one_by_one(folder, storage) if (kind, form) == ("SQLite", "JSON") else ""
                lines.append(f"| {kind} | {form} | {first} | {again} | {slow} |")
                print(lines[-1], flush=True)
    (RESULTS / "import_speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
