"""From sources to packages that OptunaHub's registry can take.

A package in the registry stands alone, but a sampler's folder shares ``samplers/_*`` with its
neighbours, and the benchmark asks ``objective``. So publishing copies the shared modules that a
folder reaches by imports into its package, with the files that those read or start, and makes the
imports relative. An absolute import in a ``try`` with ``except ImportError`` is optional: it is
left as it is, and finds its module where this project is installed. The same sources give the same
bytes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
import lzma
from pathlib import Path
import re
import shutil


ROOT = Path(__file__).parents[2]
BENCHMARK = "objective/benchmark"
VISUALIZATION = "studies/best_so_far"

# The project's own trials. The registry takes no binary files, so that a package has them as text.
DATA = "objective/surrogate/data/embedded.json.xz"
PUBLISHED_DATA = "surrogate.json"

# Files that no import leads to, by the module that starts or reads them.
_BESIDE = {
    "objective/run/sandbox.py": "confine.py",
    "objective/run/script.py": "launch.py",
    "objective/testbed/testbed.py": "embedded/*.*",
}
_TEMPLATES = "*.txt"  # beside any other

_PROJECT = ("samplers", "objective", "studies")
_SUFFIXES = {".py", ".md", ".txt", ".toml", ".png", ".jpg", ".ipynb"}


class PublishError(ValueError):
    """The sources can't be made into a package; the message says which line is in the way."""


@dataclass(frozen=True)
class Source:
    """A folder of this project that is published.

    Attributes:
        package: ``category/name`` in the registry.
        folder: Where its source is, from the project's root.
    """

    package: str
    folder: str


def sources(root: Path = ROOT) -> list[Source]:
    """List the folders to publish: each sampler, the benchmark, and the plot."""
    names = sorted(path.parent.name for path in (root / "samplers").glob("*/sampler.py"))
    found = [Source(f"samplers/{name}", f"samplers/{name}") for name in names]
    return [
        *found,
        Source("benchmarks/autoresearch", BENCHMARK),
        Source("visualization/plot_best_so_far", VISUALIZATION),
    ]


def build_package(source: Source, out: Path, root: Path = ROOT) -> Path:
    """Write ``out/<category>/<name>``, self-contained, and return its path.

    Raises:
        PublishError: It imports what can't be published with it.
    """
    target, package = out / source.package, Path(source.folder)
    shutil.rmtree(target, ignore_errors=True)
    own = (root / package).rglob("*")
    todo = [p.relative_to(root) for p in own if p.suffix in _SUFFIXES or p.name == "LICENSE"]
    copied: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in copied:
            continue
        copied.add(path)
        content = (root / path).read_bytes()
        copy = target / (_place(path, package) or path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".py":
            text, reached = relative_imports(content.decode(), path, package, root)
            content = text.encode()
            todo += reached
            if package not in path.parents:  # shared
                beside = (root / path.parent).glob(_BESIDE.get(path.as_posix(), _TEMPLATES))
                todo += [each.relative_to(root) for each in beside]
                if (root / path).with_name("__init__.py").exists():
                    copy.with_name("__init__.py").touch()
        copy.write_bytes(content)
    if source.folder == BENCHMARK and (root / DATA).exists():
        (target / PUBLISHED_DATA).write_bytes(lzma.decompress((root / DATA).read_bytes()))
    return target


def _place(path: Path, package: Path) -> Path | None:
    """Return the path in a package of a file or folder of the project; None if it has none."""
    if package in (path, *path.parents):
        return path.relative_to(package)
    top, shared = path.parts[:1], path.parts[1:]
    if top != package.parts[:1]:
        return None
    if top == ("objective",):
        return Path("_objective", *shared)
    return Path(*shared) if shared and shared[0].startswith("_") else None


def relative_imports(
    source: str, path: Path, package: Path, root: Path = ROOT
) -> tuple[str, list[Path]]:
    """Make imports of shared modules lead to their copies in the package.

    In ``samplers/one/sampler.py``, ``from .._llm.chat import x`` becomes ``from ._llm.chat import
    x``; in the benchmark, ``from objective.run.script import x`` becomes ``from
    ._objective.run.script import x``.

    Args:
        source: Of a Python file.
        path, package: The file and the folder that is published, from ``root``.
        root: The project's folder.

    Returns:
        The source, and the modules that it reaches outside of its folder.

    Raises:
        PublishError: Naming the file and line of an import that a published package can't make.
    """
    here, is_own = _place(path, package) or path, package in path.parents
    lines, reached = source.splitlines(keepends=True), []
    for node, module in _imports(ast.parse(source), path):
        level = node.level if isinstance(node, ast.ImportFrom) else 0
        if is_own and level and package in (module, *module.parents):
            continue  # stays in the folder
        there, at = _place(module, package), node.lineno - 1
        names = [module.parent / f"{module.name}.py"]
        if not (root / names[0]).exists():
            names = [module / f"{alias.name}.py" for alias in node.names]
        if there is None or not all((root / name).exists() for name in names):
            raise PublishError(
                "A package imports only itself and what is copied into it, but "
                f"{path.as_posix()}:{node.lineno} says {lines[at].strip()!r}."
            )
        if is_own or not level:
            lines[at] = re.sub(r"from \S+", f"from {_dotted(here, there)}", lines[at], count=1)
        reached += names
    return "".join(lines), reached


def _imports(tree: ast.Module, path: Path) -> Iterator[tuple[ast.ImportFrom | ast.Import, Path]]:
    """Yield the imports of this project's modules, but optional ones, with what they import from.

    That is a module's path without ``.py`` or a folder's, from the project's root; it is the root
    of a statement ``import objective.x``, which can't be made relative.
    """
    optional = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        and any(isinstance(h.type, ast.Name) and h.type.id == "ImportError" for h in node.handlers)
        for statement in node.body
        for inside in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] in _PROJECT for alias in node.names):
                yield node, Path()
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level:
                yield node, Path(*path.parts[: -node.level], *parts)
            elif parts[0] in _PROJECT and id(node) not in optional:
                yield node, Path(*parts)


def _dotted(here: Path, there: Path) -> str:
    """Write the relative import of the module ``there`` from the file ``here`` of a package."""
    dots, inside = len(here.parts), there.parts
    if dots > 1 and here.parts[0] == inside[0]:
        dots, inside = dots - 1, inside[1:]
    return "." * dots + ".".join(inside)
