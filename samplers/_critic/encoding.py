"""Configurations as inputs of a regression: what is really run, and what follows from it.

Notation:

    X      inputs, (n, d): a column for each number, one for each choice of a category, for each
           set of parameters that some configuration lacks whether it has them, and for each
           derived value
"""

from __future__ import annotations

import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from .._trials.history import Derived
    from .._trials.history import Rule
    from .space import Space

# Two choices are 0.5 * sqrt(2) apart.
_CHOICE = 0.5
_PRESENCE = 0.5

# A derived value that is positive and whose largest is so many times the least is one of scale.
_LOG_RATIO = 20.0


class Encoder:
    """Makes inputs of configurations, the same way for those that were run and for candidates.

    Args:
        space: The search space.
        configurations: Those that were run: they tell what can be lacking, and the ranges of
            derived values.
        rule: The objective's own rule.
        derived: Further inputs.
    """

    def __init__(
        self,
        space: Space,
        configurations: Sequence[Mapping[str, Any]],
        *,
        rule: Rule | None = None,
        derived: Derived | None = None,
    ) -> None:
        self._space, self._rule = space, rule
        self._derived: Derived = derived or (lambda configuration: {})
        # A value of its own is not needed for parameters that come and go together.
        patterns = {
            tuple(name in c for c in configurations): j for j, name in enumerate(space.names)
        }
        self._lacking = sorted(j for pattern, j in patterns.items() if not all(pattern))
        self._scales = _scales([self._derived(self.effective(c)) for c in configurations])

    def effective(self, configuration: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values that a configuration is run with."""
        if self._rule is None:
            return configuration
        return {**configuration, **self._rule(configuration)}

    def inputs(self, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """X of n configurations, (n, d)."""
        effective = [self.effective(c) for c in configurations]
        rows = self._space.rows(effective)
        lacking = np.isnan(rows)
        columns = []
        for j, n_choices in enumerate(self._space.n_choices):
            if n_choices:
                columns.append(_CHOICE * (rows[:, j, None] == np.arange(n_choices)))
            else:
                # What isn't there is no value: all that lack it agree, and the column that says
                # so tells them from those in the middle.
                columns.append(np.where(lacking[:, j], 0.5, rows[:, j])[:, None])
        columns.append(_PRESENCE * ~lacking[:, self._lacking])
        if self._scales:
            columns.append(self._derived_columns(effective))
        return np.concatenate(columns, axis=1).astype(float)

    def _derived_columns(self, effective: Sequence[Mapping[str, Any]]) -> np.ndarray:
        values = [self._derived(c) for c in effective]
        columns = []
        for name, (log, low, high) in self._scales.items():
            x = np.array([float(v.get(name, math.nan)) for v in values])
            if log:
                x = np.log(np.maximum(x, 1e-300))
            u = (x - low) / (high - low) if high > low else np.zeros_like(x)
            columns.append(np.clip(np.nan_to_num(u, nan=0.5), -0.5, 1.5))
        return np.stack(columns, axis=1)


def _scales(values: Sequence[Mapping[str, float]]) -> dict[str, tuple[bool, float, float]]:
    """Of each derived value whether it is one of scale, and its least and largest."""
    scales = {}
    for name in {name: None for v in values for name in v}:
        x = np.array([float(v[name]) for v in values if name in v])
        x = x[np.isfinite(x)]
        if not len(x):
            continue
        log = bool(x.min() > 0 and x.max() / x.min() > _LOG_RATIO)
        x = np.log(x) if log else x
        scales[name] = (log, float(x.min()), float(x.max()))
    return scales
