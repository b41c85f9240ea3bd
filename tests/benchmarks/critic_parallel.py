"""The price of several workers for CentaurSampler without a language model, at equal trials.

W trials run at a time: the oldest one ends and is told, then the next one is asked for, so that a
suggestion knows of W - 1 trials only that they run. What a method gains is how much lower its
normalized regret is than that of random search after as many trials; the loss is the share of one
worker's gain that W workers don't have.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.critic_parallel --seeds 6

Prints the tables of ``results/critic_parallel.md`` and writes them and ``results/critic_parallel.csv``.
"""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import dataclass
import warnings

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.trial import Trial
from optuna.trial import TrialState

from samplers.centaur import CentaurSampler
from studies.scoreboard.problems import normalize
from studies.scoreboard.suites import problem

from .keep import keep


# Those that options were chosen on.
PROBLEMS = (
    "bbob/f15/10d",
    "bbob-mixint/f8/10d",
    "bbob/f8/10d+oom",
    "hpobench/phoneme",
    "surrogate",
)
FIRST_SEED = 100
TRIALS = (50, 100)
WORKERS = (1, 8)


@dataclass(frozen=True)
class Run:
    """A run's normalized regret after ``trials`` trials; ``workers`` is 0 for random search."""

    problem: str
    seed: int
    workers: int
    trials: int
    regret: float
    repeated: int


def runs(name: str, seed: int, workers: int) -> list[Run]:
    made = problem(name, seed)
    sampler: BaseSampler = (
        CentaurSampler(llm_ratio=0, seed=seed) if workers else RandomSampler(seed=seed)
    )
    study = optuna.create_study(sampler=sampler)
    running: deque[Trial] = deque()
    best, told, found = np.inf, 0, []
    while told < max(TRIALS):
        while len(running) < max(workers, 1) and told + len(running) < max(TRIALS):
            running.append(study.ask(dict(made.space)))
        trial = running.popleft()
        outcome = made.evaluate(trial.params)
        if outcome.status != "ok":
            trial.set_user_attr("status", outcome.status)
        if outcome.value is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, outcome.value)
        if outcome.counts and outcome.value is not None:
            best = min(best, outcome.value)
        told += 1
        if told in TRIALS:
            configurations = {str(t.params) for t in study.trials if t.state.is_finished()}
            regret = normalize(best - made.optimum, 0.0, made.scale)
            found.append(Run(name, seed, workers, told, regret, told - len(configurations)))
    return found


def tables(all_runs: list[Run]) -> str:
    lines = []
    n_seeds = len({run.seed for run in all_runs})
    for n in TRIALS:
        lines += [
            f"Mean normalized regret after {n} trials, {n_seeds} seeds:",
            "",
            "| problem | random | W = 1 | W = 8 | loss of the gain |",
            "|---|---|---|---|---|",
        ]
        means = {
            (name, w): float(
                np.mean(
                    [
                        r.regret
                        for r in all_runs
                        if (r.problem, r.workers, r.trials) == (name, w, n)
                    ]
                )
            )
            for name in PROBLEMS
            for w in (0, *WORKERS)
        }
        rows = {name: [means[name, w] for w in (0, *WORKERS)] for name in PROBLEMS}
        rows["mean"] = list(np.mean(list(rows.values()), axis=0))
        for name, (random, one, eight) in rows.items():
            loss = (eight - one) / (random - one)
            lines.append(f"| {name} | {random:.4f} | {one:.4f} | {eight:.4f} | {loss:.1%} |")
        lines.append("")
    repeated = [run.repeated for run in all_runs if run.workers == max(WORKERS)]
    lines.append(f"Configurations that {max(WORKERS)} workers ran twice: {sum(repeated)}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    found = [
        run
        for name in PROBLEMS
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds)
        for workers in (0, *WORKERS)
        for run in runs(name, seed, workers)
    ]
    text = tables(found)
    print(text)
    keep("critic_parallel", text, found)


if __name__ == "__main__":
    main()
