"""Which parameters a configuration will have."""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from samplers._critic.shapes import Shapes
from samplers._critic.space import Space


DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(0, 1),
    "batch": IntDistribution(1, 9),
    "kind": CategoricalDistribution(("linear", "tree")),
    "n_layers": IntDistribution(1, 3),
    "solver": CategoricalDistribution(("a", "b")),
    "momentum": FloatDistribution(0, 1),
    "depth": IntDistribution(1, 20),
    **{f"units_{i}": FloatDistribution(0, 1) for i in range(3)},
}
SPACE = Space(DISTRIBUTIONS)


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """Linear ones have a solver, of which one has momentum; trees a depth; all some layers."""
    params: dict[str, Any] = {
        "lr": rng.random(),
        "batch": int(rng.integers(1, 10)),
        "kind": str(rng.choice(["linear", "tree"])),
        "n_layers": int(rng.integers(1, 4)),
    }
    if params["kind"] == "linear":
        params["solver"] = str(rng.choice(["a", "b"]))
        if params["solver"] == "b":
            params["momentum"] = rng.random()
    else:
        params["depth"] = int(rng.integers(1, 21))
    return {**params, **{f"units_{i}": rng.random() for i in range(params["n_layers"])}}


def shaped(n: int, changed: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    run = SPACE.rows([draw(rng) for _ in range(n)])
    fitted = Shapes(run, SPACE.is_discrete).fit(SPACE.rows([changed]))
    return SPACE.configurations(fitted)[0]


@pytest.mark.parametrize("n", [40, 150])
def test_a_changed_condition_brings_and_takes_parameters(n: int) -> None:
    linear = {"lr": 0.5, "batch": 3, "n_layers": 1, "solver": "b", "momentum": 0.5, "units_0": 0.5}

    tree = shaped(n, {**linear, "kind": "tree"})

    assert tree.keys() == {"lr", "batch", "kind", "n_layers", "depth", "units_0"}
    assert tree["lr"] == 0.5 and tree["batch"] == 3 and tree["units_0"] == 0.5


def test_a_number_may_be_the_condition() -> None:
    tree = {"lr": 0.5, "batch": 3, "kind": "tree", "depth": 4, "units_0": 0.5}

    assert shaped(100, {**tree, "n_layers": 3}).keys() >= {"units_0", "units_1", "units_2"}
    assert "units_1" not in shaped(100, {**tree, "n_layers": 1})


def test_a_condition_may_depend_on_another() -> None:
    linear = {"lr": 0.5, "batch": 3, "kind": "linear", "n_layers": 1, "units_0": 0.5}

    assert "momentum" in shaped(150, {**linear, "solver": "b"})
    assert "momentum" not in shaped(150, {**linear, "solver": "a", "momentum": 0.2})


def test_where_all_have_the_same_nothing_changes() -> None:
    rows = np.random.default_rng(0).random((4, 3))
    shapes = Shapes(rows, np.array([True, False, True]))

    assert not shapes.vary
    assert shapes.fit(rows[:2]).tolist() == rows[:2].tolist()
    assert not Shapes(np.zeros((0, 3)), np.zeros(3, dtype=bool)).vary
