"""Candidates for the next trial: the loss to ask for, the reply's schema, and which may be run.

A reply is a list of configurations, each an array of values in the order of the parameters:
names would be most of the tokens that a configuration costs. As in ``surrogate``, losses are
minimised, and the caller negates the scores of a maximised study.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from .._llm.reply import configuration_key
from .._llm.reply import json_values
from .._llm.reply import params_schema
from .._llm.reply import ReplyError
from .._llm.reply import to_params


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution

    from .._trials.history import Rule

# Where the range of the losses ends for the target. The worst quarter of the trials may have any
# loss whatever without moving it.
_RANGE_QUANTILE = 0.75


def target_loss(losses: Sequence[float], alpha: float) -> float:
    """Return the loss that candidates are asked to reach: best - alpha * (q - best).

    ``q`` is the 75 % quantile of the successful trials' losses. LLAMBO takes their maximum, which
    a single bad trial moves arbitrarily far. If all are equal, the range is a tenth of the best
    loss's size, as in LLAMBO, and 0.1 if that is 0.

    Args:
        losses: Losses of the successful trials; at least one.
        alpha: Above 0 the target is better than the best loss, below 0 within the observed range.
    """
    best = float(np.min(losses))
    spread = float(np.quantile(losses, _RANGE_QUANTILE)) - best
    if spread == 0.0:
        spread = 0.1 * abs(best) or 0.1
    return best - alpha * spread


def candidates_schema(space: Mapping[str, BaseDistribution], n: int) -> dict[str, Any]:
    """Return the JSON schema of an object with ``n`` configurations, each an array of values."""
    values = list(params_schema(space)["properties"].values())
    row = {
        "type": "array",
        "prefixItems": values,
        "minItems": len(values),
        "maxItems": len(values),
    }
    return {
        "type": "object",
        "properties": {
            "candidates": {"type": "array", "items": row, "minItems": n, "maxItems": n}
        },
        "required": ["candidates"],
        "additionalProperties": False,
    }


def parse_candidates(
    text: str,
    space: Mapping[str, BaseDistribution],
    fixed: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the usable configurations of a reply, and what is wrong with the others.

    A configuration is an array with a value for each parameter, or an object that names them all.
    Values are rounded and clipped to their distributions. A configuration that lacks a usable
    value is dropped whole, since nobody proposed what would have to be put there. Of a reply that
    was cut off the complete configurations count.

    Args:
        text: The reply.
        space: The search space.
        fixed: Values that were decided before; they replace the reply's.
    """
    usable, problems = [], []
    for found in json_values(text):
        for row in _rows(found, space):
            try:
                usable.append(_configuration(row, space, fixed))
            except ReplyError as error:
                problems.append(str(error))
    if not usable and not problems:
        problems = ["there is no configuration in the reply"]
    return usable, problems


def _rows(value: Any, space: Mapping[str, BaseDistribution]) -> Iterator[Any]:
    """Yield the configurations in a JSON value: it is one, a list, or an object around a list."""
    if isinstance(value, dict):
        if value.keys() & space.keys():
            yield value
        else:
            for inner in value.values():
                if isinstance(inner, (dict, list)):
                    yield from _rows(inner, space)
    elif any(isinstance(item, (dict, list)) for item in value):
        for item in value:
            yield from _rows(item, space) if isinstance(item, (dict, list)) else ()
    elif value:
        yield value


def _configuration(
    row: Any, space: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]
) -> dict[str, Any]:
    if isinstance(row, list):
        if len(row) != len(space):
            raise ReplyError(f"a configuration has {len(space)} values, but got {len(row)}")
        row = dict(zip(space, row))
    parsed = to_params(row, space, {**_any_values(space), **fixed})
    missing = [name for name in space if name not in parsed.named and name not in fixed]
    if missing:
        raise ReplyError(f"no usable value for {', '.join(missing)}")
    return {**parsed.params, **fixed}


def _any_values(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return any value for each parameter; a candidate that would keep one is dropped."""
    return {
        name: distribution.to_external_repr(getattr(distribution, "low", 0))
        for name, distribution in space.items()
    }


@dataclass(frozen=True)
class Screened:
    """Candidates that may be run, and those that repeat another configuration.

    Attributes:
        new: In the order they were proposed.
        repeats: A line for each of the others, for the model and the record.
    """

    new: list[dict[str, Any]]
    repeats: list[str]


def screen(
    candidates: Iterable[dict[str, Any]],
    known: Mapping[tuple[str, ...], int],
    space: Mapping[str, BaseDistribution],
    rule: Rule | None,
) -> Screened:
    """Refuse candidates equal, after rounding and the rule, to a known one or to each other.

    Args:
        candidates: Proposed configurations.
        known: Key of every finished, running or queued configuration -> the trial's number.
        space: The search space of the keys.
        rule: The objective's own rule.
    """
    new: dict[tuple[str, ...], dict[str, Any]] = {}
    repeats = []
    for params in candidates:
        key = configuration_key(params, space, rule)
        if key in known:
            repeats.append(f"repeats trial {known[key]}")
        elif key in new:
            repeats.append("repeats another candidate")
        else:
            new[key] = params
    return Screened(list(new.values()), repeats)
