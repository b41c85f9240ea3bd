"""SMAC's local and random search for the highest acquisition value, on whole arrays.

It does what ``smac.acquisition.maximizer.LocalAndSortedRandomSearch`` does: the best of many random
configurations, and the evaluated ones that the model predicts the lowest costs for, are improved
step by step, one parameter at a time. SMAC's own walks through ConfigSpace objects, which takes
most of the time of a suggestion, and collects its start points in a set of strings, whose order is
another one in every process. Here a step looks at all neighbours of all points at once and moves
each point to its best neighbour, where SMAC moves to the first better one.

Notation, as the vectors of ConfigSpace's configurations: a configuration is a row; floats and ints
are in [0, 1], categories are indices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ConfigSpace import Configuration
from ConfigSpace.hyperparameters import CategoricalHyperparameter
from ConfigSpace.hyperparameters import UniformFloatHyperparameter
from ConfigSpace.hyperparameters import UniformIntegerHyperparameter
import numpy as np
from scipy.special import ndtr
from scipy.special import ndtri

from smac.acquisition.maximizer import AbstractAcquisitionMaximizer


if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

# SMAC's settings: start points of either kind, neighbours per number, the standard deviation of a
# neighbour's distance with how often it is halved and how far, and steps without improvement.
_N_STARTS = 10
_N_NEIGHBOURS = 8
_STDEV = 0.05
_STDEV_MIN = 0.005
_HALVE_EVERY = 3
_N_PLATEAU_STEPS = 10


class VectorizedLocalSearch(AbstractAcquisitionMaximizer):
    """Local search from the best random and the best evaluated configurations."""

    def _maximize(
        self, previous_configs: list[Configuration], n_points: int
    ) -> list[tuple[float, Configuration]]:
        """Return the points found with their acquisition values, the highest first.

        Args:
            previous_configs: The evaluated and running configurations.
            n_points: How many random configurations to draw.
        """
        assert self._acquisition_function is not None
        hyperparameters = list(self._configspace.values())
        drawn = np.column_stack(
            [h.sample_vector(n_points, seed=self._rng) for h in hyperparameters]
        )
        best_drawn = drawn[np.argsort(-self._values(drawn), kind="stable")[:_N_STARTS]]
        starts = best_drawn
        if previous_configs:
            model = self._acquisition_function.model
            assert model is not None
            previous = np.array([c.get_array() for c in previous_configs])
            costs = model.predict_marginalized(previous)[0][:, 0]
            starts = np.vstack([starts, previous[np.argsort(costs, kind="stable")[:_N_STARTS]]])
        # The random ones are returned as they were, too: for when the search leads only to
        # configurations that were evaluated before.
        found = np.vstack([self._climb(starts, hyperparameters), best_drawn])
        values = self._values(found)
        order = np.lexsort((self._rng.random(len(found)), -values))  # Ties in random order.
        return [
            (float(values[i]), Configuration(self._configspace, vector=found[i])) for i in order
        ]

    def _values(
        self,
        points: np.ndarray,  # (n_points, n_parameters)
    ) -> np.ndarray:  # acquisition values, (n_points,)
        assert self._acquisition_function is not None
        return np.nan_to_num(self._acquisition_function._compute(points)[:, 0], nan=-np.inf)

    def _climb(
        self,
        starts: np.ndarray,  # (n_starts, n_parameters)
        hyperparameters: list[Hyperparameter],
    ) -> np.ndarray:  # (n_starts, n_parameters)
        points = starts.copy()
        values = self._values(points)
        n_failures = np.zeros(len(points), dtype=int)
        while (active := np.flatnonzero(n_failures < _N_PLATEAU_STEPS)).size:
            stdevs = np.maximum(_STDEV * 0.5 ** (n_failures[active] // _HALVE_EVERY), _STDEV_MIN)
            # (n_active, n_neighbours, n_parameters), in random order to break ties.
            neighbours = neighbourhood(points[active], stdevs, hyperparameters, self._rng)
            n_neighbours = neighbours.shape[1]
            neighbours = neighbours[:, self._rng.permutation(n_neighbours)]
            flat = neighbours.reshape(-1, neighbours.shape[2])
            neighbour_values = self._values(flat).reshape(-1, n_neighbours)
            best = neighbour_values.argmax(axis=1)
            best_values = neighbour_values[np.arange(len(active)), best]
            n_failures[active] += best_values <= values[active]
            # An equally good neighbour is taken as well: a forest is constant over whole boxes.
            moves = best_values >= values[active]
            points[active[moves]] = neighbours[moves, best[moves]]
            values[active[moves]] = best_values[moves]
        return points


def neighbourhood(
    points: np.ndarray,  # (n_points, n_parameters)
    stdevs: np.ndarray,  # (n_points,)
    hyperparameters: list[Hyperparameter],
    rng: np.random.RandomState,
) -> np.ndarray:  # (n_points, n_neighbours, n_parameters)
    """Return neighbours that differ from their point in one parameter.

    A category has all other choices and an int of few values all other values as neighbours. Other
    numbers have eight from a normal distribution around the point that is cut at the bounds.
    """
    blocks = []
    for column, hyperparameter in enumerate(hyperparameters):
        values = _other_values(points[:, column], stdevs, hyperparameter, rng)
        block = np.repeat(points[:, None, :], values.shape[1], axis=1)
        block[:, :, column] = values
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def _other_values(
    centres: np.ndarray,  # (n_points,)
    stdevs: np.ndarray,  # (n_points,)
    hyperparameter: Hyperparameter,
    rng: np.random.RandomState,
) -> np.ndarray:  # (n_points, n_values)
    if isinstance(hyperparameter, CategoricalHyperparameter):
        # Counted on from the point's own, round the corner.
        steps = np.arange(1, hyperparameter.size)
        return (centres[:, None] + steps) % hyperparameter.size
    if isinstance(hyperparameter, UniformIntegerHyperparameter):
        size = int(hyperparameter.size)
        if size <= _N_NEIGHBOURS + 1:
            numbers = np.asarray(hyperparameter.to_value(centres)) - hyperparameter.lower
            others = (numbers[:, None] + np.arange(1, size)) % size + hyperparameter.lower
            return np.asarray(hyperparameter.to_vector(others.ravel())).reshape(others.shape)
        stdevs = np.maximum(stdevs, 1 / size)
    else:
        assert isinstance(hyperparameter, UniformFloatHyperparameter)
    centre, stdev = centres[:, None], stdevs[:, None]
    low, high = ndtr(-centre / stdev), ndtr((1 - centre) / stdev)
    quantiles = low + (high - low) * rng.random((len(centres), _N_NEIGHBOURS))
    values = np.clip(centre + stdev * ndtri(quantiles), 0, 1)
    if isinstance(hyperparameter, UniformIntegerHyperparameter):
        numbers = hyperparameter.to_value(values.ravel())
        values = np.asarray(hyperparameter.to_vector(numbers)).reshape(values.shape)
    return values
