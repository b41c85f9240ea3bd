"""What a regression sees of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from samplers._critic.encoding import Encoder
from samplers._critic.space import Space


def test_two_choices_are_equally_far_from_each_other() -> None:
    space = Space({"c": CategoricalDistribution(("a", "b", "c"))})
    configurations = [{"c": choice} for choice in "abc"]

    X = Encoder(space, configurations).inputs(configurations)

    distances = [np.linalg.norm(X[i] - X[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert distances == pytest.approx([math.sqrt(0.5)] * 3)


def test_the_rule_makes_configurations_equal() -> None:
    space = Space({"batch": IntDistribution(1, 64, log=True)})
    configurations = [{"batch": 30}, {"batch": 33}, {"batch": 60}]

    def rule(params: Mapping[str, Any]) -> dict[str, Any]:
        return {"batch": 2 ** round(math.log2(params["batch"]))}

    X = Encoder(space, configurations, rule=rule).inputs(configurations)

    assert X[0] == X[1] != X[2]


def test_what_is_lacking_is_told_from_the_middle_of_the_range() -> None:
    space = Space({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
    configurations = [{"x": 0.2, "y": 0.5}, {"x": 0.2}]

    X = Encoder(space, configurations).inputs(configurations)

    assert np.linalg.norm(X[0] - X[1]) >= 0.5


def test_parameters_that_come_and_go_together_share_a_column() -> None:
    space = Space({name: FloatDistribution(0, 1) for name in "xyz"})
    configurations = [{"x": 0.2, "y": 0.5, "z": 0.1}, {"x": 0.2}]

    assert Encoder(space, configurations).inputs(configurations).shape == (2, 4)


def test_derived_values_are_made_of_what_is_run_and_scaled() -> None:
    space = Space({"depth": IntDistribution(1, 10), "width": IntDistribution(1, 100)})
    configurations = [{"depth": 1, "width": 1}, {"depth": 10, "width": 100}]

    def rule(params: Mapping[str, Any]) -> dict[str, Any]:
        return {"width": params["width"] * 10}

    def derived(params: Mapping[str, Any]) -> dict[str, float]:
        return {"size": params["depth"] * params["width"]}

    X = Encoder(space, configurations, rule=rule, derived=derived).inputs(
        [*configurations, {"depth": 10, "width": 1}, {"depth": 1, "width": 10}]
    )

    # Logarithms, since the largest is 1,000 times the least.
    assert X[:, 2] == pytest.approx([0, 1, 1 / 3, 1 / 3])


@pytest.mark.parametrize("values", [[16, 32, 64, 128, 256, 512], [1, 4, 7, 10, 13, 16]])
def test_derived_widths_are_apart_by_their_ratio_and_numbers_of_layers_by_their_difference(
    values: list[int],
) -> None:
    space = Space({"i": IntDistribution(0, 5)})
    configurations = [{"i": i} for i in range(6)]

    X = Encoder(space, configurations, derived=lambda p: {"y": values[p["i"]]}).inputs(
        configurations
    )

    assert np.diff(X[:, 1]) == pytest.approx([0.2] * 5)


def test_a_derived_value_far_beyond_those_that_were_run_is_held_near_them() -> None:
    space = Space({"x": FloatDistribution(0, 1)})
    encoder = Encoder(space, [{"x": 0.4}, {"x": 0.5}], derived=lambda p: {"y": p["x"]})

    X = encoder.inputs([{"x": 0.0}, {"x": 0.55}, {"x": 1.0}])

    assert X[:, 1] == pytest.approx([-0.5, 1.5, 1.5])


def test_a_derived_value_that_is_not_finite_is_in_the_middle() -> None:
    space = Space({"x": FloatDistribution(0, 1)})
    configurations = [{"x": 0.0}, {"x": 0.5}, {"x": 1.0}]

    def derived(params: Mapping[str, Any]) -> dict[str, float]:
        return {"inverse": 1 / params["x"] if params["x"] else math.nan}

    X = Encoder(space, configurations, derived=derived).inputs(configurations)

    assert X[:, 1].tolist() == [0.5, 1.0, 0.0]


def test_without_configurations_there_are_inputs_nevertheless() -> None:
    space = Space({"x": FloatDistribution(0, 1)})

    assert Encoder(space, [], derived=lambda p: {"y": 1.0}).inputs([{"x": 0.5}]).shape == (1, 1)
