"""Numbers that follow from a configuration, such as a width that is a product of two parameters.

``search_space.toml`` may give them as formulas of the parameters, as they are run, and of the scripts'
constants::

    [derived]
    width = "DEPTH * ASPECT_RATIO"
    accumulation_steps = "TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * MAX_SEQ_LEN)"
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import math
import operator
from typing import Any

from objective.testbed.source import parsed
from objective.testbed.source import TestbedError


TABLE = "derived"

# Of the scripts that have the paper's names: the width is rounded up to a multiple of the heads'.
USUAL = {
    "width": "ceil(DEPTH * ASPECT_RATIO / HEAD_DIM) * HEAD_DIM",
    "accumulation_steps": "TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * MAX_SEQ_LEN)",
}

_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "log": math.log,
    "max": max,
    "min": min,
    "sqrt": math.sqrt,
}


@dataclass(frozen=True)
class Derived:
    """A function from effective values to derived ones, as the samplers' argument ``derived``.

    A value that can't be computed (a division by zero) is left out.

    Attributes:
        formulas: Formulas by name.
        constants: Values of the names that are not suggested, as a parameter of a single value
            may not be.
    """

    formulas: Mapping[str, str]
    constants: Mapping[str, Any]

    def __call__(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return the derived values by name."""
        known = {**self.constants, **params}
        values = {}
        for name, formula in self.formulas.items():
            try:
                values[name] = float(_value(parsed(formula, mode="eval").body, known))
            except (ArithmeticError, KeyError, TypeError, ValueError, RecursionError):
                continue
        return values

    @classmethod
    def of(
        cls,
        given: Mapping[str, Any] | None,
        names: Mapping[str, Any],
        constants: Mapping[str, Any],
    ) -> Derived:
        """Read the formulas, or take the usual ones as far as their names are there.

        Args:
            given: The table of ``search_space.toml``; ``None`` if there is none.
            names: The parameters' values in the baseline.
            constants: Of the scripts.

        Raises:
            TestbedError: If one is no formula of known names.
        """
        known = {**constants, **names}
        if given is None:
            usual = cls(USUAL, known)({})
            return cls({name: USUAL[name] for name in usual}, known)
        where = f"search_space.toml: [{TABLE}]"
        for name, formula in given.items():
            try:
                _value(parsed(formula, mode="eval").body, known)
            except KeyError as error:
                raise TestbedError(
                    f"{where}: {name} must be a formula of parameters and constants, but"
                    f" {error.args[0]} is neither."
                ) from None
            except ArithmeticError:
                continue
            except (SyntaxError, TypeError, ValueError, RecursionError):
                raise TestbedError(
                    f"{where}: {name} must be numbers and names with + - * / // and"
                    f" {', '.join(_FUNCTIONS)}, but got {formula!r}."
                ) from None
        return cls(dict(given), known)


def _value(node: ast.expr, known: Mapping[str, Any]) -> float:
    """Compute an expression of numbers, names, operators and functions; nothing else is run."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.Name):
        return float(known[node.id])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, known)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, known), _value(node.right, known))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id in _FUNCTIONS:
            return float(_FUNCTIONS[node.func.id](*(_value(a, known) for a in node.args)))
    raise ValueError(ast.dump(node)[:80])
