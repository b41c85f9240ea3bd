"""Validates a proposed source before a second of training is spent on it.

This is no protection: code that means harm gets past any reading of its text, and the sandbox
(objective/run/sandbox.py) is what confines it. The validator refuses what would only waste a run (a
syntax error, a source that was run before) or make its value worthless (an evaluation that is left
out or redefined, access to the channel that carries the metric), in a sentence that the model gets
back.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import io
import re
import tokenize
import warnings

from objective.run.outcome import one_line
from objective.testbed.metric import METRIC
from objective.testbed.testbed import TIME_BUDGET
from studies.code_agent.files import split
from studies.code_agent.names import imported_names
from studies.code_agent.names import is_name
from studies.code_agent.names import last_name
from studies.code_agent.names import Nodes
from studies.code_agent.names import paths


MAX_SOURCE_BYTES = 200_000
_ORDER_MARK = "\ufeff"  # which belongs to the file
# Ways for code to reach into the process that measures it. A name that the baseline uses itself is
# not refused (karpathy/autoresearch, for one, imports gc).
_REACHING_MODULES = frozenset(
    {"ctypes", "cffi", "inspect", "gc", "importlib", "builtins", "imp", "code", "unittest"}
)
# Calls that write to, or give away the insides of, their first argument.
_WRITERS = frozenset({"setattr", "delattr", "__setattr__", "__delattr__", "vars", "object"})
# Parts of a module that are there to be set.
_SETTINGS = frozenset({"backends", "config", "environ"})
_REACHING_NAMES = frozenset(
    {
        "__closure__",
        "__globals__",
        "__code__",
        "__builtins__",
        "cell_contents",
        "f_back",
        "f_globals",
        "f_locals",
        "tb_frame",
        "_getframe",
        "_current_frames",
        "get_objects",
        "get_referents",
        "get_referrers",
        "settrace",
        "setprofile",
        "pythonapi",
        "py_object",
        "__dict__",
        "__setattr__",
        "__subclasses__",
        "__torch_function__",
        "__torch_dispatch__",
        "TorchFunctionMode",
        "TorchDispatchMode",
    }
)
# Only as names: `model.eval()` and `torch.compile(model)` are something else.
_REACHING_FUNCTIONS = frozenset(
    {"exec", "eval", "compile", "globals", "locals", "__import__", "breakpoint"}
)
_REACHING_TEXT = ("/proc/", "/dev/fd")


class ValidationError(ValueError):
    """A source that is not run. The message is one sentence, which its author gets word for word."""


_TOO_DEEP = "The script doesn't compile: it is nested too deeply, or a number in it is too long."


def fingerprint(source: str) -> str:
    """Hash a source (64 hex digits) without its comments, docstrings and formatting.

    Raises:
        ValidationError: the source doesn't parse.
    """
    texts = split(source).values()
    return _of_all([_fingerprint(_parse(text.removeprefix(_ORDER_MARK))) for text in texts])


def _of_all(prints: Sequence[str]) -> str:
    """Return the fingerprint of files: that of the only one, or a hash of them all."""
    if len(prints) == 1:
        return prints[0]
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()


def _fingerprint(nodes: Nodes) -> str:
    """Hash a tree, whose nodes lose what does nothing."""
    for node in nodes:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A string that stands alone does nothing, wherever it stands.
            node.body = [  # type: ignore[attr-defined]
                child
                for child in body
                if not (
                    isinstance(child, ast.Expr)
                    and isinstance(child.value, ast.Constant)
                    and isinstance(child.value.value, str)
                )
            ]
    return hashlib.sha256(_dump(nodes[0]).encode()).hexdigest()


def check_source(
    source: str,
    *,
    baseline: str,
    earlier: Collection[str] = (),
    evaluator: str = METRIC.evaluator,
) -> str:
    """Check a source by all rules, and return its :func:`fingerprint`.

    Of several files (`studies.code_agent.files`) each must keep them.

    Args:
        source: the proposed script.
        baseline: the unedited script: what it imports from ``prepare``, evaluates and prints is
            what the proposal has to import, evaluate and print.
        earlier: fingerprints of the sources that were proposed before.
        evaluator: function that measures the metric.

    Raises:
        ValidationError: the first rule that the source breaks.
    """
    files, originals = split(source), split(baseline)
    if [*files] != [*originals]:
        raise ValidationError(f"The files must be {', '.join(originals)}.")
    prints: list[tuple[str, str]] = []
    changed: list[ast.AST] = []
    unedited: list[ast.AST] = []
    for name, text in files.items():
        try:
            nodes, original = _check_file(text, originals[name], evaluator)
            prints.append((_fingerprint(nodes), _fingerprint(original)))
        except ValidationError as error:
            raise ValidationError(f"{name}: {error}" if len(files) > 1 else str(error)) from None
        changed += nodes
        unedited += original
    if len(files) > 1:
        # One file may give another what it is to change.
        own = _module_writes(unedited, imported_names(unedited))
        found = _module_writes(changed, imported_names(changed))
        for text in found.keys() - own.keys():
            raise ValidationError(
                f"Line {found[text][0]} of a file changes an imported module or class, which the"
                " evaluation uses too."
            )
    print_of_it = _of_all([new for new, _ in prints])
    if print_of_it == _of_all([old for _, old in prints]):
        raise ValidationError(
            "The script does the same as the unedited one: comments aside, nothing changed."
        )
    if print_of_it in earlier:
        raise ValidationError(
            "The script does the same as one that was tried before: propose another change."
        )
    return print_of_it


def _check_file(source: str, baseline: str, evaluator: str) -> tuple[Nodes, Nodes]:
    """Check a file by the rules that hold for each, and return its nodes and the original's."""
    size = len(source.encode("utf-8", errors="replace"))
    if size > MAX_SOURCE_BYTES:
        raise ValidationError(
            f"The script must have at most {MAX_SOURCE_BYTES} bytes, but has {size}."
        )
    source, baseline = source.removeprefix(_ORDER_MARK), baseline.removeprefix(_ORDER_MARK)
    nodes = _parse(source)
    # What train.py is compared with is trusted, so that it always parses here.
    original = _parse(baseline)

    for name in sorted(_prepare_names(original) - _prepare_names(nodes)):
        raise ValidationError(f"The script must still import {name} from prepare and use it.")
    for name in sorted(_written_names(nodes) & _prepare_names(original)):
        raise ValidationError(f"The script must not define {name} again: prepare provides it.")
    if _bindings(nodes, TIME_BUDGET) != _bindings(original, TIME_BUDGET):
        raise ValidationError(
            f"The script must leave {TIME_BUDGET} as it is: all train for one time."
        )
    for line in _prepare_writes(nodes):
        raise ValidationError(f"Line {line} changes the module prepare, which must stay as it is.")
    imported, imported_before = imported_names(nodes), imported_names(original)
    own = _module_writes(original, imported_before)
    for text, (line, module) in _module_writes(nodes, imported).items():
        if module.split(".")[0] == "prepare":
            raise ValidationError(
                f"Line {line} changes the module prepare, which must stay as it is."
            )
        if text not in own:
            raise ValidationError(
                f"Line {line} changes an imported module or class, which the evaluation uses too."
            )
    if evaluator in _called_names(original) and evaluator not in _called_names(nodes):
        raise ValidationError(f"The script must still call {evaluator}: it measures what counts.")
    for key in sorted(_summary_keys(baseline) - _summary_keys(source)):
        raise ValidationError(f"The script must still print {key!r} in its summary.")
    for module in sorted(
        _imported_modules(nodes) & _REACHING_MODULES - _imported_modules(original)
    ):
        raise ValidationError(
            f"The script must not import {module}: training needs no such access."
        )
    used = _used_names(nodes) | _written_names(nodes)
    for name in sorted(used & _REACHING_NAMES - _used_names(original)):
        raise ValidationError(f"The script must not use {name}: training needs no such access.")
    for name in sorted((_called_plainly(nodes) & _REACHING_FUNCTIONS) - _called_plainly(original)):
        raise ValidationError(f"The script must not call {name}: training needs no such access.")
    if _passes_writers_on(nodes) and not _passes_writers_on(original):
        raise ValidationError(
            "The script must call setattr and delattr by these names, and not pass them on."
        )
    if _reads_modules(nodes, imported) and not _reads_modules(original, imported_before):
        raise ValidationError(
            "The script must not use sys.modules: training needs no such access."
        )
    for text in _REACHING_TEXT:
        if text in _strings(nodes) and text not in _strings(original):
            raise ValidationError(
                f"The script must not name {text}: training needs no such access."
            )

    return nodes, original


def _bindings(nodes: Nodes, name: str) -> list[str]:
    """Return the statements that give a name its value, wherever they stand."""
    found = []
    for node in nodes:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            found.append(_dump(node))
    return found


def _parse(source: str) -> Nodes:
    """Return all nodes of a script, its module first."""
    if "\0" in source:
        raise ValidationError("The script must be text, but contains a null byte.")
    if not _is_read_as_utf_8(source):
        raise ValidationError("The script must be UTF-8, but declares another encoding.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a string is no reason to refuse
            tree = ast.parse(source)
            # Some errors (a return outside a function) are only found here.
            compile(source, "train.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"line {error.lineno}" if error.lineno else "the script"
        text = one_line(error.text or "", 80)  # of a string in three quotes: several lines
        raise ValidationError(
            f"The script doesn't compile: {error.msg} at {where}: {text}"
        ) from None
    except (RecursionError, MemoryError, SystemError, ValueError, OverflowError):
        raise ValidationError(_TOO_DEEP) from None
    return [*ast.walk(tree)]


def _is_read_as_utf_8(source: str) -> bool:
    """Return whether Python takes a script for this text, whatever encoding it declares.

    In UTF-7, for one, what looks like a comment may hold a line end and a statement.
    """
    try:
        data = source.encode()
        declared, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(declared) == source
    except (SyntaxError, LookupError, UnicodeError):
        return False


def _dump(node: ast.AST) -> str:
    """Write a node down; equal ones alike, wherever they stand.

    Raises:
        ValidationError: it is deeper than this can follow, or has an integer of thousands of digits.
    """
    try:
        return ast.dump(node)
    except (RecursionError, ValueError):
        raise ValidationError(_TOO_DEEP) from None


def _prepare_names(nodes: Nodes) -> set[str]:
    """Return the names that a script takes ``from prepare import`` or as ``prepare.x``."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "prepare" and not node.level:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and is_name(node.value, "prepare"):
            names.add(node.attr)
    return names


def _written_names(nodes: Nodes) -> set[str]:
    """Return the names that a script binds anywhere, but by importing them from prepare."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            own = node.module == "prepare"
            names |= {
                a.asname or a.name for a in node.names if not own or a.asname not in (None, a.name)
            }
    return names


def _prepare_writes(nodes: Nodes) -> list[int]:
    """Return lines that open the file of prepare to write to it."""
    return sorted(
        node.lineno
        for node in nodes
        if isinstance(node, ast.Call) and is_name(node.func, "open")
        for path in node.args[:1]
        if isinstance(path, ast.Constant) and str(path.value).endswith("prepare.py")
    )


def _module_writes(nodes: Nodes, imported: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Return what replaces a part of something imported, as (line, module), by its text.

    ``F.cross_entropy = fake``, also where F has another name or the write another form. Settings
    may be changed: ``torch.backends.cudnn.benchmark = True``.
    """
    found: dict[str, tuple[int, str]] = {}
    for node in nodes:
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            target = node.value
        elif isinstance(node, ast.Call) and node.args and last_name(node.func) in _WRITERS:
            target = node.args[0]  # setattr(F, ...), object.__setattr__(F, ...), vars(F)
        else:
            continue
        for root, *path in paths(target):
            if root in imported and not _SETTINGS & {*path, *imported[root].split(".")}:
                found.setdefault(_dump(node), (node.lineno, imported[root]))
    return found


def _called_names(nodes: Nodes) -> set[str]:
    return {last_name(node.func) for node in nodes if isinstance(node, ast.Call)} - {""}


def _called_plainly(nodes: Nodes) -> set[str]:
    return {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _passes_writers_on(nodes: Nodes) -> bool:
    """Return whether a script gives what sets attributes another name."""
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return any(
        last_name(node) in ("setattr", "delattr", "__setattr__", "__delattr__")
        and id(node) not in called
        for node in nodes
        if isinstance(node, (ast.Name, ast.Attribute))
    )


def _reads_modules(nodes: Nodes, imported: Mapping[str, str]) -> bool:
    """Return whether a script uses the table of all modules, by any name."""
    if "sys.modules" in imported.values():
        return True
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "modules"
        and any(imported.get(root) == "sys" for root, *_ in paths(node.value))
        for node in nodes
    )


def _used_names(nodes: Nodes) -> set[str]:
    return {last_name(node) for node in nodes if isinstance(node, (ast.Attribute, ast.Name))}


def _imported_modules(nodes: Nodes) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _strings(nodes: Nodes) -> str:
    """Return every string constant of a script, one after the other."""
    return "\n".join(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _summary_keys(source: str) -> set[str]:
    """Keys that a script prints after ``---``: ``key:`` at the beginning of a string."""
    keys = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        # Python 3.12 splits an f-string into tokens; before, it is one STRING with its prefix.
        if token.type == tokenize.STRING or "FSTRING" in tokenize.tok_name[token.type]:
            keys |= set(
                re.findall(r"^[rbfuRBFU]{0,2}['\"]{0,3}([a-z][a-zA-Z0-9_]*):\s", token.string)
            )
    return keys
