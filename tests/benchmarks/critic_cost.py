"""Seconds of the processor that a suggestion of CentaurSampler takes with 300, 1,000 and 10,000 stored trials.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.critic_cost

The embedded testbed's surrogate, 14 parameters, SQLite (10,000: memory), no language model. Stored trials are random
points; a fifth of them failed. Then trials are asked for and told, and asking is timed: the first one
of the process apart, since it reads all stored trials and fits from nothing.
"""

from __future__ import annotations

from pathlib import Path
import statistics
from tempfile import TemporaryDirectory
import time

import numpy as np
import optuna
from optuna.samplers import CmaEsSampler
from optuna.trial import create_trial
from optuna.trial import TrialState

from samplers.centaur import CentaurSampler
from studies.scoreboard.suites import problem
from tests.benchmarks.keep import keep


STORED = (300, 1000, 10_000)
ASKED = 25
# Writing more takes many minutes; they are in memory.
MOST_IN_SQLITE = 1000


def store(study: optuna.Study, n: int) -> None:
    made = problem("surrogate", 0)
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(n):
        random = optuna.samplers.RandomSampler(seed=int(rng.integers(2**31)))
        params = {
            name: random.sample_independent(study, None, name, d)  # type: ignore[arg-type]
            for name, d in made.space.items()
        }
        outcome = made.evaluate(params)
        failed = outcome.status != "ok" or rng.random() < 0.2
        trials.append(
            create_trial(
                state=TrialState.FAIL if failed else TrialState.COMPLETE,
                value=None if failed else outcome.value,
                params=params,
                distributions=dict(made.space),
            )
        )
    study.add_trials(trials)


def seconds(
    storage: str | optuna.storages.BaseStorage, sampler: optuna.samplers.BaseSampler
) -> list[float]:
    made = problem("surrogate", 0)
    study = optuna.load_study(study_name="cost", storage=storage, sampler=sampler)
    taken = []
    for _ in range(ASKED):
        start = time.process_time()
        trial = study.ask(dict(made.space))
        taken.append(time.process_time() - start)
        outcome = made.evaluate(trial.params)
        if outcome.status != "ok":
            trial.set_user_attr("status", outcome.status)
        assert outcome.value is not None
        study.tell(trial, outcome.value)
    return taken


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lines = [
        "| stored trials | sampler | first, s | median of the others, s | longest of them, s |",
        "|---|---|---|---|---|",
    ]
    for n in STORED:
        for name, sampler in (
            ("`CentaurSampler(llm_ratio=0)`", CentaurSampler(llm_ratio=0, seed=0)),
            (
                "`CmaEsSampler`",
                CmaEsSampler(seed=0, warn_independent_sampling=False),
            ),
        ):
            with TemporaryDirectory() as folder:
                storage: str | optuna.storages.BaseStorage = (
                    f"sqlite:///{Path(folder) / 'cost.db'}"
                    if n <= MOST_IN_SQLITE
                    else optuna.storages.InMemoryStorage()
                )
                store(optuna.create_study(study_name="cost", storage=storage), n)
                first, *others = seconds(storage, sampler)
            lines.append(
                f"| {n} | {name} | {first:.2f} | {statistics.median(others):.3f} | "
                f"{max(others):.2f} |"
            )
            print(lines[-1], flush=True)
    keep("critic_cost", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
