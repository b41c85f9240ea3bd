"""What the files of a testbed import and name: whether a file that is new beside them can matter.

A file that was not there yet when a study began changes no value unless one of the study's files
leads to it: imports it, names it, or finds it by a name that it computes. In doubt it matters.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.machinery import PathFinder
from pathlib import PurePosixPath
import re
import sys

from objective.testbed.files import CODE
from objective.testbed.source import parsed


_MODULES = (".py", ".pyx", ".so", ".pyd")
_TEXTS = (*CODE, ".json")
# What a start of Python or uv reads though no script names it.
_UNASKED = ("pyproject.toml", "uv.toml", "sitecustomize.py", "usercustomize.py")
_COMPUTED = re.compile(
    r"\b(import_module|__import__|iter_modules|walk_packages|spec_from_file_location|exec_module"
    r"|SourceFileLoader|run_path|run_module)\b"
)
_LISTED = re.compile(r"\b(listdir|scandir|iterdir|walk|i?glob|rglob)\b")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")

Module = tuple[str, ...]  # the parts of its name


@dataclass(frozen=True)
class References:
    """What a testbed's files lead to.

    Attributes:
        modules: What they import.
        texts: The strings in Python files, and words of the command.
        others: The other files, as they are.
        is_computed: Modules are imported by names that can't be read.
        is_listed: Folders are looked through.
    """

    modules: frozenset[Module]
    texts: frozenset[str]
    others: str
    is_computed: bool
    is_listed: bool

    @classmethod
    def of(cls, files: Mapping[str, str], texts: Iterable[str] = ()) -> References:
        """Read the texts of files by their names; ``texts`` are further ones that may name any."""
        modules: set[Module] = set()
        found = set(texts)
        others = []
        for name, text in files.items():
            tree = None
            if name.endswith(".py"):
                try:
                    tree = parsed(text.removeprefix("\ufeff"))
                except (SyntaxError, ValueError):
                    pass
            if tree is None:
                others += [text] * name.lower().endswith(_TEXTS)
                continue
            for node in ast.walk(tree):
                modules.update(_imported(node))
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
        modules |= {tuple(text.split(".")) for text in found if _DOTTED.fullmatch(text)}
        code = "\n".join(files.values())
        return cls(
            frozenset(modules),
            frozenset(found),
            "\n".join(others),
            _COMPUTED.search(code) is not None,
            _LISTED.search(code) is not None,
        )

    def lead_to(self, name: str) -> bool:
        """Return whether they may lead to a file, by its path as seen from the testbed's folder."""
        path = PurePosixPath(name)
        stem = path.name.partition(".")[0]
        words = {path.name}
        if path.suffix.lower() in _MODULES:
            parts = path.parts[:-1] if stem == "__init__" else (*path.parts[:-1], stem)
            if self.is_computed or _is_installed(parts[-1]) or self._import(parts):
                return True
            is_named = _says(self.others, parts[-1])
        else:
            words |= {stem, path.stem}
            if (
                self.is_listed or path.suffix.lower() not in CODE
            ):  # data is read by the folder, too
                words |= {*path.parts[:-1]}
            is_named = any(not words.isdisjoint(PurePosixPath(text).parts) for text in self.texts)
            is_named |= any(_says(self.others, word) for word in words)
        return (
            is_named
            or path.name in _UNASKED
            or any(_says(text, path.name) or _matches(text, path.name) for text in self.texts)
        )

    def _import(self, parts: Module) -> bool:
        """Return whether they import a module, whichever folder they see it from."""
        return any(parts[n:] in self.modules for n in range(len(parts)))


def _says(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _matches(text: str, name: str) -> bool:
    """Return whether a text is a pattern for names of files such as this one."""
    pattern = text.rpartition("/")[2]
    return "*" in pattern and pattern.strip("*") != "" and fnmatch(name, pattern)


def _imported(node: ast.AST) -> Iterator[Module]:
    """Yield the modules that a statement may import, the packages that they are in included."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names]
    for name in names:
        parts = tuple(name.split("."))
        yield from (parts[: n + 1] for n in range(len(parts)))


def _is_installed(module: str) -> bool:
    """Return whether Python, or what is installed with this one, has a module of this name.

    Some other module may import it, and would get the one beside the script.
    """
    if module in sys.stdlib_module_names:
        return True
    places = [path for path in sys.path if path.endswith("-packages")]
    return PathFinder.find_spec(module, places) is not None
