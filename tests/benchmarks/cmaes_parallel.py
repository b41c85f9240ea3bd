"""The price of several workers for CMA-ES: trials that it never learns from, and regret.

W workers share a study on a simulated clock; a trial takes a log-normal time (standard deviation
0.5 of its logarithm; a failure a tenth of that), and what it takes does not depend on the sampler.
Every study has the same number of trials. The samplers are CmaEsSampler, CentaurSampler without a
model, and with one that changes the best trial a little (``(c)`` of ``centaur_soundness``).

    python -m tests.benchmarks.cmaes_parallel

Takes some minutes on two cores; prints the tables of ``results/cmaes_parallel.md`` and writes them
and ``results/cmaes_parallel.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import multiprocessing
from typing import Any
import warnings

import cmaes
import numpy as np
import optuna

from samplers._trials.history import is_failure
from samplers.centaur import CentaurSampler

from ..samplers.simulated import work
from .centaur_soundness import ratio
from .centaur_soundness import ScriptedModel
from .functions import Function
from .functions import FUNCTIONS
from .keep import keep


N_TRIALS = 150
WORKERS = (1, 2, 4, 8)
DEVIATION = 0.5  # of the logarithm of a trial's duration

SAMPLERS = {
    "CmaEsSampler": "CmaEsSampler",
    "Centaur, no model": "CentaurSampler(llm_ratio=0)",
    "Centaur, model": "CentaurSampler with a model that changes the best trial a little",
}


def _everywhere(function: Function) -> Function:
    return replace(function, fails=lambda params: False)


# Without failures Centaur without a model and CmaEsSampler differ in what late trials come to alone.
PROBLEMS = {
    "ellipsoid, no failures": _everywhere(FUNCTIONS["ellipsoid"]),
    "rosenbrock, no failures": _everywhere(FUNCTIONS["rosenbrock"]),
    "network": FUNCTIONS["network"],
    "boosting": FUNCTIONS["boosting"],
}


@dataclass(frozen=True)
class Run:
    """The result of one study.

    Attributes:
        best: Best loss.
        wasted: Share of the successful trials, of generations that are closed and whose successors
            are, that the study's last optimizer has not learned in any of its generations.
        generations: Generations that it has learned.
        optimizers: Trials that an optimizer is stored on.
    """

    problem: str
    sampler: str
    workers: int
    seed: int
    best: float
    wasted: float
    generations: int
    optimizers: int


def run(problem: str, sampler: str, workers: int, seed: int) -> Run:
    """Run one study."""
    function = PROBLEMS[problem]
    model = None
    chosen: Any
    if sampler == "CmaEsSampler":
        chosen = optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    elif sampler == "Centaur, no model":
        chosen = CentaurSampler(llm_ratio=0, seed=seed)
    else:
        model = ScriptedModel("c", function, seed)
        chosen = CentaurSampler(chat=model, reply="full", seed=seed)
    study = optuna.create_study(sampler=chosen)
    if model is not None:
        model.study = study
    draws = np.random.default_rng(seed).standard_normal(N_TRIALS)
    work(lambda: study, function, list(np.exp(DEVIATION * draws)), workers)

    successes = [t for t in study.trials if not is_failure(t)]
    carriers = [t for t in study.trials if "cma:optimizer:0" in t.system_attrs]
    optimizer = chosen._restore_optimizer(carriers)
    closed = [
        t.values[0]
        for t in successes
        if t.system_attrs.get("cma:generation", N_TRIALS) < optimizer.generation - 1
    ]
    return Run(
        problem,
        sampler,
        workers,
        seed,
        best=min(t.values[0] for t in successes),
        wasted=float(np.mean([value not in optimizer.learned for value in closed])),
        generations=optimizer.generation,
        optimizers=len(carriers),
    )


def remember_what_is_learned() -> None:
    """Have every ``cmaes.CMA`` keep the values that it was told.

    They are pickled with it, so that an optimizer knows of those that led to it and of no others:
    two workers may each close a generation, and one of the two optimizers leads nowhere.
    """
    tell = cmaes.CMA.tell

    def remember(self: Any, solutions: list[tuple[np.ndarray, float]]) -> None:
        self.learned = getattr(self, "learned", frozenset()) | {value for _, value in solutions}
        tell(self, solutions)

    cmaes.CMA.tell = remember  # type: ignore[method-assign]


def _start_process() -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    remember_what_is_learned()


def _run(arguments: tuple[str, str, int, int]) -> Run:
    return run(*arguments)


def tables(runs: Sequence[Run]) -> Iterator[str]:
    """The results as Markdown, line by line."""
    of: dict[tuple[str, str, int], list[Run]] = {}
    for r in runs:
        of.setdefault((r.problem, r.sampler, r.workers), []).append(r)
    problems = list(dict.fromkeys(r.problem for r in runs))

    def table(cell: Callable[[str, str, int], str], samplers: Sequence[str]) -> Iterator[str]:
        yield ""
        yield "| function | sampler | " + " | ".join(f"W = {w}" for w in WORKERS) + " |"
        yield "|---" * (len(WORKERS) + 2) + "|"
        for problem in problems:
            for sampler in samplers:
                cells = [cell(problem, sampler, w) for w in WORKERS]
                yield f"| {problem} | {sampler} | " + " | ".join(cells) + " |"
        yield ""

    def mean(key: str, form: str) -> Callable[[str, str, int], str]:
        return lambda p, s, w: format(np.mean([getattr(r, key) for r in of[p, s, w]]), form)

    def against(sampler: str | None, workers: int | None) -> Callable[[str, str, int], str]:
        def cell(p: str, s: str, w: int) -> str:
            base = of[p, sampler or s, workers or w]
            value, low, high = ratio([r.best for r in of[p, s, w]], [r.best for r in base])
            return f"{value:.2f} [{low:.2f}, {high:.2f}]"

        return cell

    yield (
        f"{len({r.seed for r in runs})} seeds; {N_TRIALS} trials in every study; W workers on a "
        "simulated clock; the samplers:"
    )
    yield ", ".join(f"{key}: {text}" for key, text in SAMPLERS.items()) + "."
    yield ""
    yield "Successful trials that CMA-ES never learned from (%, mean):"
    yield from table(
        lambda p, s, w: f"{100 * np.mean([r.wasted for r in of[p, s, w]]):.1f}", list(SAMPLERS)
    )
    yield "Generations learned (mean):"
    yield from table(mean("generations", ".1f"), list(SAMPLERS))
    yield "Trials that an optimizer is stored on, about 10 kB each with 13 parameters (mean):"
    yield from table(mean("optimizers", ".1f"), list(SAMPLERS))
    yield "Best loss as a multiple of the same sampler's with one worker [95 % interval]:"
    yield from table(against(None, 1), list(SAMPLERS))
    yield "Best loss as a multiple of CmaEsSampler's with as many workers [95 % interval]:"
    yield from table(against("CmaEsSampler", None), list(SAMPLERS)[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    jobs = [
        (p, s, w, seed)
        for p in PROBLEMS
        for s in SAMPLERS
        for w in WORKERS
        for seed in range(options.seeds)
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes, initializer=_start_process) as pool:
        runs = pool.map(_run, jobs, chunksize=4)
    text = "\n".join(tables(runs)).rstrip("\n") + "\n"
    print(text)
    keep("cmaes_parallel", text, runs)


if __name__ == "__main__":
    main()
