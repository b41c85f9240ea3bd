"""The values that a Python script has for its arguments and variables, read without running it.

Understood are ``argparse`` (``add_argument`` with literal defaults), ``os.environ.get(NAME,
default)`` and ``os.getenv(NAME, default)``, and assignments of literals in the module's body, which
scripts such as nanoGPT's let ``--name=value`` override.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from objective.testbed.source import Constant
from objective.testbed.source import literal
from objective.testbed.source import native
from objective.testbed.source import parse_script
from objective.testbed.source import read_text
from objective.testbed.source import TestbedError
from objective.testbed.source import unparsed
from objective.testbed.source import Value


@dataclass(frozen=True)
class Argument:
    """An optional argument of a script.

    Attributes:
        name: Its name in the script (argparse's ``dest``).
        options: Its forms on the command line, such as ``-n`` and ``--name``.
        value: The default, None if it isn't a literal number, string or truth value.
        line: Of the script.
        choices: The values that it may have, empty if anything.
        action: argparse's: ``store`` takes a value, ``store_true``, ``store_false`` and
            ``boolean`` (``BooleanOptionalAction``) are flags; any other can't be set to a value.
    """

    name: str
    options: tuple[str, ...]
    value: Value | None
    line: int
    choices: tuple[Value, ...] = ()
    action: str = "store"
    is_before: bool = False  # a subcommand of the command, behind which it can't be added

    @property
    def option(self) -> str:
        """The first long form, or else the first one."""
        return next((o for o in self.options if o.startswith("--")), self.options[0])

    def words(self, value: Any) -> list[str]:
        """Return what gives it a value on a command line, nothing for a flag that isn't set."""
        if self.action == "boolean":
            return [self.option if value else f"--no-{self.option.lstrip('-')}"]
        if self.action != "store":
            return [self.option] if value == (self.action == "store_true") else []
        if self.option.startswith("--"):
            return [f"{self.option}={text_of(value)}"]
        return [self.option, text_of(value)]

    def constant(self) -> Constant:
        """Return it as what may be tuned of a script."""
        found = Constant(self.name, self.value, self.line, choices=self.choices)
        if self.is_before:
            problem = f"{self.option} must stand before the subcommand: name it in --command."
            return replace(found, problem=problem, why_not="it must stand before the subcommand")
        if self.action in ("store", "store_true", "store_false", "boolean"):
            unread = (
                "its default is none, or can't be read: a table in search_space.toml names one"
            )
            return replace(found, why_not=unread) if self.value is None else found
        problem = f"{self.option} must be an option of one value, or a flag, but is neither."
        why_not = "" if self.value is None else "it is no option of one value, and no flag"
        return replace(found, problem=problem, why_not=why_not)


def text_of(value: Any) -> str:
    """Write a value as a word of a command line; reading a number gives the same one."""
    return value if isinstance(value, str) else repr(native(value))


def read_arguments(
    source: str, filename: str, words: Collection[str] | None = None
) -> dict[str, Argument]:
    """Return the optional arguments that a script gives to ``argparse``, by their names.

    Args:
        source: The script's text.
        filename: Its name, for errors.
        words: Of its command, if that is known: what is of none of its subcommands is left out.

    Raises:
        TestbedError: If the script is not valid Python.
    """
    tree = parse_script(source, filename)
    nodes, bound = list(ast.walk(tree)), list(_bindings(tree))
    # Parsers whose options stand before the subcommand, if the command names one.
    above = [_origin(parser, bound) for _, parser in _calls(nodes, "add_subparsers")]
    subcommands = [_names(call) for call, _ in _calls(nodes, "add_parser")]
    is_named = words is not None and not all(map(set(words).isdisjoint, subcommands))
    found = []
    for call, parser in _calls(nodes, "add_argument"):
        argument, origin = _argument(call), _origin(parser, bound)
        names = _names(origin)
        if argument is None or names and words is not None and set(words).isdisjoint(names):
            continue
        found.append(replace(argument, is_before=is_named and origin in above))
    return {argument.name: argument for argument in sorted(found, key=lambda a: a.line)}


def _calls(nodes: Iterable[ast.AST], method: str) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Yield the calls of a method, each with what it is called on."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == method:
                yield node, node.func.value


def read_subcommands(source: str, filename: str) -> list[list[str]]:
    """Return the subcommands that a script gives to ``argparse``, each with its aliases."""
    nodes = ast.walk(parse_script(source, filename))
    return [names for call, _ in _calls(nodes, "add_parser") if (names := _names(call))]


# Where it ends, what it binds, to what, and the function that it is in.
_Binding = tuple[tuple[int, int], str, ast.AST, ast.stmt | None]


def _bindings(tree: ast.Module) -> Iterator[_Binding]:
    """Yield what assigns to names, attributes and items, loops, and parameters of functions."""
    nodes: list[tuple[ast.AST, ast.stmt | None]] = [(tree, None)]
    while nodes:
        node, within = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            within = node
        nodes += ((child, within) for child in ast.iter_child_nodes(node))
        if isinstance(node, ast.arg):
            yield _end(node), node.arg, node, within
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield _end(node.target), unparsed(node.target), node, within
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield _end(node), unparsed(target), node.value, within
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            yield _end(node), unparsed(node.target), node.value, within


def _end(node: ast.expr | ast.stmt | ast.arg) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0


def _origin(parser: ast.AST, bound: Sequence[_Binding]) -> ast.AST | str:
    """Return what made a parser, or that of which it is a group; its name if that isn't seen.

    Args:
        parser: An expression.
        bound: What binds names, of which the last one before the expression counts; of a variable
            of a function's own only within that.
    """
    if isinstance(parser, ast.NamedExpr):
        return _origin(parser.value, bound)
    if isinstance(parser, ast.Call) and isinstance(parser.func, ast.Attribute):
        is_group = parser.func.attr in ("add_argument_group", "add_mutually_exclusive_group")
        return _origin(parser.func.value, bound) if is_group else parser
    if not isinstance(parser, (ast.Name, ast.Attribute, ast.Subscript)):
        return parser
    place, text = (parser.lineno, parser.col_offset), unparsed(parser)
    is_name = isinstance(parser, ast.Name)
    earlier = [
        found
        for found in bound
        if found[1] == text and found[0] <= place
        if not (is_name and found[3]) or place <= _end(found[3])
    ]
    last = max(earlier, key=lambda found: found[0], default=None)
    return text if last is None else _origin(last[2], bound)


def _names(parser: ast.AST | str) -> list[str]:
    """Return the subcommand whose parser a call makes, and its aliases; nothing if it makes none."""
    if not (isinstance(parser, ast.Call) and isinstance(parser.func, ast.Attribute)):
        return []
    if parser.func.attr != "add_parser":
        return []
    aliases = [keyword.value for keyword in parser.keywords if keyword.arg == "aliases"]
    listed = [e for a in aliases if isinstance(a, (ast.List, ast.Tuple)) for e in a.elts]
    return [n for n in map(literal, [*parser.args[:1], *listed]) if isinstance(n, str)]


def read_imported_arguments(
    source: str, filename: str, folders: Iterable[Path], words: Collection[str] | None = None
) -> dict[str, Argument]:
    """Return the arguments that a module gives to ``argparse`` which the script imports.

    Args:
        source: The script's text.
        filename: Its name, for errors.
        folders: Where its modules are looked for.
        words: As of `read_arguments`.

    Returns:
        Those of the first module that has any, without lines.
    """
    folders = list(folders)
    for node in ast.walk(parse_script(source, filename)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            within = [f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names]
            names = [*filter(None, [node.module]), *within]
        for path in (f / f"{n.replace('.', '/')}.py" for n in names for f in folders):
            if path.is_file():
                with suppress(TestbedError):  # it is the training's to fail by
                    if found := read_arguments(read_text(path), path.name, words):
                        return {name: replace(a, line=0) for name, a in found.items()}
    return {}


def read_variables(source: str, filename: str) -> dict[str, Constant]:
    """Return the defaults of the environment variables that a script reads, by their names."""
    found = {}
    for node in ast.walk(parse_script(source, filename)):
        if not isinstance(node, ast.Call) or len(node.args) != 2:
            continue
        name, default = map(literal, node.args)
        if unparsed(node.func).endswith(("environ.get", "getenv")) and isinstance(name, str):
            found[name] = Constant(name, parse_number(default), node.lineno)
    return found


def read_globals(source: str, filename: str) -> dict[str, Constant]:
    """Return the literals that a script assigns to names in its body; the last one of each."""
    found = {}
    for node in parse_script(source, filename).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = literal(node.value)
            if value is not None:
                name = node.targets[0].id
                found[name] = Constant(name, value, node.lineno)
    return found


def _argument(call: ast.Call) -> Argument | None:
    options = [o for o in map(literal, call.args) if isinstance(o, str) and o.startswith("-")]
    if not options:
        return None
    option = next((o for o in options if o.startswith("--")), options[0])
    keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    name = literal(keywords["dest"]) if "dest" in keywords else None
    name = name if isinstance(name, str) else option.lstrip("-").replace("-", "_")
    action = _action(keywords.get("action"))
    count = literal(keywords["nargs"]) if "nargs" in keywords else None
    if isinstance(count, int) and count > 1:
        action = "several"
    value = literal(keywords["default"]) if "default" in keywords else None
    if action in ("store_true", "store_false") and value is None:
        value = action == "store_false"
    kind = unparsed(keywords["type"]) if "type" in keywords else ""
    if kind == "float" and isinstance(value, (int, str)) and not isinstance(value, bool):
        value = parse_number(value)
        value = float(value) if isinstance(value, int) else value
    elif kind == "int" and isinstance(value, str):
        value = parse_number(value)
    listed = keywords.get("choices")
    choices = tuple(map(literal, listed.elts)) if isinstance(listed, (ast.List, ast.Tuple)) else ()
    known = tuple(choice for choice in choices if choice is not None)
    complete = known if len(known) == len(choices) else ()
    return Argument(name, tuple(options), value, call.lineno, complete, action)


def _action(node: ast.expr | None) -> str:
    if node is None:
        return "store"
    text = literal(node)
    if text is None and unparsed(node).endswith("BooleanOptionalAction"):
        return "boolean"
    return str(text)


def parse_number(value: Value | None) -> Value | None:
    """Return the number that a text holds, or else what came."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
