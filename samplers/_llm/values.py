"""Conversion of one parameter's value to text and back.

A language model reads and writes rounded text, so two configurations with the same text are the
same to it. The rounding here therefore also decides which configurations are duplicates.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution


class ValueRefused(ValueError):
    """A value that the distribution has no use for; the message says why, without the name."""


def choice_labels(distribution: CategoricalDistribution) -> list[str]:
    """Return a distinct text for every choice, in the choices' order.

    A string is its own label and anything else Python's text for it; of two equal texts that
    come from different types (``1`` and ``"1"``) the one that is no string gets its type added.
    """
    strings = {choice for choice in distribution.choices if isinstance(choice, str)}
    labels: dict[str, None] = {}  # in order, and quickly searched: there may be thousands
    for choice in distribution.choices:
        label = str(choice)
        if not isinstance(choice, str) and (label in strings or label in labels):
            label = f"{label} ({type(choice).__name__})"
        while label in labels:
            label += "'"
        labels[label] = None
    return list(labels)


def format_value(value: Any, distribution: BaseDistribution) -> str:
    """Write a value as short text: 3 significant digits, integers exact, choices by their label.

    A float gets more digits where its range needs them to tell 1,000 values apart, and fewer
    where they are below a millionth of the range. Those with a step are exact.
    """
    if isinstance(distribution, CategoricalDistribution):
        for choice, label in zip(distribution.choices, choice_labels(distribution)):
            if choice is value or (type(choice) is type(value) and choice == value):
                return label
        return str(value)
    if isinstance(distribution, IntDistribution) and float(value).is_integer():
        return str(int(value))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return _plain(float(value), 12)
    value = float(value)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    width = distribution.high - distribution.low
    if value == 0 or not math.isfinite(value) or width <= 0:
        return _plain(value, 3)
    decimals = 2 - math.floor(math.log10(abs(value)))
    least = 3 - math.ceil(math.log10(width))
    log = isinstance(distribution, FloatDistribution) and distribution.log
    # In a log range small values are as far apart as large ones.
    decimals = max(decimals, least) if log else min(max(decimals, least), least + 3)
    return _plain(round(value, decimals), 15)


def format_number(value: float) -> str:
    """Write a number with four significant digits, and a large one to its last before the point."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else _plain(value, 4)


def position(value: Any, distribution: BaseDistribution) -> float:
    """Return where in its range a number is, from 0 to 1; of a logarithmic one by its logarithm."""
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, x = float(distribution.low), float(distribution.high), float(value)
    if high <= low:
        return 0.0
    if distribution.log:
        low, high, x = math.log(low), math.log(high), math.log(max(x, 1e-300))
    return (x - low) / (high - low)


def pooled_sd(groups: Sequence[Sequence[float]]) -> float:
    """Return the standard deviation within groups of two values or more, pooled; 0 without any."""
    # In units of a power of two, which rounds nothing, since the square of a penalty may be too
    # large for a float.
    largest = max((abs(v) for vs in groups for v in vs), default=0.0)
    unit = math.ldexp(1.0, math.frexp(largest)[1] - 1)
    scaled = [[v / unit for v in vs] for vs in groups]
    squares = sum((v - sum(vs) / len(vs)) ** 2 for vs in scaled for v in vs)
    sd = unit * math.sqrt(squares / max(1, sum(len(vs) - 1 for vs in groups)))
    return min(sd, sys.float_info.max)


def value_digits(values: Sequence[float], noise: float | None = None) -> int:
    """Return the significant digits of objective values that tell something.

    Those above a tenth of the noise; without knowledge of it 5, or what a hundredth of the
    distance between the quartiles takes, where that is more.

    Args:
        values: Of the successes.
        noise: Standard deviation of the value on repetition.
    """
    finite = sorted(v for v in values if math.isfinite(v))
    if not finite:
        return 5
    largest = max(abs(finite[0]), abs(finite[-1]))
    # Of halves, since two floats may be further apart than a float is large.
    distance = finite[3 * len(finite) // 4] / 2 - finite[len(finite) // 4] / 2
    unit = noise if noise else distance / 5
    if not largest or not unit > 0:
        return 5
    digits = 2 + math.floor(math.log10(largest)) - math.floor(math.log10(unit))
    return min(max(digits, 2 if noise else 5), 15)


def _plain(value: float, digits: int) -> str:
    """Format as ``%g`` does, without padding of the exponent."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def fit_value(raw: Any, distribution: BaseDistribution) -> tuple[Any, str]:
    """Find the value of a distribution that a model meant.

    A number that is already inside is kept to the last digit.

    Returns:
        A native Python value (or the choice itself) that the distribution contains, and what
        had to be done to get it: ``""`` for nothing.

    Raises:
        ValueRefused: If no value can be meant: not a number, not finite, not a choice.
    """
    if isinstance(distribution, CategoricalDistribution):
        return _fit_choice(raw, distribution), ""
    if isinstance(distribution, (FloatDistribution, IntDistribution)):
        return _fit_number(raw, distribution)
    raise ValueRefused(f"{type(distribution).__name__} is not supported")


def _number(raw: Any) -> int | float:
    if isinstance(raw, str):
        try:
            raw = int(raw)
        except ValueError:
            try:
                raw = float(raw)
            except ValueError:
                raise ValueRefused(f"{_quote(raw)} is not a number") from None
    # A bool is an int to Python, but no model means 1 by true.
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise ValueRefused(f"{_quote(raw)} is not a number")
    if isinstance(raw, float) and not math.isfinite(raw):
        raise ValueRefused(f"{_quote(raw)} is not a finite number")
    return raw


def _clip(value: Any, low: Any, high: Any) -> tuple[Any, str]:
    if value < low:
        return low, f"{_quote(value)} is below {low}, clipped"
    if value > high:
        return high, f"{_quote(value)} is above {high}, clipped"
    return value, ""


def _fit_number(raw: Any, distribution: FloatDistribution | IntDistribution) -> tuple[Any, str]:
    number = _number(raw)
    value, repair = _clip(number, distribution.low, distribution.high)
    low, step = distribution.low, distribution.step
    if step is not None and not distribution._contains(value):
        value = min(low + round((value - low) / step) * step, distribution.high)
        repair = repair or f"{_quote(number)} rounded to {format_value(value, distribution)}"
    return (int if isinstance(distribution, IntDistribution) else float)(value), repair


def _fit_choice(raw: Any, distribution: CategoricalDistribution) -> Any:
    labels = choice_labels(distribution)
    if isinstance(raw, str) and raw in labels:
        return distribution.choices[labels.index(raw)]
    # Servers that ignore the schema write true, null or 1.5 where the label is a text.
    for choice in distribution.choices:
        if type(choice) is type(raw) and choice == raw:
            return choice
        if isinstance(raw, int) and isinstance(choice, float) and choice == raw:
            return choice
    texts = {_json(choice): choice for choice in distribution.choices}
    folded = str(raw).strip().casefold()
    for text, choice in [*zip(labels, distribution.choices), *texts.items()]:
        if text.casefold() == folded:
            return choice
    raise ValueRefused(f"{_quote(raw)} is not one of {', '.join(labels)}")


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)


def _quote(raw: Any) -> str:
    """A value that the model wrote, as JSON of at most 40 characters."""
    text = _json(raw)
    return text if len(text) <= 40 else text[:37] + "..."


def neighbours(value: Any, distribution: BaseDistribution) -> list[Any]:
    """Return candidate values: some near ``value``, to either side, or the other choices.

    Numbers are 4, 10 and 25 % of the range away (of the logarithmic range if it is
    one), but a step at least, rounded as ``format_value`` does and in ascending order.
    """
    if isinstance(distribution, CategoricalDistribution):
        return [c for c in distribution.choices if c is not value and c != value]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = float(distribution.low), float(distribution.high)
    step = float(distribution.step or 0.0)
    ratio = high / low if distribution.log else 1.0
    found = set()
    for share in (-0.25, -0.1, -0.04, 0.04, 0.1, 0.25):
        if distribution.log:
            near = value * ratio**share
        else:
            near = value + share * (high - low)
        if abs(near - value) < step:
            near = value + math.copysign(step, share)
        fitted, _ = fit_value(min(max(near, low), high), distribution)
        rounded, _ = fit_value(format_value(fitted, distribution), distribution)
        if format_value(rounded, distribution) != format_value(value, distribution):
            found.add(rounded)
    return sorted(found)
