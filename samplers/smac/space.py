"""Optuna search spaces as ConfigSpace spaces, without loss in either direction.

=====================================  ==========================================================
Optuna distribution                    ConfigSpace hyperparameter
=====================================  ==========================================================
float, log or not                      float in [0, 1]: the place of the value, or of its
                                       logarithm, between the bounds
float with a step                      integer 0..n, the number of steps above the lower bound
int                                    integer with the same bounds
int, of more than 62 bits              float in [0, 1], as above, rounded
int, log                               integer with the same bounds, log
int with a step above 1                integer 0..n, the number of steps above the lower bound
categorical                            categorical 0..n-1, the index of the choice
=====================================  ==========================================================

Floats go through the unit interval because ConfigSpace rounds the values of its floats to nine
decimals, which would turn a learning rate of 2e-10 into 0. Choices go through their indices because
Optuna allows any object as a choice, such as ``None`` beside ``"None"``. A distribution with a
single value has nothing to choose and must be left out of the search space.
"""

from __future__ import annotations

import math
from typing import Any
from typing import TYPE_CHECKING

from ConfigSpace import Configuration
from ConfigSpace import ConfigurationSpace
from ConfigSpace.hyperparameters import CategoricalHyperparameter
from ConfigSpace.hyperparameters import Hyperparameter
from ConfigSpace.hyperparameters import UniformFloatHyperparameter
from ConfigSpace.hyperparameters import UniformIntegerHyperparameter
import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution


if TYPE_CHECKING:
    from collections.abc import Mapping

    SearchSpace = Mapping[str, BaseDistribution]

_LARGEST = 2**62  # of an integer of ConfigSpace's


def to_configspace(search_space: SearchSpace) -> ConfigurationSpace:
    """Return a new ConfigSpace space with a hyperparameter for each parameter."""
    configspace = ConfigurationSpace()
    configspace.add([_to_hyperparameter(name, d) for name, d in search_space.items()])
    return configspace


def _to_hyperparameter(name: str, distribution: BaseDistribution) -> Hyperparameter:
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalHyperparameter(name, range(len(distribution.choices)))
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        return UniformFloatHyperparameter(name, 0.0, 1.0)
    if isinstance(distribution, IntDistribution) and _is_large(distribution):
        return UniformFloatHyperparameter(name, 0.0, 1.0)
    if isinstance(distribution, IntDistribution) and distribution.step == 1:
        return UniformIntegerHyperparameter(
            name, distribution.low, distribution.high, log=distribution.log
        )
    return UniformIntegerHyperparameter(name, 0, _n_steps(distribution))


def _is_large(distribution: IntDistribution) -> bool:
    """Return whether ConfigSpace's 64 bits are too few for the integers, or for how many there are."""
    low, high = distribution.low, distribution.high
    return max(-low, high, high - low) > _LARGEST


def _n_steps(distribution: BaseDistribution) -> int:
    """Return how many steps lie between the bounds of a float or int with a step."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    assert distribution.step is not None
    return round((distribution.high - distribution.low) / distribution.step)


def to_configuration(
    configspace: ConfigurationSpace,
    search_space: SearchSpace,
    params: Mapping[str, Any],
    known: dict[bytes, Configuration] | None = None,
) -> Configuration | None:
    """Return the configuration of a trial's parameters.

    Args:
        configspace: What :func:`to_configspace` made of ``search_space``.
        search_space: The distributions to represent the parameters in.
        params: Parameters in Optuna's external representation. Names that ``search_space`` lacks
            are ignored.
        known: Configurations of earlier calls for this ``configspace``, by their vectors. One that
            is there is returned as it is, and others are added.

    Returns:
        The configuration, or :obj:`None` if a parameter is missing or outside of its distribution
        (such as one from a trial whose search space was another one).
    """
    vector = np.empty(len(search_space))
    for name, distribution in search_space.items():
        if name not in params:
            return None
        try:
            internal = distribution.to_internal_repr(params[name])
        except (ValueError, OverflowError):  # It is none of the choices, or not a number.
            return None
        if not distribution._contains(internal):
            return None
        index = configspace.index_of[name]
        vector[index] = _to_unit(configspace[name], distribution, internal)
    told = _Told(configspace, vector=vector)
    return told if known is None else known.setdefault(vector.tobytes(), told)


class _Told(Configuration):
    """A configuration that remembers its text, of which ConfigSpace makes its hash, too.

    SMAC asks for it ten times for every trial that it is told, and to make it takes longer than
    all else that happens to the trial.
    """

    _text: str | None = None

    def __str__(self) -> str:
        if self._text is None:
            self._text = super().__str__()
        return self._text


def _to_unit(
    hyperparameter: Hyperparameter, distribution: BaseDistribution, internal: float
) -> float:
    """Return ConfigSpace's coordinate of a value: in [0, 1], or the index of a choice."""
    if isinstance(distribution, CategoricalDistribution):
        return internal
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if isinstance(hyperparameter, UniformFloatHyperparameter):
        low, high = distribution.low, distribution.high
        if distribution.log:
            low, high, internal = math.log(low), math.log(high), math.log(internal)
        return min(max((internal - low) / (high - low), 0.0), 1.0)
    if isinstance(distribution, FloatDistribution) or distribution.step != 1:
        assert distribution.step is not None
        internal = round((internal - distribution.low) / distribution.step)
    return float(hyperparameter.to_vector(int(internal)))


def from_configuration(configuration: Configuration, search_space: SearchSpace) -> dict[str, Any]:
    """Return the parameters of a configuration in Optuna's external representation.

    Numbers are Python's ``int`` and ``float``, choices are the very objects of the distribution.
    """
    vector = configuration.get_array()
    configspace = configuration.config_space
    return {
        name: _from_unit(configspace[name], distribution, vector[configspace.index_of[name]])
        for name, distribution in search_space.items()
    }


def _from_unit(
    hyperparameter: Hyperparameter, distribution: BaseDistribution, coordinate: float
) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(coordinate)]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = distribution.low, distribution.high
    if isinstance(hyperparameter, UniformFloatHyperparameter):
        if distribution.log:
            value = math.exp(math.log(low) + coordinate * (math.log(high) - math.log(low)))
        else:
            value = low + coordinate * (high - low)
        if isinstance(distribution, IntDistribution):
            value = low + round((int(value) - low) / distribution.step) * distribution.step
            return min(max(value, low), high)
        return float(min(max(value, low), high))
    number = int(hyperparameter.to_value(coordinate))
    if isinstance(distribution, IntDistribution):
        return number if distribution.step == 1 else int(low + number * distribution.step)
    assert distribution.step is not None
    return float(min(low + number * distribution.step, high))


def enumerate_configurations(configspace: ConfigurationSpace, limit: int) -> list[Configuration]:
    """Return every configuration of a finite space, or none if there are more than ``limit``."""
    hyperparameters = list(configspace.values())
    if not math.prod(float(h.size) for h in hyperparameters) <= limit:
        return []
    axes: list[Any] = []
    for h in hyperparameters:
        if isinstance(h, CategoricalHyperparameter):
            axes.append(np.arange(h.size))
        else:
            assert isinstance(h, UniformIntegerHyperparameter)  # A float's size is infinite.
            axes.append(h.to_vector(np.arange(h.lower, h.upper + 1)))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return [Configuration(configspace, vector=vector) for vector in grid.astype(float)]
