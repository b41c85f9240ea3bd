"""Read and set the upper-case constants of a training script, byte for byte as it was otherwise.

A *constant* is a module-level assignment of a literal to one upper-case name::

    DEPTH = 8                          # int
    TOTAL_BATCH_SIZE = 2**19           # a product, power or shift of numbers
    MATRIX_LR: float = 0.04            # annotated
    WINDOW_PATTERN = "SSSL"            # str; so is bool
    ADAM_BETAS = (0.8, 0.95)           # no constant: not one number, string or truth value

A name that is bound in any other place too (a second assignment, inside an ``if`` or a function, a
loop variable, an import) has no single value that could be set; it is listed as ambiguous, with
its lines, so that whoever wants to tune it gets an error and everybody else isn't bothered.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
import operator
from pathlib import Path
import re
from typing import Any


Value = int | float | str | bool

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_OPERATORS = {ast.Mult: operator.mul, ast.Pow: operator.pow, ast.LShift: operator.lshift}
# What Python's tokenizer takes for the end of a line; str.splitlines would also break at form
# feeds and U+2028, which are ordinary characters to it.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")


_LONGEST_MESSAGE = 4000  # characters


class TestbedError(ValueError):
    """A testbed that can't be used as it is. The message is one line that says what to change."""

    __test__ = False  # it is no test, whatever pytest thinks of its name

    def __init__(self, message: str) -> None:
        # It quotes files, which may hold anything.
        line = " ".join(message.split())[:_LONGEST_MESSAGE]
        super().__init__("".join(c if c.isprintable() else "\ufffd" for c in line))

    @classmethod
    def of(cls, problems: Sequence[str]) -> TestbedError:
        """Make one error of all problems that were found, a sentence each."""
        if len(problems) == 1:
            return cls(problems[0])
        numbered = (f"({number}) {problem}" for number, problem in enumerate(problems, 1))
        return cls(f"{len(problems)} problems: {' '.join(numbered)}")


@dataclass(frozen=True)
class Constant:
    """One upper-case constant of a script, or what else may be tuned of it.

    ``source[start:end]`` is the text of its value. If ``problem`` isn't empty, there is no such
    place: it says why and names the lines, ``why_not`` says the same in a few words (none for a
    name that only functions and classes use), and ``value`` is None or one of several.
    """

    name: str
    value: Value | None
    line: int
    start: int = 0
    end: int = 0
    problem: str = ""
    why_not: str = ""
    choices: tuple[Value, ...] = ()  # the values that it may have, where the script says so


def read_constants(source: str, filename: str = "train.py") -> dict[str, Constant]:
    """Return the literal constants of a script in the order of their lines.

    Raises:
        TestbedError: If the script is not valid Python.
    """
    return {name: c for name, c in scan(source, filename).items() if not c.problem}


def scan(source: str, filename: str = "train.py") -> dict[str, Constant]:
    """Like :func:`read_constants`, with the names that can't be set and their ``problem``.

    Names that are only imported are left out.
    """
    tree = parse_script(source, filename)
    # Line numbers count from 1.
    starts = [0] + [match.start() for match in _LINE.finditer(source)]
    found: dict[str, Constant] = {}
    for statement in tree.body:
        name, node = _assignment(statement)
        value = None if node is None else literal(node)
        if node is not None and value is not None:
            start = _offset(source, starts, node.lineno, node.col_offset)
            end = _offset(source, starts, node.end_lineno or 0, node.end_col_offset or 0)
            found[name] = Constant(name, value, statement.lineno, start, end)
    plain = {name for name, _ in map(_assignment, tree.body)}
    aliases = [node for node in ast.walk(tree) if isinstance(node, ast.alias)]
    imported = {alias.asname or alias.name for alias in aliases}
    of_module = _bindings(tree, of_module=True)
    for name, lines in _bindings(tree).items():
        if len(lines) > 1:
            where = "lines " + ", ".join(map(str, lines))
            problem = f"{filename}: {name} must be assigned once, but is bound on {where}."
            why_not = f"it is bound on {where}"
        elif name not in plain and name not in imported:
            problem = (
                f"{filename}: {name} must be set by `{name} = value` in the module's body,"
                f" but line {lines[0]} isn't."
            )
            why_not = "it is bound inside another statement"
        elif name not in found and name not in imported:
            problem = f"{filename} must assign a literal to {name}, but it doesn't."
            why_not = "it is not one number, text or truth value"
        else:
            continue
        value = found[name].value if name in found else None
        why_not = why_not if name in of_module else ""
        found[name] = Constant(name, value, lines[0], problem=problem, why_not=why_not)
    return dict(sorted(found.items(), key=lambda item: item[1].line))


def set_constants(source: str, values: Mapping[str, Any], filename: str = "train.py") -> str:
    """Return the script with other values for some of its constants.

    Only the text of a value changes, and only where it differs: setting 524288 leaves ``2**19``
    as it is. Floats are written by ``repr``, so that reading gives back the same number.

    Raises:
        TestbedError: If the script has no such constant, or a value can't be written as a literal.
    """
    constants = scan(source, filename)
    pieces = []
    for name, value in values.items():
        constant = constants.get(name)
        if constant is None:
            raise TestbedError(f"{filename} must assign a literal to {name}, but it doesn't.")
        if constant.problem:
            raise TestbedError(constant.problem)
        value = native(value)
        if not (
            isinstance(value, str) or isinstance(value, (int, float)) and math.isfinite(value)
        ):
            raise TestbedError(
                f"{name} must be a finite number, a string or a bool, not {value!r}."
            )
        if repr(value) != repr(constant.value):  # 1, 1.0 and True differ, and 0.0 and -0.0
            pieces.append((constant.start, constant.end, repr(value)))
    return spliced(source, pieces)


def native(value: Any) -> Any:
    """Return a value as Python's own, where numpy has a scalar."""
    return value.item() if hasattr(value, "item") else value


def spliced(text: str, pieces: Iterable[tuple[int, int, str]]) -> str:
    """Return a text with others in place of some of its pieces, each from a start to an end."""
    for start, end, other in sorted(pieces, reverse=True):
        text = text[:start] + other + text[end:]
    return text


def parse_script(source: str, filename: str) -> ast.Module:
    """Return the syntax tree of a script.

    Raises:
        TestbedError: If it is not valid Python.
    """
    try:
        # A byte order mark belongs to the file, not to the program.
        return parsed(source.removeprefix("\ufeff"), filename)
    except SyntaxError as error:
        where = f"line {error.lineno} isn't: " if error.lineno else ""
        raise TestbedError(f"{filename} must be valid Python, but {where}{error.msg}.") from None
    except ValueError as error:  # null bytes
        raise TestbedError(f"{filename} must be valid Python, but {error}.") from None


def parsed(source: str | bytes, filename: str = "<unknown>", mode: str = "exec") -> Any:
    """Return a syntax tree, as `ast.parse` does.

    Raises:
        SyntaxError: If it is not valid Python, or nested too deep for `ast.parse`, which tells that
            by one of three other errors.
        ValueError: If it holds null bytes.
    """
    try:
        return ast.parse(source, filename, mode)
    except (RecursionError, MemoryError, SystemError):
        raise SyntaxError("it is nested too deep") from None


def unparsed(node: ast.AST) -> str:
    """Return the text of a syntax tree; "" if it is nested too deep for `ast.unparse`."""
    try:
        return ast.unparse(node)
    except RecursionError:  # of a long sum of texts, or a long chain of calls, say
        return ""


def _bindings(tree: ast.Module, *, of_module: bool = False) -> dict[str, list[int]]:
    """Return the lines of everything that binds an upper-case name, in any scope or the module's."""
    found: dict[str, list[int]] = {}
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if not (of_module and isinstance(node, _SCOPES)):
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            name = node.id
        elif isinstance(node, ast.alias):
            name = node.asname or node.name
        else:
            continue
        if _NAME.fullmatch(name):
            found.setdefault(name, []).append(node.lineno)
    return {name: sorted(lines) for name, lines in found.items()}


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr | None]:
    """Split ``NAME = value`` into name and value; ("", None) for any other statement."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target, value = statement.target, statement.value
    else:
        return "", None
    if isinstance(target, ast.Name) and _NAME.fullmatch(target.id):
        return target.id, value
    return "", None


def literal(node: ast.expr) -> Value | None:
    """Return the value of a literal of one of our four types, else None."""
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, (bool, str)):
            return value
        return _finite(value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _number(node.operand)
        return None if value is None else -value if isinstance(node.op, ast.USub) else value
    return _number(node)


def _number(node: ast.expr) -> int | float | None:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = literal(node.left), literal(node.right)
        for side in (left, right):
            # The bound keeps 9**9**9 from being computed; no hyperparameter is near it.
            if isinstance(side, (bool, str)) or side is None or abs(side) > 2**64:
                return None
        if not isinstance(node.op, ast.Mult) and abs(right) > 64:  # type: ignore[arg-type]
            return None
        try:
            value = _OPERATORS[type(node.op)](left, right)
        except (ArithmeticError, ValueError, TypeError):
            return None
    else:
        value = literal(node) if isinstance(node, ast.Constant) else None
    return None if isinstance(value, (bool, str)) else _finite(value)


def _finite(value: object) -> int | float | None:
    """Return a number that a double can hold, else None; Python's integers may be longer."""
    if isinstance(value, int):
        return value if abs(value) < 2**1023 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _offset(source: str, starts: list[int], line: int, column: int) -> int:
    """Return the index into the text of a position that ast gives in bytes of UTF-8."""
    start = starts[line]
    if line == 1 and source.startswith("\ufeff"):
        start += 1
    text = source[start : start + column]  # at least as many characters as needed
    return start + len(text.encode()[:column].decode())


def read_text(path: Path) -> str:
    """Return the text of a file with its line ends as they are.

    Raises:
        TestbedError: If it isn't there, isn't readable, or isn't UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise TestbedError(f"{path} must be UTF-8, but byte {error.start} isn't.") from None
    except OSError as error:
        raise TestbedError(f"{path} must be readable, but: {error.strerror}.") from None
