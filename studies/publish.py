"""From ``samplers/<name>`` to packages that OptunaHub's registry can take.

A sampler's folder shares ``samplers/_llm`` with its neighbours; a package in the registry stands
alone. So publishing copies the shared modules that the package reaches into it, and rewrites
``from .._llm`` to ``from ._llm``. The same sources give the same bytes.

What was built is then checked as the registry's own CI would (``CHECKS``), and by what it does not
run: an import in a clean environment with only ``requirements.txt``, and ``example.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile
import venv


ROOT = Path(__file__).parent.parent
SHARED = "_llm"

# https://github.com/optuna/optunahub-registry: header_confirm.py, CONTRIBUTING.md, template/README.md
FRONT_MATTER = ("author", "title", "description", "tags", "optuna_versions", "license")
SECTIONS = ("## Abstract", "## APIs", "## Example")
UNPUBLISHABLE = ("load_local_module(", "repo_owner=", "ref=")
MAX_IMAGES_BYTES = 100 * 1024  # the registry asks for about 100 kB a package
CATEGORY_TAGS = {"sampler", "visualization", "pruner", "benchmark", "callback"}
PUBLISHED_SUFFIXES = {".py", ".md", ".txt", ".png", ".jpg", ".ipynb"}


class PublishError(ValueError):
    """The sources can't be made into a package; the message says which line is in the way."""


@dataclass(frozen=True)
class Verdict:
    """What the checks said of one package; ``problems`` is empty for a pass."""

    package: str
    problems: list[str]


def packages(root: Path = ROOT) -> list[str]:
    """The names of the sampler folders, a package each."""
    return sorted(p.parent.name for p in (root / "samplers").glob("*/sampler.py"))


# Building


def _shared_imports(source: str) -> set[str]:
    """The modules of the shared folder that a file of a package imports, by name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = (node.module or "").split(".")
            if node.level == 2 and parts[0] == SHARED:
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
            elif node.level == 1:  # inside the shared folder itself
                found |= {parts[0]} if parts[0] else {alias.name for alias in node.names}
    return found


def _reached(files: list[Path], shared: Path) -> list[Path]:
    """The shared modules that ``files`` need, directly or through one another."""
    todo = {name for file in files for name in _shared_imports(file.read_text())}
    seen: set[Path] = set()
    while todo:
        module = shared / f"{todo.pop()}.py"
        if module.exists() and module not in seen:
            seen.add(module)
            todo |= _shared_imports(module.read_text())
    return sorted(seen)


def rewrite_shared_imports(source: str, where: str) -> str:
    """``from .._llm`` becomes ``from ._llm``; any other import from outside the package is refused.

    Raises:
        PublishError: Naming the file and line of an import that a published package can't make.
    """
    rewritten = re.sub(rf"^(\s*from )\.\.({SHARED}\b)", r"\1.\2", source, flags=re.MULTILINE)
    for node in ast.walk(ast.parse(rewritten)):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level > 1 or (node.module or "").split(".")[0] in ("samplers", "objective"):
            line = rewritten.splitlines()[node.lineno - 1].strip()
            raise PublishError(
                f"A package imports only itself and ..{SHARED}, but {where}:{node.lineno} "
                f"says {line!r}."
            )
    return rewritten


def build_package(name: str, out: Path, root: Path = ROOT) -> Path:
    """Write ``out/samplers/<name>``, self-contained, and return its path.

    Raises:
        PublishError: There is no such sampler, or it imports what can't be published with it.
    """
    source = root / "samplers" / name
    if not (source / "sampler.py").exists():
        raise PublishError(f"The samplers are {', '.join(packages(root))}, but got {name!r}.")
    target = out / "samplers" / name
    shutil.rmtree(target, ignore_errors=True)
    own = sorted(
        p for p in source.rglob("*") if p.suffix in PUBLISHED_SUFFIXES or p.name == "LICENSE"
    )
    shared = root / "samplers" / SHARED
    reached = _reached([p for p in own if p.suffix == ".py"], shared)
    for path in own:
        _copy(path, target / path.relative_to(source), root)
    for path in reached:
        _copy(path, target / SHARED / path.name, root)
    if reached:
        _copy(shared / "__init__.py", target / SHARED / "__init__.py", root)
        for template in sorted(shared.glob("*.md")):
            _copy(template, target / SHARED / template.name, root)
    return target


def _copy(source: Path, target: Path, root: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".py":
        text = source.read_text(encoding="utf-8")
        where = str(source.relative_to(root))
        target.write_text(rewrite_shared_imports(text, where), encoding="utf-8", newline="\n")
    else:
        target.write_bytes(source.read_bytes())


# Checking: each check yields a sentence per problem


def _readme(package: Path) -> str:
    path = package / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def check_files(package: Path) -> Iterator[str]:
    """The files that every package has, its name, and the size of its images."""
    if not package.name.isidentifier():
        yield f"A package's name must be a Python identifier, but got {package.name!r}."
    for name in ("__init__.py", "README.md", "LICENSE"):
        if not (package / name).exists():
            yield f"{name} is missing."
    images = sum(p.stat().st_size for p in package.rglob("*") if p.suffix in {".png", ".jpg"})
    if images > MAX_IMAGES_BYTES:
        yield (
            f"The images of a package must stay below {MAX_IMAGES_BYTES // 1024} KiB together, "
            f"but got {images // 1024} KiB."
        )


def check_licence(package: Path) -> Iterator[str]:
    """The registry takes the MIT licence only, with its holder filled in."""
    path = package / "LICENSE"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not text.startswith("MIT License"):
        first = text.splitlines()[0] if text else ""
        yield f"LICENSE must be the MIT License, but starts with {first!r}."
    elif not re.search(r"Copyright \(c\) \d{4} \w+", text):
        yield "LICENSE must name a year and a holder after 'Copyright (c)'."


def check_front_matter(package: Path) -> Iterator[str]:
    """The README's header has the registry's six fields, of the documented types."""
    import frontmatter

    header = frontmatter.loads(_readme(package)).metadata
    for field in FRONT_MATTER:
        if header.get(field) in (None, "", "None"):
            yield f"The README's front matter must have {field!r}."
    versions = header.get("optuna_versions")
    if versions and not (isinstance(versions, list) and all(isinstance(v, str) for v in versions)):
        yield f"optuna_versions must be a list of strings such as [5.0.0], but got {versions!r}."
    tags = header.get("tags")
    if tags and not (isinstance(tags, list) and CATEGORY_TAGS & set(tags)):
        yield f"tags must be a list with one of {sorted(CATEGORY_TAGS)}, but got {tags!r}."
    if header.get("license") not in (None, "", "MIT License"):
        yield f"license must be 'MIT License', but got {header['license']!r}."


def check_readme(package: Path) -> Iterator[str]:
    """The README has the template's sections, no HTML, and an example that a visitor can run."""
    text = _readme(package)
    for section in SECTIONS:
        if section not in text:
            yield f"The README must have a section {section!r}."
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    html = re.search(r"</?[a-zA-Z][^>\n]*>|<!--", prose)
    if html:
        yield f"The README must not contain HTML (the site drops it), but has {html.group()!r}."
    for path in (package / "README.md", package / "example.py"):
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        for phrase in UNPUBLISHABLE:
            if phrase in content:
                yield f"{path.name} must load the package from the registry, but has {phrase!r}."


def check_imports(package: Path) -> Iterator[str]:
    """Nothing is imported from outside the package by a relative import."""
    for path in sorted(package.rglob("*.py")):
        depth = len(path.relative_to(package).parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level > depth:
                yield (
                    f"A package can't import from another, but {path.relative_to(package)}:"
                    f"{node.lineno} has 'from {'.' * node.level}{node.module or ''}'."
                )


def _tool(package: Path, what: str, *argv: str, cwd: Path | None = None) -> Iterator[str]:
    done = subprocess.run(
        [sys.executable, "-m", *argv], capture_output=True, text=True, cwd=cwd, timeout=600
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        shown = "; ".join(lines[:3]).replace(f"{package}/", "")
        yield f"{what}: {shown}"


def check_tools(package: Path) -> Iterator[str]:
    """ruff, ruff format, mypy and mdformat with the registry's versions and settings."""
    settings = str(ROOT / "pyproject.toml")
    path = str(package)
    # The registry's pyproject.toml and ours share these sections word for word. Its mypy runs in an
    # environment without Optuna, so that what a package imports is Any.
    yield from _tool(
        package, "ruff", "ruff", "check", "-q", "--no-cache", "--config", settings, path
    )
    yield from _tool(
        package, "ruff format", "ruff", "format", "-q", "--check", "--no-cache",
        "--config", settings, path,
    )  # fmt: skip
    yield from _tool(
        package, "mypy", "mypy", "--no-error-summary", "--cache-dir=/dev/null", "--no-site-packages",
        "--scripts-are-modules", "--config-file", settings, "/".join(package.parts[-2:]),
        cwd=package.parents[1],
    )  # fmt: skip
    readmes = [str(p) for p in sorted(package.rglob("README.md"))]
    yield from _tool(package, "mdformat", "mdformat", "--check", *readmes)


CHECKS: tuple[Callable[[Path], Iterator[str]], ...] = (
    check_files,
    check_licence,
    check_front_matter,
    check_readme,
    check_imports,
    check_tools,
)


def check_package(package: Path) -> Verdict:
    """Run every check that needs no new environment."""
    return Verdict(package.name, [problem for check in CHECKS for problem in check(package)])


_RUN_EXAMPLE = """
import runpy, sys
import optunahub
root, category, name = sys.argv[1:]
package = f"{category}/{name}"
# The example loads the package from the registry, where it is only after its publication.
optunahub.load_module = lambda name, **_: optunahub.load_local_module(name, registry_root=root)
optunahub.load_module(package)
runpy.run_path(f"{root}/{package}/example.py", run_name="__main__")
"""


def check_in_clean_environment(package: Path, python: Path | None = None) -> Iterator[str]:
    """Import the package and run its example where only Optuna and its requirements are.

    Args:
        package: ``.../<category>/<name>``.
        python: The interpreter of an environment that is there already; a new one by default.
    """
    with tempfile.TemporaryDirectory() as folder:
        if python is None:
            venv.create(folder, with_pip=True)
            python = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
            wanted = ["optuna>=5", "optunahub"]
            requirements = package / "requirements.txt"
            if requirements.exists():
                wanted += ["-r", str(requirements)]
            installed = subprocess.run(
                [python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True
            )
            if installed.returncode:
                yield f"requirements.txt can't be installed: {installed.stderr.strip()[-300:]}"
                return
        category, name = package.parts[-2:]
        example = subprocess.run(
            [python, "-c", _RUN_EXAMPLE, package.parents[1], category, name],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=900,
        )
        if example.returncode:
            yield f"example.py: {(example.stderr.strip().splitlines() or ['no output'])[-1]}"
