"""The values that a Python script has for its arguments and variables, read without running it.

Understood are ``argparse`` (``add_argument`` with literal defaults), ``os.environ.get(NAME,
default)`` and ``os.getenv(NAME, default)``, and assignments of literals in the module's body, which
scripts such as nanoGPT's let ``--name=value`` override.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
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
        if self.action in ("store", "store_true", "store_false", "boolean"):
            return found
        problem = f"{self.option} must be an option of one value, or a flag, but is neither."
        why_not = "" if self.value is None else "it is no option of one value, and no flag"
        return replace(found, problem=problem, why_not=why_not)


def text_of(value: Any) -> str:
    """Write a value as a word of a command line; reading a number gives the same one."""
    return value if isinstance(value, str) else repr(native(value))


def read_arguments(source: str, filename: str) -> dict[str, Argument]:
    """Return the optional arguments that a script gives to ``argparse``, by their names.

    Raises:
        TestbedError: If the script is not valid Python.
    """
    calls = (
        node
        for node in ast.walk(parse_script(source, filename))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
    )
    found = filter(None, map(_argument, calls))
    return {argument.name: argument for argument in sorted(found, key=lambda a: a.line)}


def read_imported_arguments(
    source: str, filename: str, folders: Iterable[Path]
) -> dict[str, Argument]:
    """Return the arguments that a module gives to ``argparse`` which the script imports.

    Args:
        source: The script's text.
        filename: Its name, for errors.
        folders: Where its modules are looked for.

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
                    if found := read_arguments(read_text(path), path.name):
                        return {name: replace(a, line=0) for name, a in found.items()}
    return {}


def read_variables(source: str, filename: str) -> dict[str, Constant]:
    """Return the defaults of the environment variables that a script reads, by their names."""
    found = {}
    for node in ast.walk(parse_script(source, filename)):
        if not isinstance(node, ast.Call) or len(node.args) != 2:
            continue
        name, default = map(literal, node.args)
        if ast.unparse(node.func).endswith(("environ.get", "getenv")) and isinstance(name, str):
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
    kind = ast.unparse(keywords["type"]) if "type" in keywords else ""
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
    if text is None and ast.unparse(node).endswith("BooleanOptionalAction"):
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
