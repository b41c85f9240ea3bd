"""Configurations near the best ones, for a model to choose from.

Rows are those of `space`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from .space import Space

# Of the best ones each is a base with this probability, if no better one was.
_GREED = 0.35
# Standard deviations of a step, as shares of the range.
SIZES = (0.03, 0.08, 0.2)
# The same for the children of two: all their parameters take a step.
_CHILD_SIZES = (0.01, 0.03, 0.08)
# Standard deviation of the rows around the middle.
_MIDDLE = 1 / 6
_MOST_CHANGES = 8


def random_rows(space: Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows anywhere, (n, p)."""
    u = rng.random((n, len(space.names)))
    return np.where(space.n_choices > 0, np.floor(u * np.maximum(space.n_choices, 1)), u)


def start_rows(space: Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows to begin with, (n, p): half of them anywhere, half around the middle of the ranges.

    The latter are distributed as CmaEsSampler's first samples are. Ranges are often made around what
    is known to work.
    """
    anywhere = random_rows(space, n, rng)
    middle = np.clip(0.5 + _MIDDLE * rng.standard_normal(anywhere.shape), 0.0, 1.0)
    is_middle = (rng.random((n, 1)) < 0.5) & (space.n_choices == 0)
    return np.where(is_middle, middle, anywhere)


def step_rows(
    space: Space,
    bases: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Rows some steps away from others.

    Args:
        space: The search space.
        bases: Where steps begin, the best first, (b, p).
        n: How many.
        rng: Source of randomness.

    Returns:
        (n, p); some may be equal to their bases once they are rounded.
    """
    b, p = bases.shape
    base = (rng.geometric(_GREED, size=n) - 1) % b
    rows = bases[base]
    present = ~np.isnan(rows)
    n_changes = rng.integers(1, _MOST_CHANGES + 1, size=(n, 1))
    order = np.where(present, rng.random((n, p)), np.inf)
    changed = (order.argsort(axis=1).argsort(axis=1) < n_changes) & present

    size = rng.choice(np.array(SIZES), size=(n, 1))
    steps = size * rng.standard_normal((n, p))
    # A step that is rounded away is none.
    steps = np.where(np.abs(steps) < space.spacing, np.sign(steps) * space.spacing, steps)
    numbers = np.clip(rows + steps, 0.0, 1.0)

    n_choices = np.maximum(space.n_choices, 2)
    others = (rows + rng.integers(1, n_choices, size=(n, p))) % n_choices
    moved = np.where(space.n_choices > 0, others, numbers)
    return np.where(changed, moved, rows)


def child_rows(space: Space, parents: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows between two others, or with each parameter from one of two, and a step from there.

    Where the best trials surround something better, it lies between them.

    Args:
        space: The search space.
        parents: Rows of which each child has two, (b, p).
        n: How many.
        rng: Source of randomness.

    Returns:
        (n, p); a child has the parameters that both of its parents have, and those that one has.
    """
    b, p = parents.shape
    first, second = parents[rng.integers(b, size=n)], parents[rng.integers(b, size=n)]
    first, second = (
        np.where(np.isnan(first), second, first),
        np.where(np.isnan(second), first, second),
    )
    share = rng.random((n, 1))
    mixed = np.where(rng.random((n, p)) < 0.5, first, second)
    between = share * first + (1 - share) * second
    numbers = np.where(rng.random((n, 1)) < 0.5, between, mixed)
    steps = rng.choice(np.array(_CHILD_SIZES), size=(n, 1)) * rng.standard_normal((n, p))
    return np.where(space.n_choices > 0, mixed, np.clip(numbers + steps, 0.0, 1.0))
