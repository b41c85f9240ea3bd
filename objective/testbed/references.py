"""What the files of a testbed import and name: whether a file that is new beside them can matter.

A file that was not there yet when a study began changes no value unless one of the study's files
leads to it: imports it, names it, or finds it by a name that it computes. In doubt it matters.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from importlib.machinery import PathFinder
from itertools import accumulate
from pathlib import PurePosixPath
import re
import sys

from objective.testbed.files import CODE
from objective.testbed.source import parsed


_MODULES = (".py", ".pyx", ".so", ".pyd")
# What a start of Python or uv, or dotenv, reads though no script names it.
_UNASKED = set(
    "pyproject.toml uv.toml .python-version sitecustomize.py usercustomize.py .env".split()
)
# Functions that import by a name that is computed, and that look through folders.
_IMPORT = set(
    "import_module __import__ iter_modules walk_packages run_path run_module"
    " spec_from_file_location exec_module SourceFileLoader".split()
)
_LIST = {"listdir", "scandir", "iterdir", "walk", "glob", "iglob", "rglob"}
_WORD = re.compile(r"[\w.-]*\w")  # of "part_{}.csv" and "*.csv" also ".csv"
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.\w+)+")


@dataclass(frozen=True)
class References:
    """What a testbed's files lead to.

    Attributes:
        places: Folders in which Python looks for modules before it looks for its own.
        packages: Folders of installed packages.
        imported: Dotted names of modules, and of what may be one.
        named: Words that may name a file, or end its name.
        used: Names of functions and the like in the code.
    """

    places: Collection[str] = (".",)
    packages: Sequence[str] = ()
    imported: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        files: Mapping[str, str],
        texts: Iterable[str] = (),
        script: str = "train.py",
        places: Collection[str] = (".",),
        packages: Sequence[str] = (),
    ) -> References:
        """Read the texts of files by their names; ``texts`` are further ones that may name any."""
        found = cls(places, packages)
        for name, text in files.items():
            if name == script or name.endswith(".py"):
                found._read_code(text, is_package="__init__." in name)
            elif name.lower().endswith((*CODE, ".json")):
                found._read_text(text)
        for text in texts:
            found._read_text(text)
        return found

    def _read_text(self, text: str) -> None:
        self.named.update(_WORD.findall(text))
        self._import(*_DOTTED.findall(text))

    def _read_code(self, text: str, is_package: bool) -> None:
        try:
            nodes = list(ast.walk(parsed(text.removeprefix("\ufeff"))))
        except (SyntaxError, ValueError):  # a shell script, say: any of its words may be anything
            self._read_text(text)
            words = re.findall(r"\w+", text)
            self.imported.update(words)
            self.used.update(words)
            return
        used = {str(getattr(n, key, "")) for n in nodes for key in ("id", "attr", "name")}
        # What a package finds in a folder, it may import.
        self.used.update(used, _IMPORT if is_package and used & _LIST else ())
        for node in nodes:
            if isinstance(node, ast.Import):
                self._import(*(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom):
                above = f"{node.module}." if node.module else ""
                self._import(*(above + alias.name for alias in node.names))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.named.update(_WORD.findall(node.value))
                if is_package or _DOTTED.fullmatch(node.value):  # __all__ is such a text
                    self.imported.add(node.value)

    def _import(self, *modules: str) -> None:
        """Take modules for imported, and the packages that they are in."""
        for module in modules:
            self.imported.update(accumulate(module.split("."), "{}.{}".format))

    def lead_to(self, name: str) -> bool:
        """Return whether they may lead to a file, by its path as seen from the testbed's folder."""
        path = PurePosixPath(name)
        if path.name in _UNASKED or self._name(path):
            return True
        if path.suffix.lower() in _MODULES:
            return self._may_import(path)
        return self._may_read(path)

    def _name(self, path: PurePosixPath) -> bool:
        """Return whether a file's name is among the words, or ends as one of them does."""
        endings = {word for word in self.named if word[0] in "._-" and "." in word}
        if path.suffix.lower() in _MODULES:
            endings.discard(path.suffix.lower())  # ".py" alone is in many a script
        return self.named >= {*_WORD.findall(path.name)} or path.name.endswith(tuple(endings))

    def _may_read(self, path: PurePosixPath) -> bool:
        """Return whether a name that is computed, or found in a folder, may be that of a file."""
        # Data is read by the folder, too.
        folders = () if path.suffix.lower() in CODE else path.parts[:-1]
        return not (self.used.isdisjoint(_LIST) and self.named.isdisjoint((path.stem, *folders)))

    def _may_import(self, path: PurePosixPath) -> bool:
        """Return whether a module may be imported, by the testbed's files or by others."""
        own = path.parent if path.name.startswith("__init__.") else path
        module = own.name.partition(".")[0]
        parts = (*own.parts[:-1], module)
        if any(".".join(parts[n:]) in self.imported for n in range(len(parts))):
            return True
        if not self.used.isdisjoint(_IMPORT):
            return True
        # Some other module may import one of this name, and would get this one instead.
        return str(own.parent) in self.places and (
            module in sys.stdlib_module_names
            or PathFinder.find_spec(module, self.packages) is not None
        )
