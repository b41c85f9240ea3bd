"""From a model's reply to values that a study can use.

A JSON schema made from the search space goes with the request, and the reply is checked against
the distributions all the same: servers ignore numeric bounds and some ignore schemas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .history import Rule


class ReplyError(ValueError):
    """A reply that no configuration can be made of; the message is meant for the model."""


@dataclass(frozen=True)
class ParsedReply:
    """Values made of a reply.

    Attributes:
        params: A value for every parameter of the search space, each inside its distribution.
        named: The parameters whose value the reply gave (clipped or rounded counts, refused not).
        repairs: What had to be done to the reply, a line each.
    """

    params: dict[str, Any]
    named: frozenset[str]
    repairs: tuple[str, ...]


def params_schema(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """JSON schema of a whole configuration: an object with every parameter."""
    raise NotImplementedError


def changes_schema(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """JSON schema of some changes to a configuration: an object with any of the parameters."""
    raise NotImplementedError


def parse_json(text: str) -> Any:
    """The JSON value in a text: alone, in a code fence, or with prose around it.

    Raises:
        ReplyError: If there is none.
    """
    raise NotImplementedError


def parse_params(
    text: str, space: Mapping[str, BaseDistribution], base: Mapping[str, Any]
) -> ParsedReply:
    """Read a configuration, or changes to ``base``, from a reply.

    Args:
        text: The reply; both schemas' forms are understood.
        space: The search space.
        base: A value for every parameter, used where the reply has none or an impossible one.

    Raises:
        ReplyError: If there is no JSON object in it, or not one usable value.
    """
    raise NotImplementedError


def to_params(
    values: Mapping[str, Any], space: Mapping[str, BaseDistribution], base: Mapping[str, Any]
) -> ParsedReply:
    """As ``parse_params``, for values that were already read from JSON."""
    raise NotImplementedError


def choice_labels(choices: tuple[Any, ...]) -> list[str]:
    """A distinct text for every choice of a categorical parameter, in the choices' order."""
    raise NotImplementedError


def configuration_key(params: Mapping[str, Any], rule: Rule | None = None) -> tuple[Any, ...]:
    """Equal for configurations that are the same after ``rule`` and rounding to 6 digits."""
    raise NotImplementedError


def known_configurations(
    study: Study, rule: Rule | None = None, *, besides: FrozenTrial | None = None
) -> dict[tuple[Any, ...], int]:
    """Key of every configuration that is finished, running or queued -> the trial's number.

    Args:
        study: The study.
        rule: The objective's own rule.
        besides: A trial to leave out: the one that is being sampled.
    """
    raise NotImplementedError
