"""From the upper-case constants of a script to Optuna distributions.

Three sources, the first that applies:

1. ``search_space.toml`` of the testbed, a table per constant::

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

2. The 14 rows of the paper (Ferreira et al., 2026, arXiv:2603.24647), if the script has a constant
   of at least one of these names. Its other constants are left alone.
3. Inferred ranges around the script's own values, as in the paper's implementation: an int within
   a factor of 4, a float within a factor of 10 (100 and logarithmic if it is below 0.01), a bool
   either way. Strings have no neighbours to infer and are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
import math
import sys
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.testbed.rule import Rule
from objective.testbed.source import Constant
from objective.testbed.source import scan
from objective.testbed.source import TestbedError
from objective.testbed.source import Value


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


Space = dict[str, BaseDistribution]

PAPER_SPACE: Space = {
    "DEPTH": IntDistribution(4, 24),
    "ASPECT_RATIO": IntDistribution(32, 128),
    "HEAD_DIM": IntDistribution(64, 256, log=True),
    "DEVICE_BATCH_SIZE": IntDistribution(32, 256, log=True),
    "TOTAL_BATCH_SIZE": IntDistribution(65_536, 2_097_152, log=True),
    "EMBEDDING_LR": FloatDistribution(0.01, 2.0, log=True),
    "UNEMBEDDING_LR": FloatDistribution(0.0005, 0.05, log=True),
    "MATRIX_LR": FloatDistribution(0.005, 0.2, log=True),
    "SCALAR_LR": FloatDistribution(0.05, 2.0, log=True),
    "WEIGHT_DECAY": FloatDistribution(0.0, 0.5),
    "WARMUP_RATIO": FloatDistribution(0.0, 0.3),
    "WARMDOWN_RATIO": FloatDistribution(0.1, 0.8),
    "FINAL_LR_FRAC": FloatDistribution(0.0, 0.2),
    "WINDOW_PATTERN": CategoricalDistribution(["SSSL", "SSLL", "SLSL", "LLLL", "SSSS", "LSSL"]),
}
PAPER_RULE = Rule(
    ("HEAD_DIM", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE"),
    {"TOTAL_BATCH_SIZE": ("DEVICE_BATCH_SIZE", "MAX_SEQ_LEN")},
)

# Constants that describe data and hardware, although they look like hyperparameters.
_NOT_TUNABLE = {"MAX_SEQ_LEN", "TIME_BUDGET", "EVAL_TOKENS", "H100_BF16_PEAK_FLOPS", "SEED"}

_NUMBER_KEYS = {"type", "low", "high", "log", "step", "power_of_two", "at_least"}
_KEYS = {"int": _NUMBER_KEYS, "float": _NUMBER_KEYS - {"power_of_two", "at_least"}}
_KEYS["categorical"] = {"type", "choices"}


def search_space(
    source: str, *, toml: str | None = None, constants: Mapping[str, Value] | None = None
) -> tuple[Space, dict[str, Value], Rule]:
    """Distributions, the script's own values and the rule of its tunable constants.

    Args:
        source: Text of ``train.py``.
        toml: Text of ``search_space.toml``; None if the testbed has none.
        constants: Of ``train.py`` and ``prepare.py``; the rule may refer to them.

    Raises:
        TestbedError: If nothing is tunable, a tunable constant is missing, ambiguous or outside
            its range, or the toml is wrong.
    """
    own = scan(source)
    constants = constants or {}
    if toml is not None:
        origin = "search_space.toml"
        space, rule = _from_toml(toml)
    elif PAPER_SPACE.keys() & own.keys():
        origin = "the default range (a search_space.toml sets another)"
        space = {name: d for name, d in PAPER_SPACE.items() if name in own}
        # A script whose data has no sequence length of that name gets no lower bound from it.
        known = space.keys() | constants.keys()
        rule = Rule(
            tuple(name for name in PAPER_RULE.powers_of_two if name in own),
            {n: f for n, f in PAPER_RULE.at_least.items() if n in own and known >= set(f)},
        )
    else:
        origin = "the inferred range"
        space, rule = _inferred(own), Rule()
    if not space:
        raise TestbedError(
            "train.py must assign numbers to upper-case names, but none is tunable."
        )
    baseline: dict[str, Value] = {}
    for name, distribution in space.items():
        baseline[name] = _baseline(name, distribution, own.get(name), origin)
    for name, factors in rule.at_least.items():
        for factor in factors:
            if not isinstance(baseline.get(factor, constants.get(factor)), int):
                raise TestbedError(
                    f"{origin}: {name}.at_least must name integer parameters or constants of"
                    f" the scripts, but got {factor}."
                )
    return space, baseline, replace(rule, constants={**constants, **baseline})


def _baseline(
    name: str, distribution: BaseDistribution, constant: Constant | None, origin: str
) -> Value:
    if constant is None:
        raise TestbedError(f"{origin} names {name}, but train.py doesn't assign a literal to it.")
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
        if isinstance(distribution, FloatDistribution) and inside:
            value = float(value)
    if not inside:
        kind = type(distribution).__name__.removesuffix("Distribution").lower()
        raise TestbedError(
            f"train.py:{constant.line}: {name} must be in {origin}, {kind} {allowed},"
            f" but is {value!r}."
        )
    return value


def _from_toml(text: str) -> tuple[Space, Rule]:
    where = "search_space.toml"
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TestbedError(f"{where} must be valid TOML, but: {error}.") from None
    space: Space = {}
    powers_of_two, at_least = [], {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise TestbedError(f"{where}: {name} must be a table [{name}], but got {table!r}.")
        kind = table.get("type")
        if not isinstance(kind, str) or kind not in _KEYS:
            raise TestbedError(
                f"{where}: {name}.type must be int, float or categorical, but got {kind!r}."
            )
        for key in table.keys() - _KEYS[kind]:
            raise TestbedError(
                f"{where}: {name} of type {kind} may have {', '.join(sorted(_KEYS[kind]))},"
                f" but got {key}."
            )
        space[name] = _distribution(f"{where}: {name}", kind, table)
        if factors := _typed(f"{where}: {name}", table, "at_least", list, []):
            at_least[name] = tuple(map(str, factors))
        if _typed(f"{where}: {name}", table, "power_of_two", bool, False):
            powers_of_two.append(name)
            for bound in ("low", "high"):
                if table[bound] < 1 or table[bound] & (table[bound] - 1):
                    raise TestbedError(
                        f"{where}: {name}.{bound} must be a power of two like its values,"
                        f" but got {table[bound]}."
                    )
    return space, Rule(tuple(powers_of_two), at_least)


def _distribution(where: str, kind: str, table: Mapping[str, Any]) -> BaseDistribution:
    if kind == "categorical":
        choices = _typed(where, table, "choices", list)
        if not choices or not all(isinstance(c, (bool, int, float, str)) for c in choices):
            raise TestbedError(
                f"{where}.choices must be strings, numbers or truth values, but got {choices!r}."
            )
        for choice in choices:
            if isinstance(choice, float) and not math.isfinite(choice):
                raise TestbedError(f"{where}.choices must be finite, but got {choice}.")
        return CategoricalDistribution(choices)
    number = (int,) if kind == "int" else (int, float)
    low = _typed(where, table, "low", number)
    high = _typed(where, table, "high", number)
    log = _typed(where, table, "log", bool, False)
    step = _typed(where, table, "step", number, None)
    if not -math.inf < low <= high < math.inf:
        raise TestbedError(f"{where}: low <= high must hold, but got low={low}, high={high}.")
    if step is not None and not math.isfinite(step):
        raise TestbedError(f"{where}.step must be finite, but got {step}.")
    try:
        if kind == "int":
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise TestbedError(f"{where}: {error}") from None


def _typed(where: str, table: Mapping[str, Any], key: str, kind: Any, *default: Any) -> Any:
    """Return a value of the table, of the right type: true is no number, 1.0 no int."""
    if key not in table and default:
        return default[0]
    value = table.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise TestbedError(f"{where}.{key} must be {names}, but got {value!r}.")
    return value


def _inferred(constants: Mapping[str, Constant]) -> Space:
    space: Space = {}
    for name, constant in constants.items():
        if name in _NOT_TUNABLE or constant.value is None:
            continue
        if constant.problem:
            raise TestbedError(f"{constant.problem[:-1]}; a search_space.toml can leave it out.")
        distribution = inferred(name, constant.value)
        if distribution is not None:
            space[name] = distribution
    return space


def inferred(name: str, value: Value) -> BaseDistribution | None:
    """Return a range around a constant's value, see the module; None if it has none to infer."""
    if name in _NOT_TUNABLE or isinstance(value, str):
        return None
    if isinstance(value, bool):
        return CategoricalDistribution([False, True])
    if value <= 0:
        return None
    if isinstance(value, int):
        return IntDistribution(max(1, value // 4), value * 4)
    factor, log = (100, True) if value < 0.01 else (10, False)
    return FloatDistribution(value / factor, value * factor, log=log)
