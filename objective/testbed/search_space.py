"""From a script's own values, such as its upper-case constants, to Optuna distributions.

Those that nobody describes are searched as :mod:`objective.testbed.inference` says.
``search_space.toml`` of the testbed overrides that one by one, and its tables come first
in the order of the space; see :mod:`objective.testbed.space_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import re
from typing import Any

from graphlib import CycleError
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import tomlkit

from objective.testbed.command import TIME_BUDGET
from objective.testbed.derived import TABLE as DERIVED
from objective.testbed.inference import infer_space
from objective.testbed.inference import NO_PART_OF_TRAINING
from objective.testbed.inference import Space
from objective.testbed.rule import Rule
from objective.testbed.source import Constant
from objective.testbed.source import TestbedError
from objective.testbed.source import Value
from objective.testbed.space_file import fitting
from objective.testbed.space_file import NAME
from objective.testbed.space_file import ONLY_LISTED
from objective.testbed.space_file import SpaceFile
from objective.testbed.space_file import TUNE


_WORD = re.compile(r"[\w.+-]{1,16}")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|USER|HOST|PATH|DIR", re.IGNORECASE)


def search_space(
    own: Mapping[str, Constant],
    said: SpaceFile = SpaceFile(),
    *,
    constants: Mapping[str, Value] | None = None,
    script: str = "train.py",
    why_nothing: str = "",
) -> tuple[Space, dict[str, Value], Rule]:
    """Distributions, the script's own values and the rule of its tunable parameters.

    Args:
        own: What may be tuned: constants of the script, its arguments, environment variables, or
            values of a configuration file.
        said: The contents of ``search_space.toml``.
        constants: Of the script and ``prepare.py``; the rule may refer to them.
        script: Its name, for errors.
        why_nothing: What to do if nothing is tunable.

    Raises:
        TestbedError: If nothing is tunable, or what the file names is missing, ambiguous or
            outside its range. It tells of all of these at once.
    """
    constants = constants or {}
    inferred, usual, reasons = infer_space(own)
    if said.only_listed:
        inferred = {}
    inferred = {n: d for n, d in inferred.items() if n not in said.untuned and n not in said.space}
    space = {**said.space, **inferred}
    whole = {n for n, value in constants.items() if type(value) is int and n not in space}
    whole |= {name for name, distribution in space.items() if _is_whole(distribution)}
    problems = []
    baseline: dict[str, Value] = {}
    for name, distribution in said.space.items():
        try:
            baseline[name] = _first_value(name, distribution, own.get(name), said, script)
        except TestbedError as error:
            problems.append(str(error))
    for name, distribution in inferred.items():
        value = own[name].value
        assert value is not None
        baseline[name] = float(value) if isinstance(distribution, FloatDistribution) else value
    known: dict[str, Any] = {**constants, **baseline}
    at_least = dict(said.rule.at_least)
    for name, factors in at_least.items():
        problems += [
            f"{NAME}: {name}.at_least must name integer parameters or constants of the scripts,"
            f" but got {factor}."
            for factor in factors
            if factor not in whole
        ]
    for name, factors in usual.at_least.items():
        # A script whose data has no sequence length of that name gets no lower bound from it.
        if name in inferred and (whole & known.keys()).issuperset(factors):
            if baseline[name] >= math.prod(known[f] for f in factors):
                at_least[name] = factors
    problems += [
        f"{NAME} names {name}, but {script} has nothing of that name."
        for name in said.untuned
        if name not in own
    ]
    powers = (*said.rule.powers_of_two, *(n for n in usual.powers_of_two if n in inferred))
    rule = Rule(powers, at_least, known, said.rule.only_when)
    try:
        rule.order  # as the rule is going to need it
    except CycleError as error:
        problems.append(
            f"{NAME}: at_least and when must not lead from a parameter back to it, but got"
            f" {' -> '.join(error.args[1])}."
        )
    if problems:
        raise TestbedError.of(problems)
    if not baseline:
        said_why = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:5])
        raise TestbedError(
            f"{script} must assign numbers to upper-case names, but none is tunable"
            + (f" ({said_why})" if reasons else "")
            + (f"; {why_nothing}" if why_nothing else "")
            + "."
        )
    return space, baseline, rule


def _is_whole(distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return all(type(choice) is int for choice in distribution.choices)
    return isinstance(distribution, IntDistribution)


def left_out(own: Mapping[str, Constant], said: SpaceFile) -> dict[str, str]:
    """Say of each of a script's own values that isn't tuned why not; see :func:`search_space`."""
    inferred, _, reasons = infer_space(own)
    if said.only_listed:
        reasons |= dict.fromkeys(inferred, f"{NAME} doesn't list it")
    reasons |= dict.fromkeys(said.untuned, f"{NAME} says so")
    return {name: why for name, why in reasons.items() if name not in said.space}


def told_fixed(own: Mapping[str, Constant], left_out: Mapping[str, str]) -> dict[str, Value]:
    """Return what isn't tuned but matters to whoever chooses the others: ``OPTIMIZER = "sgd"``.

    Without the training time, which an option may set, and texts that may be a path or a secret.
    """
    return {
        name: value
        for name, why in left_out.items()
        if why not in NO_PART_OF_TRAINING
        and name != TIME_BUDGET
        and not own[name].problem
        and (value := own[name].value) is not None
        and (not isinstance(value, str) or (_WORD.fullmatch(value) and not _SECRET.search(name)))
    }


def to_toml(
    space: Space, baseline: Mapping[str, Value], rule: Rule, said: SpaceFile = SpaceFile()
) -> str:
    """Write a search space as the ``search_space.toml`` that reads back to it.

    ``said`` is the contents of the one that it was made with: what isn't in the space stays as it
    is there. The values of ``baseline`` become comments.
    """
    document = tomlkit.document()
    for key, text in vars(said.interface).items():
        if text is not None:
            document.add(key, text)
    if said.only_listed:
        document.add(ONLY_LISTED, True)
    if document:
        document.add(tomlkit.nl())
    for name, distribution in space.items():
        table = tomlkit.table()
        if name in baseline and name not in said.defaults:
            table.comment(f"{tomlkit.item(baseline[name]).as_string()} in the script")
        if isinstance(distribution, CategoricalDistribution):
            table |= {"type": "categorical", "choices": list(distribution.choices)}
        else:
            assert isinstance(distribution, (IntDistribution, FloatDistribution))
            table["type"] = "int" if isinstance(distribution, IntDistribution) else "float"
            table |= {"low": distribution.low, "high": distribution.high}
            if distribution.log:
                table["log"] = True
            elif distribution.step != (1 if table["type"] == "int" else None):
                table["step"] = distribution.step
            if name in rule.powers_of_two:
                table["power_of_two"] = True
            if factors := rule.at_least.get(name):
                table["at_least"] = list(factors)
        if conditions := rule.only_when.get(name):
            when = tomlkit.inline_table()
            when |= {other: list(values) for other, values in conditions.items()}
            table["when"] = when
        if name in said.defaults:
            table["default"] = said.defaults[name]
        document.add(name, table)
    for name in said.untuned:
        document.add(name, tomlkit.item({TUNE: False}))
    if said.derived is not None:
        document.add(DERIVED, tomlkit.item(said.derived))
    return tomlkit.dumps(document)


def to_lines(space: Space, rule: Rule, said: SpaceFile = SpaceFile()) -> list[str]:
    """Write a search space's tables as lines, which stand before a file's other tables."""
    lines = []
    for name, table in tomlkit.parse(to_toml(space, {}, rule, said)).unwrap().items():
        inline = tomlkit.inline_table()
        inline |= table
        document = tomlkit.document()
        document.add(name, inline)
        lines.append(tomlkit.dumps(document).strip())
    return lines


def _first_value(
    name: str,
    distribution: BaseDistribution,
    constant: Constant | None,
    said: SpaceFile,
    script: str,
) -> Value:
    """Return a parameter's default, or the script's own value, which must be in its range."""
    if constant is None:
        raise TestbedError(f"{NAME} names {name}, but {script} doesn't assign a literal to it.")
    if constant.problem:  # it can't be given any other value
        raise TestbedError(constant.problem)
    if name in said.defaults:
        return said.defaults[name]
    if constant.value is None:
        raise TestbedError(
            f"{NAME} must give {name} a default, for the script's own value can't be read."
        )
    where = f"{script}:{constant.line}" if constant.line else script
    return fitting(constant.value, distribution, f"{where}: {name}", f"the range of {NAME}")
