"""A change that even a small model can write: one constant of the script, and a value for it.

A model that can't keep to search / replace blocks is asked for a JSON object instead: ``name``,
``value`` and ``reason``. It is offered a few constants at a time, others each time, and for each a
few values that were not tried yet: of all of them the smallest models choose the same one again and
again. The schema has a branch for each constant, so that a server which constrains replies lets
nothing else through, and whatever comes is checked all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
import json
import random
import sys
from typing import Any

from objective.testbed.source import TestbedError
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.files import constants_of
from studies.code_agent.files import with_constants


# Values to choose from, by the name of their constant.
Candidates = Mapping[str, Sequence["int | float"]]

_N_OFFERED = 4
_FACTORS = (0.5, 0.8, 1.25, 2.0)
_LEAST_POWER = 8  # of two, that is taken for more than chance


def numeric_constants(source: str) -> dict[str, int | float]:
    """Return the upper-case numbers of a script, by name."""
    values = {name: constant.value for name, constant in constants_of(source).items()}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def candidate_values(source: str, seed: int, is_usable: Callable[[str], bool]) -> Candidates:
    """Draw some of the script's numbers by the seed, with candidate values.

    Zero is not offered: it has no multiples.

    Args:
        source: The script.
        seed: Decides which numbers.
        is_usable: Whether a script may be proposed. Each candidate value makes one that may.
    """
    numbers = {name: value for name, value in numeric_constants(source).items() if value}
    candidates: dict[str, Sequence[int | float]] = {}
    for name in random.Random(seed).sample(sorted(numbers), len(numbers)):
        values = []
        for value in _others(numbers[name]):
            with suppress(TestbedError):
                if is_usable(with_constants(source, {name: value})):
                    values.append(value)
        if values:
            candidates[name] = values
        if len(candidates) == _N_OFFERED:
            break
    return candidates


def _others(value: int | float) -> list[int | float]:
    """Return the multiples of a number, rising with the number's sign."""
    if isinstance(value, float):
        return [float(f"{factor * value:.3g}") for factor in _FACTORS]
    # Sizes that are powers of two are to stay so.
    is_power = value >= _LEAST_POWER and value & (value - 1) == 0
    factors = (_FACTORS[0], _FACTORS[-1]) if is_power else _FACTORS
    return list(dict.fromkeys(n for f in factors if (n := round(f * value)) not in (0, value)))


def choice_schema(candidates: Candidates) -> dict[str, Any]:
    """Return the JSON schema of a reply that takes one of the candidate values."""
    branches = []
    for name, values in candidates.items():
        properties = {
            "name": {"const": name},
            "value": {"enum": list(values)},
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


def describe_choice(source: str, candidates: Candidates) -> str:
    """Return the instruction to reply with a choice, and the candidates."""
    now = numeric_constants(source)
    lines = [
        f"{name} = {now[name]}: {' or '.join(map(str, values))}"
        for name, values in candidates.items()
    ]
    return (
        "Reply with one JSON object instead: name (one of the names below), value (one of those"
        " after its colon) and reason.\n" + "\n".join(lines)
    )


def apply_choice(source: str, reply: str) -> tuple[str, str]:
    """Description and changed script of a reply that names a number and another value for it.

    It may be one that wasn't offered: not every server constrains its replies.

    Raises:
        EditError: It doesn't, or changes nothing.
    """
    constants = numeric_constants(source)
    try:
        fields = json.loads(reply)
        name, value, reason = fields["name"], fields["value"], str(fields["reason"])
        old = constants[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise EditError(
            "The reply must be one JSON object with name, value and reason, and the name one of"
            f" {', '.join(constants)}."
        ) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EditError(f"{name} must be a number, but got {value!r:.40}.")
    if abs(value) > sys.float_info.max:  # JSON's integers may be of any length
        raise EditError(f"{name} must be a finite number, but got {value!r:.40}.")
    if isinstance(old, int) and not float(value).is_integer():
        raise EditError(f"{name} must be a whole number, but got {value}.")
    value = type(old)(value)
    if value == old:
        raise EditError(f"{name} is {old} already: the value must be another.")
    try:
        return f"{name} = {value}: {reason}", with_constants(source, {name: value})
    except TestbedError as error:
        raise EditError(str(error)) from None
