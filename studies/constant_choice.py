"""A change that even a small model can write: one constant of the script, and a value for it.

A model that can't keep to search / replace blocks is asked for a JSON object instead: ``name``,
``value`` and ``reason``. The schema has a branch for each constant, so that a server which
constrains replies lets nothing else through, and whatever comes is checked all the same.
"""

from __future__ import annotations

import json
from typing import Any

from objective.source import read_constants
from objective.source import set_constants
from objective.source import TestbedError
from studies.edit_blocks import EditError


def numeric_constants(source: str) -> dict[str, int | float]:
    """The upper-case numbers of a script, by name."""
    values = {name: constant.value for name, constant in read_constants(source).items()}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def choice_schema(source: str) -> dict[str, Any]:
    """JSON schema of a reply that changes one of the script's numbers."""
    branches = []
    for name, value in numeric_constants(source).items():
        properties = {
            "name": {"const": name},
            "value": {"type": "integer" if isinstance(value, int) else "number"},
            "reason": {"type": "string", "maxLength": 80},
        }
        branches.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    return {"anyOf": branches}


def describe_choice(source: str) -> str:
    """How to reply, and the numbers to choose from."""
    lines = [f"{name} = {value}" for name, value in numeric_constants(source).items()]
    return (
        "Reply with one JSON object instead: name (one of the names below), value (another number"
        " for it) and reason.\n" + "\n".join(lines)
    )


def apply_choice(source: str, reply: str) -> tuple[str, str]:
    """Description and changed script of a reply that follows :func:`choice_schema`.

    Raises:
        EditError: It doesn't, or changes nothing.
    """
    constants = numeric_constants(source)
    try:
        fields = json.loads(reply)
        name, value, reason = fields["name"], fields["value"], str(fields["reason"])
        old = constants[name]
    except (ValueError, TypeError, KeyError):
        raise EditError(
            "The reply must be one JSON object with name, value and reason, and the name one of"
            f" {', '.join(constants)}."
        ) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EditError(f"{name} must be a number, but got {value!r:.40}.")
    if isinstance(old, int) and not float(value).is_integer():
        raise EditError(f"{name} must be a whole number, but got {value}.")
    value = type(old)(value)
    if value == old:
        raise EditError(f"{name} is {old} already: the value must be another.")
    try:
        return f"{name} = {value}: {reason}", set_constants(source, {name: value})
    except TestbedError as error:
        raise EditError(str(error)) from None
