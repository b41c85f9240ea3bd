"""Checks of samplers' arguments, before a trial is spent on one that makes no sense."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Sequence


def check_least(least: int, **arguments: float | None) -> None:
    """Refuse those arguments that are less, or NaN; ``None`` is one that was not given.

    Raises:
        ValueError: With the argument's name.
    """
    for name, value in arguments.items():
        if value is not None and not value >= least:
            raise ValueError(f"`{name}` must be {least} or more, but got {value}.")


def check_choices(**arguments: tuple[Any, Sequence[Any]]) -> None:
    """Refuse those arguments that are none of their choices.

    Args:
        arguments: Of each its value and its choices.

    Raises:
        ValueError: With the argument's name.
    """
    for name, (value, choices) in arguments.items():
        if value not in choices:
            raise ValueError(f"`{name}` must be one of {choices}, but got {value!r}.")
