"""The search space that trials came from, inferred from their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial

from studies.importing.foreign import is_finite


if TYPE_CHECKING:
    from objective.testbed.inference import Space
    from studies.importing.foreign import ForeignTrial


_MAX_CHOICES = 64  # more different strings than this are texts


def infer_space(
    trials: Sequence[ForeignTrial], known: Space, stored: Space, notes: Counter[str]
) -> Space:
    """Infer the distribution of each hyperparameter that has values, for all studies of a file.

    A known range is widened if the file has values beyond it; that and values that no range can be
    made of are counted in ``notes``.

    Args:
        known: Ranges by name, which tell the type and the scale too.
        stored: Those of earlier imports into the same studies. Optuna allows no other choices than
            these in a study; a number's range may grow.
    """
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, []).append(value)
    space: Space = {}
    for name, found in values.items():
        prior = stored.get(name) or known.get(name)
        distribution = _distribution(found, prior, fixed=name in stored)
        if distribution is None:
            notes[f"{name}: left out, not of one type or a text"] += len(found)
            continue
        if prior is not None and name not in stored and distribution != prior:
            notes[f"{name}: the usual range was widened for"] += sum(
                not fits(value, prior) for value in found
            )
        space[name] = distribution
    return space


def _distribution(
    values: Sequence[Any], prior: BaseDistribution | None, *, fixed: bool
) -> BaseDistribution | None:
    """Return a distribution of the type that most values have; None if none has, or they are texts.

    One that is of another type, as by a slip, costs its own value, not those of all others.
    """
    if isinstance(prior, CategoricalDistribution):
        if fixed:
            return prior
        new = sorted({v for v in values if isinstance(v, str)} - set(prior.choices))
        if len(new) > _MAX_CHOICES:
            return prior
        return CategoricalDistribution([*prior.choices, *new]) if new else prior
    numbers = [v for v in values if _is_number(v)]
    if isinstance(prior, IntDistribution):
        whole = [int(v) for v in numbers if v == int(v) and (v > 0 or not prior.log)]
        low, high = min([prior.low, *whole]), max([prior.high, *whole])
        on_grid = all((v - low) % prior.step == 0 for v in (prior.low, high, *whole))
        return IntDistribution(low, high, log=prior.log, step=prior.step if on_grid else 1)
    if isinstance(prior, FloatDistribution):
        floats = [float(v) for v in numbers if v > 0 or not prior.log]
        low_, high_ = min([prior.low, *floats]), max([prior.high, *floats])
        return FloatDistribution(low_, high_, log=prior.log)
    named = [v for v in values if isinstance(v, (bool, str))]
    if 2 * len(named) > len(values):
        choices = sorted(set(named), key=repr)
        return CategoricalDistribution(choices) if len(choices) <= _MAX_CHOICES else None
    if 2 * len(numbers) <= len(values):
        return None
    if all(isinstance(v, int) for v in numbers):
        return IntDistribution(min(numbers), max(numbers))
    return FloatDistribution(float(min(numbers)), float(max(numbers)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and is_finite(value)


def fits(value: Any, distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(type(c) is type(value) and c == value for c in distribution.choices)
    if not _is_number(value):
        return False
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    return distribution._contains(float(value))


def stored_space(studies: Iterable[Sequence[FrozenTrial]]) -> Space:
    """Return the search space that earlier imports gave to these studies."""
    space: Space = {}
    for trials in studies:
        for trial in trials:
            space.update(trial.distributions)
    return space
