"""Which parameters a configuration has, where not all have the same.

An objective that suggests a parameter only under a condition doesn't say what the condition is. What
was run does: of the parameters that decide, a configuration has those that one with the same values
of them had.

Rows are those of `space`; of those that were run, best first.
"""

from __future__ import annotations

import math

import numpy as np


# Weight of the parameters that all configurations have, beside those that only some have.
_FIRST = 1000.0


class Shapes:
    """The shapes of the configurations that were run.

    Args:
        rows: The configurations, (n, p).
        is_discrete: Which parameters have few values, of which one may be a condition, (p,).
    """

    def __init__(self, rows: np.ndarray, is_discrete: np.ndarray) -> None:
        self._rows = rows
        present = ~np.isnan(rows)
        self.vary = bool(len(rows)) and not bool((present == present[:1]).all())
        self._weights = np.zeros(rows.shape[1])
        if self.vary:
            _, shape = np.unique(present, axis=0, return_inverse=True)
            for j in np.flatnonzero(is_discrete):
                self._weights[j] = _information(rows[:, j], shape.ravel())
            # A row that is changed may still have what only the old condition brought along, so
            # what all have decides first.
            self._weights[present.all(axis=0)] *= _FIRST

    def fit(self, rows: np.ndarray) -> np.ndarray:
        """Give each of m rows the parameters that it will have, (m, p) -> (m, p).

        They are those of the most similar configuration that was run, which also lends the values
        of those that the row lacks.
        """
        if not self.vary:
            return rows
        decide = np.flatnonzero(self._weights)
        mine, theirs = rows[:, None, decide], self._rows[None, :, decide]
        equal = (np.abs(mine - theirs) < 1e-6) | (np.isnan(mine) & np.isnan(theirs))
        donors = self._rows[np.argmax(equal @ self._weights[decide], axis=1)]  # the best of equals
        return np.where(np.isnan(donors), math.nan, np.where(np.isnan(rows), donors, rows))


def _information(values: np.ndarray, shape: np.ndarray) -> float:
    """How much a parameter's value tells of the shape, in nats: their mutual information.

    0 if it is not more than what unrelated ones have by chance.

    Args:
        values: NaN where a configuration lacks the parameter, which is a value, too; (n,).
        shape: Index of each configuration's shape, (n,).
    """
    _, value = np.unique(np.round(values, 6), return_inverse=True)
    n_values, n_shapes = value.max() + 1, shape.max() + 1
    counts = np.bincount(value * n_shapes + shape, minlength=n_values * n_shapes)
    joint = counts.reshape(n_values, n_shapes) / len(values)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    information = np.sum(joint[there] * np.log(joint[there] / expected[there]))
    # 2 n times the information of what is unrelated is chi-squared distributed.
    freedom = (n_values - 1) * (n_shapes - 1)
    by_chance = (freedom + 3 * math.sqrt(2 * freedom)) / (2 * len(values))
    return float(information) if information > by_chance else 0.0
