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
from collections.abc import Set
from dataclasses import dataclass
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
        imported: Dotted names of modules, and of what may be one.
        named: Words that may name a file, or end its name.
        used: Names of functions and the like in the code.
        places: Folders in which Python looks for modules before it looks for its own.
        packages: Folders of installed packages.
    """

    imported: Collection[str]
    named: Set[str]
    used: Set[str]
    places: Collection[str]
    packages: Sequence[str]

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
        imported, used, named = set[str](), set[str](), set[str]()
        modules: list[str] = []
        others = list(texts)
        for name, text in files.items():
            is_code, is_package = name == script or name.endswith(".py"), "__init__." in name
            try:
                nodes = list(ast.walk(parsed(text.removeprefix("\ufeff")))) if is_code else []
            except (SyntaxError, ValueError):
                nodes = []
                words = re.findall(r"\w+", text)
                imported.update(words)
                used.update(words)
            if not nodes and (is_code or name.lower().endswith((*CODE, ".json"))):
                others.append(text)
            for node in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    named.update(_WORD.findall(node.value))
                    if is_package or _DOTTED.fullmatch(node.value):  # __all__ is such a text
                        imported.add(node.value)
                own = {getattr(node, key, None) for key in ("id", "attr", "name")}
                used.update(str(word) for word in own)
                if is_package and own & _LIST:
                    used |= _IMPORT
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    above = getattr(node, "module", None) or ""
                    modules += [f"{above}.{alias.name}".strip(".") for alias in node.names]
        for text in others:
            named.update(_WORD.findall(text))
            modules += _DOTTED.findall(text)
        for module in modules:  # and the packages that it is in
            imported.update(accumulate(module.split("."), "{}.{}".format))
        return cls(imported, named, used, places, packages)

    def lead_to(self, name: str) -> bool:
        """Return whether they may lead to a file, by its path as seen from the testbed's folder."""
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        is_module = suffix in _MODULES
        # Endings such as "_plan.py" and ".csv", but ".py" alone is in many a script.
        endings = (w for w in self.named if w[0] in "._-" and not (is_module and w == suffix))
        if (
            path.name in _UNASKED
            or self.named >= {*_WORD.findall(path.name)}
            or path.name.endswith(tuple(word for word in endings if "." in word))
        ):
            return True
        if not is_module:
            folders = () if suffix in CODE else path.parts[:-1]  # data is read by the folder, too
            return not (
                self.used.isdisjoint(_LIST) and self.named.isdisjoint((path.stem, *folders))
            )
        own = path.parent if path.name.startswith("__init__.") else path
        module = own.name.partition(".")[0]
        parts = (*own.parts[:-1], module)
        return (
            not self.used.isdisjoint(_IMPORT)
            or any(".".join(parts[n:]) in self.imported for n in range(len(parts)))
            # Some other module may import it, and would get this one instead.
            or str(own.parent) in self.places
            and (
                module in sys.stdlib_module_names
                or PathFinder.find_spec(module, self.packages) is not None
            )
        )
