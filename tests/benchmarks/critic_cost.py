"""Seconds of the processor that a suggestion of CentaurSampler takes with 0 to 10,000 stored trials.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.critic_cost

The embedded testbed's surrogate, 14 parameters, SQLite (10,000: memory), no language model. Stored
trials are random points; a fifth of them failed. The first table is of processes: all that one takes
that imports the sampler, opens the study and asks for its first trial, which reads the stored ones
and fits from nothing. The second is of the suggestions after the first.
"""

from __future__ import annotations

from pathlib import Path
import resource
import statistics
import subprocess
import sys
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
STARTED = (0, 300, 1000)
STARTS = 3
CENTAUR = "from samplers import CentaurSampler as Sampler; options = {'llm_ratio': 0}"
CMA_ES = "from optuna.samplers import CmaEsSampler as Sampler; options = {}"
# Of the parameters only their number matters, as no trial has told the sampler what they are.
START = """
import sys
import optuna
{imports}
optuna.logging.set_verbosity(optuna.logging.ERROR)
sampler = Sampler(seed=0, warn_independent_sampling=False, **options)
study = optuna.load_study(study_name="cost", storage=sys.argv[1], sampler=sampler)
trials = study.get_trials(deepcopy=False)
unit = {{f"x{{i}}": optuna.distributions.FloatDistribution(0, 1) for i in range(14)}}
study.ask(trials[0].distributions if trials else unit)
"""
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


def start_seconds(url: str, imports: str) -> float:
    """Median of the processor's seconds that a process takes until its first trial is asked for."""
    taken = []
    for _ in range(STARTS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", START.format(imports=imports), url], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)


def starts() -> list[str]:
    lines = [
        "| stored trials | `CentaurSampler(llm_ratio=0)`, s | `CmaEsSampler`, s | ratio |",
        "|---|---|---|---|",
    ]
    for n in STARTED:
        with TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'cost.db'}"
            study = optuna.create_study(study_name="cost", storage=url)
            if n:
                store(study, n)
            centaur, cma_es = start_seconds(url, CENTAUR), start_seconds(url, CMA_ES)
        lines.append(f"| {n} | {centaur:.2f} | {cma_es:.2f} | {centaur / cma_es:.2f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lines = [
        *starts(),
        "",
        "| stored trials | sampler | median, s | longest, s |",
        "|---|---|---|---|",
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
                _, *others = seconds(storage, sampler)
            lines.append(f"| {n} | {name} | {statistics.median(others):.3f} | {max(others):.2f} |")
            print(lines[-1], flush=True)
    keep("critic_cost", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
