"""From sources to packages that OptunaHub's registry can take.

A sampler's folder shares ``samplers/_llm`` and ``samplers/_trials`` with its neighbours, and the
benchmark asks ``objective``; a package in the registry stands alone. So publishing copies the
shared modules into the package, and rewrites the imports of them to relative ones. The plot's folder, which the report
draws with, stands alone as it is. The same sources give the same bytes.
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

_SHARED = ("_llm", "_trials")
_OBJECTIVE = "_objective"
_OUTSIDE = {"samplers", "objective", "studies"}
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
    """What is published: each sampler, the benchmark, and the plot."""
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
    folder, target = root / source.folder, out / source.package
    shutil.rmtree(target, ignore_errors=True)
    is_benchmark = source.folder == BENCHMARK
    for path in _published(folder):
        inside = path.relative_to(folder)
        dots = "." * len(inside.parts)
        _copy(path, target / inside, root, dots, f"{dots}{_OBJECTIVE}" if is_benchmark else "")
    if is_benchmark:
        _vendor_objective(target, root)
    else:
        _vendor_shared(target, root)
    return target


def _vendor_shared(package: Path, root: Path) -> None:
    """The shared modules that the package reaches, directly or through another."""
    samplers = root / "samplers"
    todo = {module for path in package.rglob("*.py") for module in _shared_imports(path, "")}
    reached: set[Path] = set()
    while todo:
        module = samplers / todo.pop()
        if module.exists() and module not in reached:
            reached.add(module)
            todo |= _shared_imports(module, module.parent.name)
    for module in reached | {module.with_name("__init__.py") for module in reached}:
        _copy(module, package / module.relative_to(samplers), root, "..", "")


def _vendor_objective(package: Path, root: Path) -> None:
    """All of ``objective`` but the benchmark, and the project's data set if there is one.

    All of it, since what runs a training is started by its file's path and not imported. Of
    ``__init__``, which imports by absolute names, the docstring's first line is kept.
    """
    objective = root / "objective"
    for path in _published(objective):
        if root / BENCHMARK in path.parents:
            continue
        inside = path.relative_to(objective)
        dots = "." * len(inside.parts)
        _copy(path, package / _OBJECTIVE / inside, root, dots, dots)
    (package / _OBJECTIVE / "__init__.py").write_bytes(_first_line(objective / "__init__.py"))
    if (root / DATA).exists():
        (package / PUBLISHED_DATA).write_bytes(lzma.decompress((root / DATA).read_bytes()))


def _first_line(module: Path) -> bytes:
    docstring = ast.get_docstring(ast.parse(module.read_bytes())) or ""
    return f'"""{docstring.partition(chr(10))[0]}"""\n'.encode()


def _published(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES or p.name == "LICENSE")


def _copy(source: Path, target: Path, root: Path, dots: str, objective: str) -> None:
    """Copy a file; the imports of a Python file are rewritten, see :func:`rewrite_imports`."""
    content = source.read_bytes()
    if source.suffix == ".py":
        where = str(source.relative_to(root))
        content = rewrite_imports(content.decode(), where, dots, objective).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _shared_imports(path: Path, room: str) -> set[str]:
    """The shared modules that a file imports, from ``samplers`` on; "" is a package's room."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        parts = (node.module or "").split(".")
        if room and node.level == 1:
            parts.insert(0, room)
        if parts[0] in _SHARED:
            names = parts[1:2] or [alias.name for alias in node.names]
            found |= {f"{parts[0]}/{name}.py" for name in names if name}
    return found


def rewrite_imports(source: str, where: str, dots: str = ".", objective: str = "") -> str:
    """Make the imports of shared modules relative; refuse any other from outside the package.

    ``from .._llm.chat import x`` becomes ``from ._llm.chat import x``, and ``from objective.run.script
    import x`` gets ``objective`` for its first word.

    Args:
        source: Of a Python file.
        where: Its name in an error.
        dots: What leads from the file to its package, or to the folder that it is shared in.
        objective: What leads from it to the vendored ``objective``: ``._objective``, or dots
            inside of it. Empty if the package has none.

    Raises:
        PublishError: Naming the file and line of an import that a published package can't make.
    """
    rewritten = source
    if len(dots) == 1:
        shared = rf"^(\s*from )\.\.(({'|'.join(_SHARED)})\b)"
        rewritten = re.sub(shared, r"\1.\2", source, flags=re.MULTILINE)
    if objective:
        prefix = objective if objective.endswith(".") else f"{objective}."
        for old, new in ((r"objective\.", prefix), (r"objective(?= import\b)", objective)):
            rewritten = re.sub(rf"^(\s*from ){old}", rf"\g<1>{new}", rewritten, flags=re.MULTILINE)
    for line in _imports_from_outside(rewritten, len(dots)):
        raise PublishError(
            f"A package imports only itself and what is copied into it, but {where}:{line} says "
            f"{rewritten.splitlines()[line - 1].strip()!r}."
        )
    return rewritten


def _imports_from_outside(source: str, depth: int) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            if node.level > depth or (
                not node.level and (node.module or "").split(".")[0] in _OUTSIDE
            ):
                yield node.lineno
        elif isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] in _OUTSIDE for alias in node.names):
                yield node.lineno
