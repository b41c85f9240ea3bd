"""Does Centaur stay sound whatever the model proposes?

Functions with a region in which evaluations fail, models that are scripted, and the same charged
time for all: a success costs 1, a failure a tenth of it. Each model is put beside the same rule
without a model:

======================  ===========================================================================
rule                    Centaur
======================  ===========================================================================
critic                  as it is by default: a model that does badly in its first turns may only
                        choose from a menu then, and the critic chooses between that and steps
trusted                 ``reply="full"``: whatever the model proposes is run
clipped                 ``critic=None``
all                     ``critic=None, learn_from_llm="all"``, the published rule
======================  ===========================================================================

    python -m tests.benchmarks.centaur_soundness

Takes about an hour on two cores; writes the tables of ``results/centaur_soundness.md`` and
``results/centaur_soundness.csv`` anew after each seed, and prints the tables at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
import math
import multiprocessing
import sys
from typing import Any
import warnings

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution

from samplers import ScriptedChat
from samplers._llm.scripted import Request
from samplers._trials.history import is_failure
from samplers._trials.history import ranked
from samplers.centaur import CentaurSampler
from samplers.centaur.state import UnitCube
from studies.random_steps import RandomSteps

from .functions import Function
from .functions import FUNCTIONS
from .keep import keep


BUDGET = 150.0  # successes
LLM_RATIO = 0.3
FAILURE_COST = 0.1
N_OWN = 100  # trials of nobody's turns whose failures are counted: early ones fail more often

# A change of an incumbent: what a model that knows the field tries.
_LOCAL_STEP = 0.05  # standard deviation as a share of a parameter's range
_LOCAL_CATEGORY = 0.2  # probability of another category

MODELS = {
    "a": "half of its proposals fail, the others change the best trial a little",
    "b": "draws at random",
    "c": "changes the best trial a little",
}
NONE = "none"
RULES: dict[str, dict[str, Any]] = {
    "critic": {},
    "trusted": {"reply": "full"},
    "clipped": {"critic": None, "reply": "full"},
    "all": {"critic": None, "reply": "full", "learn_from_llm": "all"},
}


class ScriptedModel(ScriptedChat):
    """A model with a habit instead of a mind. It answers for one study."""

    def __init__(self, habit: str, function: Function, seed: int) -> None:
        super().__init__(self._answer)
        self.study: optuna.Study | None = None
        self._habit = habit
        self._function = function
        self._rng = np.random.default_rng(seed)

    def _answer(self, request: Request) -> Any:
        offered = (request.schema or {}).get("properties", {}).values()
        if offered and all("enum" in values for values in offered):  # a menu leaves it no habit
            steps = RandomSteps()
            return steps.complete(request.messages, schema=request.schema, seed=request.seed)
        return self._propose()

    def _propose(self) -> dict[str, Any]:
        if self._habit == "a" and self._rng.random() < 0.5:
            return next(p for p in self._draws() if self._function.fails(p))
        assert self.study is not None
        best = ranked(self.study)
        if self._habit == "b" or not best:
            return next(self._draws())
        return self._change(best[0].params)

    def _draws(self) -> Iterator[dict[str, Any]]:
        while True:
            yield self._values(self._rng.random, {})

    def _change(self, params: dict[str, Any]) -> dict[str, Any]:
        numerical = UnitCube(_numerical(self._function), with_margin=False)
        x = numerical.points([params])[0]
        moved = iter(np.clip(x + _LOCAL_STEP * self._rng.standard_normal(len(x)), 0, 1))
        kept = {
            name: params[name]
            for name, d in self._function.space.items()
            if isinstance(d, CategoricalDistribution) and self._rng.random() >= _LOCAL_CATEGORY
        }
        return self._values(lambda: next(moved), kept)

    def _values(self, coordinate: Any, kept: dict[str, Any]) -> dict[str, Any]:
        numerical = UnitCube(_numerical(self._function), with_margin=False)
        values = numerical.transform.untransform(np.array([coordinate() for _ in numerical.space]))
        for name, distribution in self._function.space.items():
            if isinstance(distribution, CategoricalDistribution):
                n = len(distribution.choices)
                values[name] = kept.get(name, distribution.choices[self._rng.integers(n)])
        return values


def _numerical(function: Function) -> dict[str, Any]:
    return {n: d for n, d in function.space.items() if not isinstance(d, CategoricalDistribution)}


@dataclass(frozen=True)
class Run:
    """The result of one study.

    Attributes:
        best: Best loss within the budget.
        best_of_70: Best loss within what is left of the budget without the model's share.
        own_failures: Failures among the first ``N_OWN`` trials that were not the model's turns.
        llm_failures: Share of the model's trials that failed.
        trials: Trials within the budget.
    """

    function: str
    method: str
    seed: int
    best: float
    best_of_70: float
    own_failures: int
    llm_failures: float
    trials: int


def run(function_name: str, method: str, seed: int) -> Run:
    """Run one study; ``method`` is ``CmaEsSampler`` or a rule and a model, as ``critic (a)``."""
    function = FUNCTIONS[function_name]
    model = None
    sampler: optuna.samplers.BaseSampler
    if method == "CmaEsSampler":
        sampler = optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    else:
        rule, habit = method.replace("(", "").replace(")", "").split(" ")
        model = ScriptedModel(habit, function, seed)
        sampler = CentaurSampler(
            chat=model,
            llm_ratio=0 if habit == NONE else LLM_RATIO,
            warm_start=0,
            seed=seed,
            **RULES[rule],
        )
    study = optuna.create_study(sampler=sampler)
    if model is not None:
        model.study = study
    spent = [0.0]

    def charge(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        spent.append(spent[-1] + (FAILURE_COST if is_failure(trial) else 1.0))
        if spent[-1] >= BUDGET:
            study.stop()

    study.optimize(function, callbacks=[charge])
    trials = study.get_trials(deepcopy=False)

    def best(budget: float) -> float:
        return min(
            (
                t.values[0]
                for t, s in zip(trials, spent[1:])
                if s <= budget + 1e-9 and not is_failure(t)
            ),
            default=math.inf,
        )

    llm = [t for t in trials if str(t.user_attrs.get("source")).startswith("llm")]
    own = [t for t in trials if t not in llm]
    return Run(
        function_name,
        method,
        seed,
        best(BUDGET),
        best((1 - LLM_RATIO) * BUDGET),
        sum(map(is_failure, own[:N_OWN])),
        float(np.mean([is_failure(t) for t in llm])) if llm else math.nan,
        len(trials),
    )


def _run(arguments: tuple[str, str, int]) -> Run:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return run(*arguments)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of paired ratios and its 95 % bootstrap interval; below 1 ours is better."""
    logs = np.log(np.array(ours) / np.array(theirs))
    draws = np.random.default_rng(0).integers(len(logs), size=(10_000, len(logs)))
    low, high = np.quantile(logs[draws].mean(axis=1), [0.025, 0.975])
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def tables(runs: Sequence[Run]) -> Iterator[str]:
    """The results as Markdown, line by line."""
    of: dict[tuple[str, str], list[Run]] = {}
    for r in runs:
        of.setdefault((r.function, r.method), []).append(r)
    functions = list(dict.fromkeys(r.function for r in runs))
    methods = list(dict.fromkeys(r.method for r in runs))
    n_seeds = len({r.seed for r in runs})
    yield f"{n_seeds} seeds; charged time {BUDGET:g}, a failure costs {FAILURE_COST:g}; the models:"
    yield ", ".join(f"({key}) {text}" for key, text in MODELS.items()) + "."
    yield ""
    yield "Geometric mean of the best loss (lower is better):"
    yield ""
    yield "| function | " + " | ".join(methods) + " | CmaEsSampler, 70 % of the time |"
    yield "|---" * (len(methods) + 2) + "|"
    for f in functions:
        cells = [_geometric_mean([r.best for r in of[f, m]]) for m in methods]
        cells.append(_geometric_mean([r.best_of_70 for r in of[f, "CmaEsSampler"]]))
        yield f"| {f} | " + " | ".join(f"{c:.3g}" for c in cells) + " |"
    yield ""
    yield f"Failures among the first {N_OWN} trials that are not the model's turns (mean):"
    yield ""
    yield "| function | " + " | ".join(methods) + " |"
    yield "|---" * (len(methods) + 1) + "|"
    for f in functions:
        failures = [np.mean([r.own_failures for r in of[f, m]]) for m in methods]
        yield f"| {f} | " + " | ".join(f"{c:.1f}" for c in failures) + " |"
    for habit, text in MODELS.items():
        for against, budget in (
            ("", "best"),
            (" with 70 % of the time, what the model's turns leave it", "best_of_70"),
        ):
            yield ""
            yield (
                f"Model ({habit}), {text}: best loss as a multiple of the same rule's without a"
                f" model{against} [95 % interval]:"
            )
            yield ""
            yield "| function | " + " | ".join(RULES) + " |"
            yield "|---" * (len(RULES) + 1) + "|"
            for f in functions:
                cells_ = [
                    ratio(
                        [r.best for r in of[f, f"{rule} ({habit})"]],
                        [getattr(r, budget) for r in of[f, f"{_alone(rule)} ({NONE})"]],
                    )
                    for rule in RULES
                ]
                yield (
                    f"| {f} | "
                    + " | ".join(f"{a:.2f} [{b:.2f}, {c:.2f}]" for a, b, c in cells_)
                    + " |"
                )


def _alone(rule: str) -> str:
    """The rule that is the same one where there is no model."""
    return "clipped" if RULES[rule].get("critic", "gp") is None else "critic"


def _geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    methods = ["CmaEsSampler", *(f"{rule} ({NONE})" for rule in ("critic", "clipped"))]
    methods += [f"{rule} ({habit})" for rule in RULES for habit in MODELS]
    runs: list[Run] = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for seed in range(options.seeds):
            jobs = [(f, m, seed) for f in FUNCTIONS for m in methods]
            runs += pool.map(_run, jobs, chunksize=1)
            text = "\n".join(tables(runs)) + "\n"
            keep("centaur_soundness", text, runs)
            print(f"seed {seed} is done, {seed + 1} of {options.seeds}", file=sys.stderr)
    print(text)


if __name__ == "__main__":
    main()
