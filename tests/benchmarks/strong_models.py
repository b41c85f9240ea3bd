"""Scripted strong models in Centaur: one that knows, one that knows a part, one that is wrong.

    python -m tests.benchmarks.strong_models [SEEDS]

======================  ===========================================================================
model                   what it proposes
======================  ===========================================================================
neighbourhood           points around the optimum, a tenth of each range off (normal)
two of ten              the optimum's values of two parameters, the best trial's of the others with
                        small steps; random ones at the start
wrong                   points around a place that is far from the optimum in each parameter
======================  ===========================================================================

Each is asked with its share of the trials (0.3, from trial 10 on), with and without a warm start of
five, and compared to nobody in its place and to CMA-ES: mean normalized regret of the best so far
after 10, 20 and 50 trials, as on the scoreboard. Takes some ten minutes on an idle core; prints and
writes ``results/strong_models.md`` and ``.csv``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import re
import sys
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from samplers import CentaurSampler
from samplers import ScriptedChat
from samplers._llm.scripted import Request
from studies.scoreboard import suites
from studies.scoreboard.problems import Problem

from .keep import keep


PROBLEMS = ("bbob/f15/10d", "bbob-mixint/f8/10d")
AT = (10, 20, 50)
OFF = 0.1  # standard deviation of what a model knows, as a share of a range


@dataclass(frozen=True)
class Run:
    """One study: normalized regret of the best so far."""

    model: str
    warm_start: int
    problem: str
    seed: int
    after_10: float
    after_20: float
    after_50: float


def moved(value: Any, distribution: BaseDistribution, share: float) -> Any:
    """A value so much of its range further, within its bounds."""
    if isinstance(distribution, CategoricalDistribution):
        return value
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = distribution.low, distribution.high
    new = min(max(value + share * (high - low), low), high)
    return round(new) if isinstance(distribution, IntDistribution) else float(new)


def far(value: Any, distribution: BaseDistribution) -> Any:
    """The end of a parameter's range that is farther from a value, nearly."""
    if isinstance(distribution, CategoricalDistribution):
        return next(c for c in distribution.choices if c != value)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    middle = (distribution.low + distribution.high) / 2
    return moved(value, distribution, 0.5 if value < middle else -0.5)


def anywhere(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """A random value."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return moved(distribution.low, distribution, rng.random())


def model(
    name: str, problem: Problem, study: Callable[[], optuna.Study], seed: int
) -> ScriptedChat:
    """The scripted model of a name; it is large by its name, so that it is taken at its word."""
    rng = np.random.default_rng(seed)
    assert problem.best is not None
    best = dict(problem.best)
    known = list(problem.space)[:2]

    def around(params: dict[str, Any], off: float) -> dict[str, Any]:
        return {n: moved(params[n], d, off * rng.normal()) for n, d in problem.space.items()}

    def one() -> dict[str, Any]:
        if name == "neighbourhood":
            return around(best, OFF)
        if name == "wrong":
            return around({n: far(best[n], d) for n, d in problem.space.items()}, OFF)
        done = [t for t in study().get_trials(deepcopy=False) if t.state.is_finished()]
        if len(done) < 6:
            base = {n: anywhere(d, rng) for n, d in problem.space.items()}
        else:
            base = around(dict(min(done, key=lambda t: t.values[0]).params), 0.05)
        return {**base, **{n: best[n] for n in known}}

    def reply(request: Request) -> Any:
        wanted = re.search(r"Propose (\d+) configurations", request.text)
        return {"configurations": [one() for _ in range(int(wanted[1]))]} if wanted else one()

    return ScriptedChat(reply, model=f"{name}-400b")


def run(name: str, warm_start: int, problem_name: str, seed: int) -> Run:
    problem = suites.problem(problem_name, seed)

    def objective(trial: optuna.Trial) -> float:
        params = {n: trial._suggest(n, d) for n, d in problem.space.items()}
        value = problem.evaluate(params).value
        assert value is not None
        return value

    def sampler() -> optuna.samplers.BaseSampler:
        if name == "CMA-ES":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if name == "nobody":
            return CentaurSampler(llm_ratio=0, seed=seed)
        chat = model(name, problem, lambda: study, seed)
        return CentaurSampler(chat=chat, warm_start=warm_start, seed=seed, n_trials=AT[-1])

    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=AT[-1])
    values = np.minimum.accumulate([t.values[0] for t in study.trials])
    regrets = [(values[n - 1] - problem.optimum) / problem.scale for n in AT]
    return Run(name, warm_start, problem_name, seed, *regrets)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    variants = [("CMA-ES", 0), ("nobody", 0)]
    variants += [(m, k) for m in ("neighbourhood", "two of ten", "wrong") for k in (0, 5)]
    runs: list[Run] = []
    rows = ["| model | warm start | after 10 | after 20 | after 50 |", "|---|---|---|---|---|"]
    for name, warm_start in variants:
        own = [run(name, warm_start, problem, seed) for problem in PROBLEMS for seed in seeds]
        runs += own
        means = [np.mean([getattr(r, f"after_{n}") for r in own]) for n in AT]
        told = warm_start or ("" if name in ("CMA-ES", "nobody") else "none")
        rows.append(f"| {name} | {told} | " + " | ".join(f"{m:.3f}" for m in means) + " |")
        print(rows[-1], flush=True)
    head = f"Mean normalized regret of {len(PROBLEMS)} problems ({', '.join(PROBLEMS)})"
    text = f"# Scripted strong models\n\n{head}, {len(seeds)} seeds.\n\n" + "\n".join(rows) + "\n"
    keep("strong_models", text, runs)


if __name__ == "__main__":
    main()
