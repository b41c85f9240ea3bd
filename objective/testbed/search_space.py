"""From the upper-case constants of a script to Optuna distributions.

Constants that nobody describes are searched as :mod:`objective.testbed.inference` says.
``search_space.toml`` of the testbed overrides that constant by constant, and its tables come first
in the order of the space::

    only_listed = true           # default false: leave constants without a table here alone

    [TOTAL_BATCH_SIZE]
    type = "int"                 # int, float or categorical
    low = 1024
    high = 16384                 # both included
    log = true                   # default false
    step = 1                     # default none; not with log
    power_of_two = true          # default false: run at the nearest power of two
    at_least = ["DEVICE_BATCH_SIZE", "MAX_SEQ_LEN"]   # default none: run at least at the product

    [WINDOW_PATTERN]
    type = "categorical"
    choices = ["SSSL", "SSLL"]

    [DROPOUT]
    tune = false                 # leave it as it is in the script
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
import math
import sys
import textwrap
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.testbed.derived import TABLE as DERIVED
from objective.testbed.inference import infer_space
from objective.testbed.inference import LARGEST_INT
from objective.testbed.inference import Space
from objective.testbed.rule import Rule
from objective.testbed.source import Constant
from objective.testbed.source import scan
from objective.testbed.source import TestbedError
from objective.testbed.source import Value


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_WHERE = "search_space.toml"
_NUMBER_KEYS = {"type", "low", "high", "log", "step", "power_of_two", "at_least"}
_KEYS = {"int": _NUMBER_KEYS, "float": _NUMBER_KEYS - {"power_of_two", "at_least"}}
_KEYS["categorical"] = {"type", "choices"}
_LARGEST = 1e150  # samplers take squares of ranges
_ONLY_LISTED, _TUNE = "only_listed", "tune"


@dataclass(frozen=True)
class _Overrides:
    """The content of a ``search_space.toml``."""

    space: Space
    rule: Rule
    untuned: tuple[str, ...] = ()
    only_listed: bool = False


def search_space(
    source: str, *, toml: str | None = None, constants: Mapping[str, Value] | None = None
) -> tuple[Space, dict[str, Value], Rule]:
    """Distributions, the script's own values and the rule of its tunable constants.

    Args:
        source: Text of ``train.py``.
        toml: Text of ``search_space.toml``; None if the testbed has none.
        constants: Of ``train.py`` and ``prepare.py``; the rule may refer to them.

    Raises:
        TestbedError: If nothing is tunable, a constant that the toml names is missing, ambiguous
            or outside its range, or the toml is wrong. It tells of all of these at once.
    """
    own = scan(source)
    constants = constants or {}
    said = _Overrides({}, Rule()) if toml is None else _from_toml(toml)
    inferred, usual, reasons = infer_space(own)
    if said.only_listed:
        inferred = {}
    inferred = {n: d for n, d in inferred.items() if n not in said.untuned and n not in said.space}
    problems = []
    baseline: dict[str, Value] = {}
    for name, distribution in said.space.items():
        try:
            baseline[name] = _baseline(name, distribution, own.get(name))
        except TestbedError as error:
            problems.append(str(error))
    for name, distribution in inferred.items():
        baseline[name] = _valued(distribution, own[name].value)
    known = {**constants, **baseline}
    at_least = dict(said.rule.at_least)
    for name, factors in at_least.items():
        problems += [
            f"{_WHERE}: {name}.at_least must name integer parameters or constants of the scripts,"
            f" but got {factor}."
            for factor in factors
            if factor not in said.space and type(known.get(factor)) is not int
        ]
    for name, factors in usual.at_least.items():
        # A script whose data has no sequence length of that name gets no lower bound from it.
        values = [known.get(factor) for factor in factors]
        if name in inferred and all(isinstance(value, int) for value in values):
            if baseline[name] >= math.prod(values):  # type: ignore[arg-type, operator]
                at_least[name] = factors
    problems += [
        f"{_WHERE} names {name}, but train.py has no constant of that name."
        for name in said.untuned
        if name not in own
    ]
    if problems:
        raise TestbedError.of(problems)
    if not baseline:
        said_why = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:5])
        raise TestbedError(
            "train.py must assign numbers to upper-case names, but none is tunable"
            + (f" ({said_why})." if reasons else ".")
        )
    powers = (*said.rule.powers_of_two, *(n for n in usual.powers_of_two if n in inferred))
    return {**said.space, **inferred}, baseline, Rule(powers, at_least, known)


def left_out(source: str, toml: str | None = None) -> dict[str, str]:
    """Say of each constant of a script that isn't tuned why not.

    Args:
        source: Text of ``train.py``.
        toml: Text of ``search_space.toml``; None if the testbed has none.
    """
    said = _Overrides({}, Rule()) if toml is None else _from_toml(toml)
    inferred, _, reasons = infer_space(scan(source))
    if said.only_listed:
        reasons |= dict.fromkeys(inferred, f"{_WHERE} doesn't list it")
    reasons |= dict.fromkeys(said.untuned, f"{_WHERE} says so")
    return {name: why for name, why in reasons.items() if name not in said.space}


def to_toml(space: Space, baseline: Mapping[str, Value], rule: Rule) -> str:
    """Write a search space as the ``search_space.toml`` that reads back to it."""
    tables = []
    for name, distribution in space.items():
        rows = [f"[{name}]  # {_toml(baseline[name])} in the script"]
        if isinstance(distribution, CategoricalDistribution):
            choices = ", ".join(map(_toml, distribution.choices))
            rows += ['type = "categorical"', f"choices = [{choices}]"]
        else:
            assert isinstance(distribution, (IntDistribution, FloatDistribution))
            kind = "int" if isinstance(distribution, IntDistribution) else "float"
            rows += [f'type = "{kind}"', f"low = {_toml(distribution.low)}"]
            rows.append(f"high = {_toml(distribution.high)}")
            if distribution.log:
                rows.append("log = true")
            elif distribution.step not in (None, 1):
                rows.append(f"step = {_toml(distribution.step)}")
            if name in rule.powers_of_two:
                rows.append("power_of_two = true")
            if factors := rule.at_least.get(name):
                rows.append(f"at_least = [{', '.join(map(_toml, factors))}]")
        tables.append("\n".join(rows))
    return "\n\n".join(tables) + "\n"


def _toml(value: Any) -> str:
    """Write a value of TOML; text in JSON's form, which is one of TOML's."""
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _baseline(name: str, distribution: BaseDistribution, constant: Constant | None) -> Value:
    if constant is None:
        raise TestbedError(f"{_WHERE} names {name}, but train.py doesn't assign a literal to it.")
    if constant.problem:
        raise TestbedError(constant.problem)
    value = constant.value
    assert value is not None
    if isinstance(distribution, CategoricalDistribution):
        inside = any(type(c) is type(value) and c == value for c in distribution.choices)
        allowed = ", ".join(map(repr, distribution.choices))
    else:
        assert isinstance(distribution, (IntDistribution, FloatDistribution))
        types = (int,) if isinstance(distribution, IntDistribution) else (int, float)
        inside = type(value) in types and distribution._contains(float(value))
        allowed = f"{distribution.low} to {distribution.high}"
        if distribution.step not in (None, 1):
            allowed += f" in steps of {distribution.step}"
    if not inside:
        kind = type(distribution).__name__.removesuffix("Distribution").lower()
        raise TestbedError(
            f"train.py:{constant.line}: {name} must be in the range of {_WHERE}, {kind} {allowed},"
            f" but is {value!r}."
        )
    return _valued(distribution, value)


def _valued(distribution: BaseDistribution, value: Value | None) -> Value:
    """Return the script's value as its distribution has it: 0 of a float is 0.0."""
    assert value is not None
    return float(value) if isinstance(distribution, FloatDistribution) else value


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a ``search_space.toml``.

    Raises:
        TestbedError: If it is no TOML.
    """
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond any measure
        raise TestbedError(f"{_WHERE} must be valid TOML, but: {error}.") from None


def _from_toml(text: str) -> _Overrides:
    tables = parse_toml(text)
    space: Space = {}
    powers_of_two, at_least, untuned, problems = [], {}, [], []
    try:
        only_listed = _typed(_WHERE, tables, _ONLY_LISTED, bool, False)
    except TestbedError as error:
        problems.append(str(error))
        only_listed = False
    tables.pop(_ONLY_LISTED, None)
    tables.pop(DERIVED, None)
    for name, table in tables.items():
        try:
            if not isinstance(table, dict):
                raise TestbedError(
                    f"{_WHERE}: {name} must be a table [{name}], but got {table!r}."
                )
            if not _typed(f"{_WHERE}: {name}", table, _TUNE, bool, True):
                untuned.append(name)
                continue
            space[name] = _row(name, {k: v for k, v in table.items() if k != _TUNE})
        except TestbedError as error:
            problems.append(str(error))
            continue
        if table.get("at_least"):
            at_least[name] = tuple(map(str, table["at_least"]))
        if table.get("power_of_two"):
            powers_of_two.append(name)
    if problems:
        raise TestbedError.of(problems)
    return _Overrides(space, Rule(tuple(powers_of_two), at_least), tuple(untuned), only_listed)


def _row(name: str, table: Mapping[str, Any]) -> BaseDistribution:
    """Check a table and return its distribution."""
    where = f"{_WHERE}: {name}"
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise TestbedError(
            f"{where}.type must be int, float or categorical, but got {_shown(kind)}."
        )
    for key in table.keys() - _KEYS[kind]:
        raise TestbedError(
            f"{where} of type {kind} may have {', '.join(sorted(_KEYS[kind]))}, but got {key}."
        )
    distribution = _distribution(where, kind, table)
    _typed(where, table, "at_least", list, [])
    if _typed(where, table, "power_of_two", bool, False):
        for bound in ("low", "high"):
            if table[bound] < 1 or table[bound] & (table[bound] - 1):
                raise TestbedError(
                    f"{where}.{bound} must be a power of two like its values,"
                    f" but got {table[bound]}."
                )
    return distribution


def _distribution(where: str, kind: str, table: Mapping[str, Any]) -> BaseDistribution:
    if kind == "categorical":
        choices = _typed(where, table, "choices", list)
        if not choices or not all(isinstance(c, (bool, int, float, str)) for c in choices):
            raise TestbedError(
                f"{where}.choices must be strings, numbers or truth values, but got {_shown(choices)}."
            )
        for choice in choices:
            if isinstance(choice, float) and not math.isfinite(choice):
                raise TestbedError(f"{where}.choices must be finite, but got {choice}.")
            if isinstance(choice, int) and abs(choice) > LARGEST_INT:
                raise TestbedError(f"{where}.choices must be within 2**53, but one isn't.")
        return CategoricalDistribution(choices)
    number = (int,) if kind == "int" else (int, float)
    low = _typed(where, table, "low", number)
    high = _typed(where, table, "high", number)
    log = _typed(where, table, "log", bool, False)
    step = _typed(where, table, "step", number, None)
    largest, limit = (LARGEST_INT, "2**53") if kind == "int" else (_LARGEST, f"{_LARGEST:g}")
    if max(abs(low), abs(high)) > largest or (step is not None and abs(step) > largest):
        raise TestbedError(f"{where}: low, high and step must be within {limit}, but aren't.")
    if not low <= high:
        raise TestbedError(f"{where}: low <= high must hold, but got low={low}, high={high}.")
    if step is not None and step > 0 and (high - low) / step > LARGEST_INT:
        raise TestbedError(f"{where}.step must be larger for so wide a range, but got {step}.")
    if log and 0 < low < 1 / _LARGEST:
        raise TestbedError(f"{where}.low must be {1 / _LARGEST:g} or more, but got {low}.")
    try:
        if kind == "int":
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(low, high, log=log, step=step)
    except (ValueError, ArithmeticError) as error:
        raise TestbedError(f"{where}: {error}") from None


def _typed(where: str, table: Mapping[str, Any], key: str, kind: Any, *default: Any) -> Any:
    """Return a value of the table, of the right type: true is no number, 1.0 no int."""
    if key not in table and default:
        return default[0]
    value = table.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise TestbedError(f"{where}.{key} must be {names}, but got {_shown(value)}.")
    return value


def _shown(value: object) -> str:
    """Write a value of any size for a message."""
    try:
        return textwrap.shorten(repr(value), 100)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
