"""Parameters whose best values lie at an end of their range, beyond which nobody has looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.best import values_run
from samplers._llm.values import position


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


_BEST = 5  # trials whose values are looked at
_ALIKE = 4  # of them that lie at the same end
_FEWEST_TRIALS = 15  # successes, before anything is said
_FEWEST_STEPS = 4  # of a range: with fewer an end is often best by chance
_NEAR = 0.02  # of the range, or of its logarithm


def range_ends(ranked: Sequence[FrozenTrial], best: FrozenTrial) -> dict[str, float]:
    """Return the ends at which the best values of parameters lie, by the parameter's name.

    An end of 0 or 1, as of a probability, a penalty or a count, is taken for the parameter's own; but
    for an upper one of 1 on a logarithmic range, which is searched by its magnitude.

    Args:
        ranked: A study's successes, the best first.
        best: The one that is called best, which must lie there, too.
    """
    if len(ranked) < _FEWEST_TRIALS:
        return {}
    return {
        name: end
        for name, distribution in best.distributions.items()
        if (end := _end(best, name, distribution)) is not None
        and sum(_end(t, name, distribution) == end for t in ranked[:_BEST]) >= _ALIKE
    }


def _end(trial: FrozenTrial, name: str, distribution: BaseDistribution) -> float | None:
    """Return the end of a range at which a trial lies; None if at neither, or at one of its own."""
    if name not in trial.params or not isinstance(
        distribution, (FloatDistribution, IntDistribution)
    ):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.single() or (step and (high - low) / step < _FEWEST_STEPS):
        return None
    run = values_run(trial)[name]
    if not low <= run <= high:  # by the testbed's rule, which looks beyond the range itself
        return None
    at = position(run, distribution)
    end: float | None = low if at <= _NEAR else high if at >= 1 - _NEAR else None
    is_magnitude = distribution.log and end == high
    return None if end in (0, 1) and not is_magnitude else end
