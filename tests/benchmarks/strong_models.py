"""Scripted strong models in Centaur: one that knows, one that knows a part, one that is wrong.

    python -m tests.benchmarks.strong_models choose|judge [SEEDS]

======================  ===========================================================================
model                   what it proposes
======================  ===========================================================================
neighbourhood           points around the optimum, a tenth of each range off (normal)
two of ten              the optimum's values of two parameters, the best trial's of the others with
                        small steps; random ones at the start
wrong                   points around a place that is far from the optimum in each parameter
======================  ===========================================================================

Each is asked with its share of the trials (0.3, from trial 10 on). ``choose`` compares the number
of first trials that it is asked for; the default is the one of the least mean over the models and
over 10 and 20 trials. ``judge`` shows on other problems, with other seeds, what that default gives:
with and without a warm start, and with the critic choosing among the model's proposal and steps in
place of trust, beside nobody in the model's place and CMA-ES. Figures are the mean normalized regret
of the best so far, as on the scoreboard. ``judge`` takes some 20 minutes on an idle core; each prints
and writes ``results/strong_models_*.md`` and ``.csv``, anew after each seed.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import astuple
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
from samplers._llm.warm_start import N_FIRST
from studies.scoreboard import suites
from studies.scoreboard.problems import Problem

from .keep import keep


MODELS = ("neighbourhood", "two of ten", "wrong")
CHOOSING = ("bbob/f15/10d", "bbob-mixint/f8/10d", "hpobench/phoneme")
JUDGING = ("bbob/f8/10d", "bbob-mixint/f15/10d", "hpolib/protein_structure")
JUDGING_FROM = 10  # the first seed
FIRST = (0, 1, 2, 3, 5)
OFF = 0.1  # standard deviation of what a model knows, as a share of a range


@dataclass(frozen=True)
class Variant:
    """What proposes: a model of ``MODELS``, "nobody" in its place, or "CMA-ES" alone.

    Attributes:
        model: Its name.
        warm_start: First trials that are the model's.
        trust: Whether its proposals are run as they are; else the critic chooses.
    """

    model: str
    warm_start: int = 0
    trust: bool = True


@dataclass(frozen=True)
class Run:
    """One study: normalized regret of the best so far."""

    model: str
    warm_start: int
    trust: bool
    problem: str
    seed: int
    after_10: float
    after_20: float
    after_50: float | None


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


def run(variant: Variant, problem_name: str, seed: int, trials: int = 50) -> Run:
    problem = suites.problem(problem_name, seed)

    def objective(trial: optuna.Trial) -> float:
        params = {n: trial._suggest(n, d) for n, d in problem.space.items()}
        value = problem.evaluate(params).value
        assert value is not None
        return value

    def sampler() -> optuna.samplers.BaseSampler:
        if variant.model == "CMA-ES":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if variant.model == "nobody":
            return CentaurSampler(llm_ratio=0, seed=seed)
        return CentaurSampler(
            chat=model(variant.model, problem, lambda: study, seed),
            warm_start=variant.warm_start,
            reply="full" if variant.trust else "changes",
            seed=seed,
            n_trials=trials,
        )

    study = optuna.create_study(sampler=sampler())
    study.optimize(objective, n_trials=trials)
    values = np.minimum.accumulate([t.values[0] for t in study.trials])
    regrets = [float((value - problem.optimum) / problem.scale) for value in values]
    last = regrets[49] if trials >= 50 else None
    told = variant.model, variant.warm_start, variant.trust
    return Run(*told, problem_name, seed, regrets[9], regrets[19], last)


def report(name: str, runs: Sequence[Run], variants: Sequence[Variant]) -> None:
    """Write the means of the seeds that are done."""
    problems = list(dict.fromkeys(r.problem for r in runs))
    seeds = sorted({r.seed for r in runs})
    columns = ["after_10", "after_20", "after_50"]
    columns = [c for c in columns if getattr(runs[0], c) is not None]
    head = " | ".join(c.replace("_", " ") for c in columns)
    rows = [f"| model | warm start | trust | {head} |", "|---" * (3 + len(columns)) + "|"]
    for variant in variants:
        own = [r for r in runs if (r.model, r.warm_start, r.trust) == astuple(variant)]
        means = [f"{np.mean([getattr(r, c) for r in own]):.3f}" for c in columns]
        asked = variant.model in MODELS
        told = [str(variant.warm_start), "yes" if variant.trust else "no"] if asked else ["", ""]
        rows.append(f"| {' | '.join([variant.model, *told, *means])} |")
    said = f"{len(problems)} problems ({', '.join(problems)}), seeds {seeds[0]} to {seeds[-1]}"
    text = f"# Scripted strong models\n\nMean normalized regret of {said}.\n\n"
    keep(name, text + "\n".join(rows) + "\n", runs)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    choosing = sys.argv[1] == "choose"
    variants = [Variant(m, k) for m in MODELS for k in FIRST]
    if not choosing:
        variants = [Variant("CMA-ES"), Variant("nobody")]
        for name in MODELS:
            variants += [Variant(name), Variant(name, N_FIRST), Variant(name, trust=False)]
    first = 0 if choosing else JUDGING_FROM
    runs: list[Run] = []
    for seed in range(first, first + (int(sys.argv[2]) if len(sys.argv) > 2 else 10)):
        for problem in CHOOSING if choosing else JUDGING:
            runs += [run(v, problem, seed, 20 if choosing else 50) for v in variants]
        report(f"strong_models_{sys.argv[1]}", runs, variants)


if __name__ == "__main__":
    main()
