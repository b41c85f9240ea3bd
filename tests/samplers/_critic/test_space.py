"""Configurations as rows: every value survives the way there and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from samplers._critic.space import Space


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(-5, 5), [-5.0, 0.25, 5.0]),
        (FloatDistribution(1e-5, 1, log=True), [1e-5, 3e-3, 1.0]),
        (FloatDistribution(0, 0.7, step=0.1), [0.0, 0.3, 0.7]),
        (FloatDistribution(-1e308, 1e308), [-1e308, 0.0, 1e308]),
        (IntDistribution(1, 9), [1, 4, 9]),
        (IntDistribution(0, 12, step=3), [0, 6, 12]),
        (IntDistribution(1, 1000, log=True), [1, 30, 1000]),
        (CategoricalDistribution(("a", None, 1, True, 1.5)), ["a", None, 1.5]),
    ],
)
def test_values_come_back(distribution: BaseDistribution, values: list[Any]) -> None:
    space = Space({"x": distribution})

    configurations = space.configurations(space.rows([{"x": v} for v in values]))

    for configuration, value in zip(configurations, values):
        assert type(configuration["x"]) is type(value)
        assert configuration["x"] == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(0.1, 0.3),
        FloatDistribution(1e-7, 0.3, log=True),
        FloatDistribution(0.1, 0.7, step=0.2),
        IntDistribution(-3, 11, step=7),
        IntDistribution(3, 700, log=True),
        CategoricalDistribution((1, 2, 3)),
    ],
)
def test_every_row_is_a_value_of_the_distribution(distribution: BaseDistribution) -> None:
    space = Space({"x": distribution})
    n_choices = space.n_choices[0]
    rows = np.arange(n_choices) if n_choices else np.linspace(0, 1, 101)

    for configuration in space.configurations(rows[:, None].astype(float)):
        assert distribution._contains(distribution.to_internal_repr(configuration["x"]))


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(2**53 - 5, 2**53 + 3),
        IntDistribution(0, 2**63 - 1),
        IntDistribution(0, 2**64 - 1),
        IntDistribution(1, 2**62 + 1, log=True),
        IntDistribution(3, 2**60 + 7, step=5),
    ],
)
def test_an_integer_that_is_no_float_is_one_of_the_range(distribution: IntDistribution) -> None:
    rows = np.linspace(0, 1, 23)[:, None]

    values = [c["x"] for c in Space({"x": distribution}).configurations(rows)]

    assert (values[0], values[-1]) == (distribution.low, distribution.high)
    low, high, step = distribution.low, distribution.high, distribution.step
    assert all(low <= value <= high and (value - low) % step == 0 for value in values)


def test_what_a_configuration_lacks_is_no_value() -> None:
    space = Space({"x": FloatDistribution(0, 1), "y": IntDistribution(1, 3)})

    rows = space.rows([{"x": 0.5}, {"y": 2}])

    assert np.isnan(rows).tolist() == [[False, True], [True, False]]
    assert space.configurations(rows) == [{"x": 0.5}, {"y": 2}]


def test_a_parameter_of_a_single_value_has_no_column() -> None:
    space = Space({"x": FloatDistribution(0, 1), "one": IntDistribution(3, 3)})

    assert space.names == ["x"]


def test_a_parameter_of_few_values_may_be_a_condition() -> None:
    space = Space(
        {
            "few": IntDistribution(1, 32),
            "many": IntDistribution(1, 33),
            "few, log": IntDistribution(1, 32, log=True),
            "many, log": IntDistribution(1, 33, log=True),
            "steps": FloatDistribution(0, 1, step=0.1),
            "choice": CategoricalDistribution(range(40)),
            "x": FloatDistribution(0, 1),
        }
    )

    assert space.is_discrete.tolist() == [True, False, True, False, True, True, False]


def test_values_outside_the_range_are_held_near_it() -> None:
    space = Space({"x": FloatDistribution(1e-3, 1, log=True), "k": IntDistribution(1, 4)})

    rows = space.rows([{"x": 0.0, "k": 4096}, {"x": math.inf, "k": math.nan}])

    assert rows.tolist() == [[-1.0, 2.0], [2.0, 0.5]]


def test_what_is_no_number_counts_as_an_unknown_one() -> None:
    space = Space({"x": FloatDistribution(1e-3, 1, log=True)})

    rows = space.rows([{"x": odd} for odd in ("abc", None, [1, 2], 10**400, 1.0)])

    assert rows[:, 0].tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]


def test_a_range_in_logarithms_is_one_of_logarithms() -> None:
    space = Space({"x": FloatDistribution(1e-4, 1, log=True)})

    assert space.rows([{"x": 1e-2}]) == pytest.approx(np.array([[0.5]]))
