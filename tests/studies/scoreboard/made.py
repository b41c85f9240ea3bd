"""Results and problems made up for tests."""

from __future__ import annotations

from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from studies.scoreboard.problems import Outcome
from studies.scoreboard.problems import Problem
from studies.scoreboard.runs import Result


def result(
    problem: str = "bbob/f1/2d",
    sampler: str = "random",
    seed: int = 0,
    curve: tuple[tuple[int, float], ...] = ((1, 4.0), (3, 2.0)),
    **more: Any,
) -> Result:
    values: dict[str, Any] = {
        "asks": "",
        "trials": 10,
        "failed": 0,
        "infeasible": 0,
        "optimum": 0.0,
        "scale": 8.0,
        "seconds": 1.0,
        "cpu_seconds": 0.5,
    }
    return Result(problem=problem, sampler=sampler, seed=seed, curve=curve, **{**values, **more})


def bowl() -> Problem:
    """Least at x = 1, n = 2, kind = b."""

    def evaluate(params: Any) -> Outcome:
        value = (params["x"] - 1) ** 2 + abs(params["n"] - 2) + (params["kind"] != "b")
        return Outcome(value)

    return Problem(
        {
            "x": FloatDistribution(-5, 5),
            "n": IntDistribution(1, 100, log=True),
            "kind": CategoricalDistribution(["a", "b", "c"]),
        },
        evaluate,
        optimum=0.0,
        best={"x": 1.0, "n": 2, "kind": "b"},
        task="A bowl.",
    )
