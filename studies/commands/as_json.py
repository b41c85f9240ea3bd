"""Facts on stdout, for programs."""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
from typing import Any


def print_json(facts: Any) -> None:
    """Print what JSON can say; NaN and infinities, which it has no word for, are null."""
    print(json.dumps(finite(facts), indent=2, allow_nan=False))


def finite(facts: Any) -> Any:
    """Return facts with None in the place of numbers that are not finite."""
    if isinstance(facts, Mapping):
        return {name: finite(value) for name, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [finite(value) for value in facts]
    if isinstance(facts, float) and not math.isfinite(facts):
        return None
    return facts
