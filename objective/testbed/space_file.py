"""The format of ``search_space.toml``: parameters, conditions, and how the script is run and read.

A table per parameter, a table of derived numbers, and before them, if wanted, what is otherwise given
by options of the command line (`objective.testbed.interface.Interface`). ``docs/testbeds.md`` has
every key. Every problem of a file is told at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import math
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.testbed.derived import TABLE as DERIVED
from objective.testbed.inference import LARGEST_INT
from objective.testbed.interface import Interface
from objective.testbed.interface import shown
from objective.testbed.nesting import read_toml
from objective.testbed.rule import nearest_power_of_two
from objective.testbed.rule import Rule
from objective.testbed.source import TestbedError
from objective.testbed.source import Value


NAME = "search_space.toml"

ONLY_LISTED, TUNE = "only_listed", "tune"
_SHARED_KEYS = {"type", "default", "when"}
_RANGE_KEYS = _SHARED_KEYS | {"low", "high", "log", "step"}
_KEYS = {
    "int": _RANGE_KEYS | {"power_of_two", "at_least"},
    "float": _RANGE_KEYS,
    "categorical": _SHARED_KEYS | {"choices"},
}
_LARGEST = 1e150  # samplers take squares of ranges


@dataclass(frozen=True)
class SpaceFile:
    """The contents of a ``search_space.toml``.

    Attributes:
        interface: The values that stand before the tables.
        space: Parameters in the order of their tables.
        rule: From suggested values to those that the script is run with.
        defaults: Values of trial 0, for the parameters whose tables have one.
        untuned: Parameters to be left as they are.
        only_listed: Whether parameters without a table are to be left, too.
        derived: The table of formulas, as it stands there, for `objective.testbed.derived`; None
            if there is none.
    """

    interface: Interface = Interface()
    space: dict[str, BaseDistribution] = field(default_factory=dict)
    rule: Rule = Rule()
    defaults: dict[str, Value] = field(default_factory=dict)
    untuned: tuple[str, ...] = ()
    only_listed: bool = False
    derived: dict[str, Any] | None = None

    @classmethod
    def parse(cls, text: str) -> SpaceFile:
        """Read a file of this text.

        Raises:
            TestbedError: If it isn't as described above; of all that is wrong.
        """
        tables = _tables(text)
        derived = tables.pop(DERIVED, None)
        plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
        only_listed = plain.pop(ONLY_LISTED, False)
        interface, problems = Interface.from_table(plain, NAME)
        problems += [f"{NAME}: {problem}" for problem in interface.problems()]
        if not isinstance(only_listed, bool):
            problems.append(f"{NAME}.{ONLY_LISTED} must be bool, but got {shown(only_listed)}.")
        if not isinstance(derived, (dict, type(None))):
            problems.append(
                f"{NAME}: [{DERIVED}] must be a table of formulas, but got {shown(derived)}."
            )
        space: dict[str, BaseDistribution] = {}
        rows: dict[str, dict[str, Any]] = {}
        defaults: dict[str, Value] = {}
        untuned = []
        for name, table in _rows(tables):
            try:
                if name in space or name in untuned:
                    raise TestbedError(f"{name} must have one table, but it has two.")
                if not _typed(name, table, TUNE, bool, True):
                    untuned.append(name)
                    continue
                distribution = _distribution(name, table)
                rows[name] = _rule_row(name, table, space, rows)
                if "default" in table:
                    defaults[name] = fitting(table["default"], distribution, f"{name}.default")
                space[name] = distribution
            except TestbedError as error:
                problems.append(f"{NAME}: {error}")
        if problems:
            raise TestbedError.of(problems)
        rule = Rule.from_rows(rows, {})
        return cls(interface, space, rule, defaults, tuple(untuned), only_listed, derived)


def _tables(text: str) -> dict[str, Any]:
    """Parse a ``search_space.toml``.

    Raises:
        TestbedError: If it is no TOML.
    """
    try:
        tables: dict[str, Any] = read_toml(text.removeprefix("\ufeff"))
        return tables
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep nesting
        raise TestbedError(f"{NAME} must be valid TOML, but: {error}.") from None


def fitting(
    value: Any, distribution: BaseDistribution, where: str, origin: str = "its range"
) -> Value:
    """Return a parameter's value as its distribution has it: 1 is 1.0 for a float.

    Raises:
        TestbedError: If it isn't in the distribution; the message begins with ``where`` and names
            the ``origin`` of the distribution.
    """
    if isinstance(distribution, CategoricalDistribution):
        inside = any(type(c) is type(value) and c == value for c in distribution.choices)
        allowed = ", ".join(map(repr, distribution.choices))
    else:
        assert isinstance(distribution, (IntDistribution, FloatDistribution))
        types = (int,) if isinstance(distribution, IntDistribution) else (int, float)
        inside = type(value) in types and abs(value) <= _LARGEST
        inside = inside and distribution._contains(float(value))
        allowed = f"{distribution.low} to {distribution.high}"
        if distribution.step not in (None, 1):
            allowed += f" in steps of {distribution.step}"
        if isinstance(distribution, FloatDistribution) and inside:
            value = float(value)
    if not inside:
        kind = type(distribution).__name__.removesuffix("Distribution").lower()
        raise TestbedError(
            f"{where} must be in {origin}, {kind} {allowed}, but is {shown(value)}."
        )
    return value


def _rows(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables of parameters: ``[a.b]`` is the parameter ``a.b`` unless ``[a]`` is one."""
    for key, table in tables.items():
        name = f"{prefix}{key}"
        if not isinstance(table, dict):
            continue
        inner = [value for value in table.values() if isinstance(value, dict)]
        if inner and len(inner) == len(table):
            yield from _rows(table, f"{name}.")
        else:
            yield name, table


def _distribution(name: str, table: Mapping[str, Any]) -> BaseDistribution:
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise TestbedError(
            f"{name}.type must be int, float or categorical, but got {shown(kind)}."
        )
    if others := sorted(table.keys() - _KEYS[kind] - {TUNE}):
        raise TestbedError(
            f"{name} of type {kind} may have {', '.join(sorted(_KEYS[kind]))},"
            f" but got {', '.join(others)}."
        )
    if kind == "categorical":
        return _categorical(name, table)
    number = (int,) if kind == "int" else (int, float)
    low = _typed(name, table, "low", number)
    high = _typed(name, table, "high", number)
    log = _typed(name, table, "log", bool, False)
    step = _typed(name, table, "step", number, None)
    largest, limit = (LARGEST_INT, "2**53") if kind == "int" else (_LARGEST, f"{_LARGEST:g}")
    if max(abs(low), abs(high)) > largest or (step is not None and abs(step) > largest):
        raise TestbedError(f"{name}: low, high and step must be within {limit}, but aren't.")
    if not low <= high:
        raise TestbedError(f"{name}: low <= high must hold, but got low={low}, high={high}.")
    if step is not None and step > 0 and (high - low) / step > LARGEST_INT:
        raise TestbedError(f"{name}.step must be larger for so wide a range, but got {step}.")
    if log and 0 < low < 1 / _LARGEST:
        raise TestbedError(f"{name}.low must be {1 / _LARGEST:g} or more, but got {low}.")
    try:
        if kind == "int":
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(low, high, log=log, step=step)
    except (ValueError, ArithmeticError) as error:
        raise TestbedError(f"{name}: {error}") from None


def _categorical(name: str, table: Mapping[str, Any]) -> BaseDistribution:
    choices = _typed(name, table, "choices", list)
    if not choices or not all(isinstance(c, (bool, int, float, str)) for c in choices):
        raise TestbedError(
            f"{name}.choices must be strings, numbers or truth values, but got {shown(choices)}."
        )
    for choice in choices:
        if isinstance(choice, float) and not math.isfinite(choice):
            raise TestbedError(f"{name}.choices must be finite, but got {choice}.")
        if isinstance(choice, int) and abs(choice) > LARGEST_INT:
            raise TestbedError(f"{name}.choices must be within 2**53, but one isn't.")
    if len({(type(c), c) for c in choices}) < len(choices):
        raise TestbedError(f"{name}.choices must differ, but got {shown(choices)}.")
    return CategoricalDistribution(choices)


def _rule_row(
    name: str,
    table: Mapping[str, Any],
    before: Mapping[str, BaseDistribution],
    rows: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return ``power_of_two``, ``at_least`` and ``when`` of a parameter for `Rule.from_rows`.

    ``before`` and ``rows`` are of the parameters above it.
    """
    row: dict[str, Any] = {
        "at_least": list(map(str, _typed(name, table, "at_least", list, []))),
        "power_of_two": _typed(name, table, "power_of_two", bool, False),
        "when": {},
    }
    if row["power_of_two"]:
        for bound in ("low", "high"):
            if table[bound] < 1 or table[bound] & (table[bound] - 1):
                raise TestbedError(
                    f"{name}.{bound} must be a power of two like its values,"
                    f" but got {table[bound]}."
                )
    for other, values in _typed(name, table, "when", dict, {}).items():
        if other not in before:
            raise TestbedError(f"{name}.when must name parameters above it, but got {other}.")
        allowed = values if isinstance(values, list) else [values]
        where = f"{name}.when: {other}"
        row["when"][other] = [fitting(value, before[other], where) for value in allowed]
        if rows[other]["power_of_two"]:
            for value in row["when"][other]:
                if value != nearest_power_of_two(value):
                    raise TestbedError(
                        f"{where} must be a power of two like its values, but is {value}."
                    )
    return row


def _typed(where: str, table: Mapping[str, Any], key: str, kind: Any, *default: Any) -> Any:
    """Return a value of the table, of the right type: true is no number, 1.0 no int."""
    if key not in table and default:
        return default[0]
    value = table.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise TestbedError(f"{where}.{key} must be {names}, but got {shown(value)}.")
    return value
