"""Configurations as rows of numbers and back.

Notation:

    p      parameters of a search space
    rows   (n, p): of a number its place in the range, from 0 to 1, in logarithms where the range is
           one; of a category its index; NaN where a configuration has no such parameter
"""

from __future__ import annotations

import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from .._trials.history import number


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution


# Values from which on a parameter counts as continuous.
_MANY = 33


class Space:
    """The parameters that can be chosen, in the order of their columns.

    Args:
        distributions: The search space; parameters of a single value have no column.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = {n: d for n, d in distributions.items() if not d.single()}
        self.names = list(self.distributions)
        self._columns = [_column(d) for d in self.distributions.values()]
        # Number of choices of each parameter, 0 for numbers, (p,).
        self.n_choices = np.array([column.n_choices for column in self._columns], dtype=int)
        # Distance of two neighbouring values in a row, 0 where there are none, (p,).
        self.spacing = np.array([column.spacing for column in self._columns])
        # Which have so few values that one may be a condition for other parameters, (p,).
        n_values = np.array([column.n_values for column in self._columns])
        self.is_discrete = (self.n_choices > 0) | (n_values < _MANY)

    def rows(self, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Configurations as rows, (n, p); values may lie outside the range and between steps."""
        rows = np.full((len(configurations), len(self.names)), math.nan)
        for j, (name, column) in enumerate(zip(self.names, self._columns)):
            present = [i for i, c in enumerate(configurations) if name in c]
            if present:
                rows[present, j] = column.numbers([configurations[i][name] for i in present])
        return rows

    def configurations(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Rows as configurations, each value one of its distribution's."""
        columns = [
            column.values(rows[:, j][~np.isnan(rows[:, j])])
            for j, column in enumerate(self._columns)
        ]
        iterators = [iter(values) for values in columns]
        present = ~np.isnan(rows)
        return [
            {name: next(iterators[j]) for j, name in enumerate(self.names) if there[j]}
            for there in present.tolist()
        ]


class _Numbers:
    """A float or an integer: u in [0, 1] <-> low to high, see `rows` of the module."""

    n_choices = 0

    def __init__(self, distribution: FloatDistribution | IntDistribution) -> None:
        self._distribution = distribution
        self._is_int = isinstance(distribution, IntDistribution)
        step = distribution.step or 0.0
        if isinstance(distribution, IntDistribution) and distribution.log:
            step = 1.0
        self._step = step
        # As Optuna's transform: a value with a step has half of one on either side.
        low, high = distribution.low - step / 2, distribution.high + step / 2
        self._log = distribution.log
        self._low = math.log(low) if self._log else low
        # Half of the range: all of it may be more than a float can be.
        self._half = (math.log(high) if self._log else high) / 2 - self._low / 2
        width = distribution.high - distribution.low
        self.n_values = width / step + 1 if step else math.inf
        self.spacing = 0.0 if self._log else 1 / self.n_values

    def numbers(self, values: Sequence[Any]) -> np.ndarray:
        try:
            x = np.array(values, dtype=float)
        except (TypeError, ValueError, OverflowError):
            x = np.array([number(value) for value in values])
        if self._log:
            x = np.log(np.maximum(x, 1e-300))
        u = (x / 2 - self._low / 2) / self._half
        return np.clip(np.nan_to_num(u, nan=0.5), -1.0, 2.0)

    def values(self, numbers: np.ndarray) -> list[Any]:
        d = self._distribution
        part = np.clip(numbers, 0.0, 1.0) * self._half
        x = self._low + part + part
        if self._log:
            x = np.exp(x)
        low, high, step = d.low, d.high, d.step or self._step
        if self._step:
            n_steps = np.round((x - float(low)) / self._step)
            if self._is_int:  # by Python's: not every integer of a large range is a float
                return [min(max(low + int(n) * int(step), low), high) for n in n_steps.tolist()]
            x = low + n_steps * self._step
        values: list[Any] = np.clip(x, low, high).tolist()
        return values


class _Choices:
    """A category: its index <-> the choice itself."""

    spacing = 0.0

    def __init__(self, distribution: CategoricalDistribution) -> None:
        self._distribution = distribution
        self.n_choices = self.n_values = len(distribution.choices)

    def numbers(self, values: Sequence[Any]) -> np.ndarray:
        return np.array([self._index(value) for value in values], dtype=float)

    def _index(self, value: Any) -> float:
        try:
            return self._distribution.to_internal_repr(value)
        except ValueError:  # What other workers announce is text, which a choice may not survive.
            return math.nan

    def values(self, numbers: np.ndarray) -> list[Any]:
        return [self._distribution.choices[int(i)] for i in numbers]


def _column(distribution: BaseDistribution) -> _Numbers | _Choices:
    if isinstance(distribution, CategoricalDistribution):
        return _Choices(distribution)
    if isinstance(distribution, (FloatDistribution, IntDistribution)):
        return _Numbers(distribution)
    raise ValueError(
        "A distribution must be a FloatDistribution, an IntDistribution or a "
        f"CategoricalDistribution, but got {distribution!r}."
    )
