"""Follows the names of a script: which of them may stand for something that it imports.

By its text alone, so that code that means to hide it can.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from typing_extensions import TypeGuard


Nodes = Sequence[ast.AST]

_CLASS = "type()"  # stands for the class of something
_DEEPEST = 20  # parts of a name that are looked at


def imported_names(nodes: Nodes) -> dict[str, str]:
    """Return every name of something imported and what it is, such as F: torch.nn.functional.

    A name counts as one of whatever it is given anywhere: by an assignment, by a loop over it, as an
    argument. The class of something, however it was come by, counts as imported.
    """
    names = {_CLASS: "a class"}
    given: list[tuple[ast.expr, ast.expr]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                names[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                given += _pairs(target, node.value)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            given.append((node.target, node.value))
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            elements = getattr(node.iter, "elts", [node.iter])
            given += [pair for element in elements for pair in _pairs(node.target, element)]
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            given += _pairs(node.optional_vars, node.context_expr)
    given += _arguments(nodes)
    # Other names for them: G = F, then H = G, in whatever order they stand.
    others: dict[str, list[tuple[str, list[str]]]] = {}
    for target, value in given:
        if isinstance(target, ast.Name):
            for root, *path in paths(value):
                others.setdefault(root, []).append((target.id, path))
    found = [*names]
    for name in found:  # which grows
        for other, path in others.get(name, ()):
            if other not in names:
                names[other] = ".".join((names[name], *path))
                found.append(other)
    return names


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Split ``a, b = c, d`` into its assignments."""
    if isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
        return [pair for both in zip(target.elts, value.elts) for pair in _pairs(*both)]
    return [(target, value)]


def _arguments(nodes: Nodes) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Pair the parameters of a script's own functions with what they are called with."""
    parameters: dict[str, list[str]] = {}
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            parameters[node.name] = found
            defaults = node.args.defaults
            yield from zip(map(_named, found[len(found) - len(defaults) :]), defaults)
    for node in nodes:
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Lambda):
                taken = [a.arg for a in node.func.args.args]
            else:
                taken = parameters.get(last_name(node.func), [])
            if isinstance(node.func, ast.Attribute):
                # A method's first parameter is the object; a static one's, or that of another
                # module's function, is not.
                if taken[:1] not in (["self"], ["cls"]):
                    yield from zip(map(_named, taken), node.args)
                taken = taken[1:]
            words = [word for word in node.keywords if word.arg in taken]
            yield from zip(map(_named, taken), node.args)
            yield from ((_named(word.arg), word.value) for word in words)


def _named(name: str | None) -> ast.expr:
    return ast.Name(name or "", ast.Store())


def paths(node: ast.expr) -> Iterator[list[str]]:
    """Yield each ``a.b.c`` that an expression may be, or be one part of, as its names."""
    todo: list[tuple[ast.expr, tuple[Any, ...]]] = [(node, ())]
    while todo:
        node, behind = todo.pop()  # names behind it, as (nearest, (next, ...))
        while True:
            if isinstance(node, ast.Attribute) and node.attr == "__class__":
                node = ast.Call(_named("type"), [node.value], [])
            elif isinstance(node, ast.Attribute):
                behind = (node.attr, behind)
                node = node.value
            elif isinstance(node, (ast.Subscript, ast.NamedExpr, ast.Starred)):
                node = node.value
            elif _is_call(node, "getattr", "nullcontext") and node.args:
                text = getattr(node.args[-1], "value", None) if len(node.args) == 2 else None
                node, behind = node.args[0], (text, behind) if isinstance(text, str) else behind
            else:
                break
        names: list[str] = []
        while behind and len(names) < _DEEPEST:
            name, behind = behind
            names.append(name)
        if isinstance(node, ast.Name):
            yield [node.id, *names]
        elif _is_call(node, "type") and len(node.args) == 1 and not is_name(node.args[0], "self"):
            yield [_CLASS, *names]
        elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            todo += [(element, ()) for element in node.elts]
        elif isinstance(node, (ast.Dict, ast.BoolOp)):
            todo += [(value, ()) for value in node.values]
        elif isinstance(node, ast.IfExp):
            todo += [(node.body, ()), (node.orelse, ())]


def _is_call(node: ast.expr, *names: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and last_name(node.func) in names


def last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_name(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names
