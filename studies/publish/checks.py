"""The checks of the registry's CI, and of its rules that its CI doesn't check.

Each check yields a sentence per problem. ``package`` is ``.../<category>/<name>``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Iterator
from functools import cache
from pathlib import Path
import re
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory

from studies.publish.build import DATA
from studies.publish.build import PUBLISHED_DATA
from studies.publish.build import ROOT


# https://github.com/optuna/optunahub-registry: header_confirm.py, CONTRIBUTING.md, template/README.md
FRONT_MATTER = ("author", "title", "description", "tags", "optuna_versions", "license")
SECTIONS = ("## Abstract", "## APIs", "## Example")
UNPUBLISHABLE = ("load_local_module(", "repo_owner=", "ref=")
MAX_WORDS = 600
MAX_IMAGES_BYTES = 100 * 1024  # the registry asks for about 100 kB a package
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CATEGORY_TAGS = {"sampler", "visualization", "pruner", "benchmark", "callback"}


def _readme(package: Path) -> str:
    path = package / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def check_files(package: Path) -> Iterator[str]:
    """Check the files that every package has, its name, and the size of its images."""
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
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix not in {".png", ".jpg", ".pyc"} and _is_binary(path):
            yield f"A package has no binary files but images, but got {path.relative_to(package)}."


def _is_binary(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    return False


def check_data(package: Path) -> Iterator[str]:
    """Check that the benchmark comes with its data set."""
    if package.parent.name == "benchmarks" and not (package / PUBLISHED_DATA).exists():
        yield (
            f"The benchmark must have a data set, but there is no {DATA} to make "
            f"{PUBLISHED_DATA} of: write it by `optuna-autoresearch surrogate --out {DATA}`."
        )


def check_licence(package: Path) -> Iterator[str]:
    """Check for the MIT licence with its holder filled in: the registry takes no other."""
    path = package / "LICENSE"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not text.startswith("MIT License"):
        first = text.splitlines()[0] if text else ""
        yield f"LICENSE must be the MIT License, but starts with {first!r}."
    elif not re.search(r"Copyright \(c\) \d{4} \w+", text):
        yield "LICENSE must name a year and a holder after 'Copyright (c)'."


def check_front_matter(package: Path) -> Iterator[str]:
    """Check that the README's header has the registry's six fields, of the documented types."""
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
    """Check the README for the template's sections, HTML, and an example that visitors can run."""
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


def check_links(package: Path) -> Iterator[str]:
    """Check that what the READMEs' relative links and pictures lead to is in the package."""
    for path in sorted(package.glob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text(encoding="utf-8")):
            if not (path.parent / link).exists():
                yield f"{path.name} leads to {link}, which is not in the package."


def check_length(package: Path) -> Iterator[str]:
    """Check that the README is read in a few minutes; only blocks of code don't count."""
    words = len(_BLOCK.sub("", _readme(package)).split())
    if words > MAX_WORDS:
        yield f"The README must have at most {MAX_WORDS} words beside code, but has {words}."


def check_arguments(package: Path) -> Iterator[str]:
    """Check that a block of code shows each public name with its arguments, types and defaults."""
    blocks = [block[1].strip() for block in _BLOCK.finditer(_readme(package))]
    for name, arguments in _public(package).items():
        shown = ast.unparse(arguments)
        if not any(
            block.startswith(f"{name}(") and _same(shown, block[len(name) + 1 : -1])
            for block in blocks
        ):
            yield f"The README must show, in a block of code, `{name}({shown})`."


def _same(arguments: str, written: str) -> bool:
    """Return whether the two are the same Python, however numbers and quotes are written."""
    try:
        return ast.dump(ast.parse(f"def f({written}): 0")) == ast.dump(
            ast.parse(f"def f({arguments}): 0")
        )
    except SyntaxError:
        return False


def _public(package: Path) -> dict[str, ast.arguments]:
    """Classes and functions that ``__init__`` imports, with what they are called with."""
    found = {}
    for node in ast.walk(_tree(package / "__init__.py")):
        if not isinstance(node, ast.ImportFrom) or node.level != 1:
            continue
        module = package / f"{(node.module or '').replace('.', '/')}.py"
        names = {alias.name for alias in node.names}
        for each in ast.walk(_tree(module)):
            if isinstance(each, ast.ClassDef) and each.name in names:
                found[each.name] = _constructor_arguments(each)
            elif isinstance(each, ast.FunctionDef) and each.name in names:
                found[each.name] = each.args
    return found


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes() if path.exists() else b"")


def _constructor_arguments(node: ast.ClassDef) -> ast.arguments:
    """Return the arguments of ``__init__`` after ``self``."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            del each.args.args[0]
            return each.args
    return ast.arguments([], [], None, [], [], None, [])


CHECKS: tuple[Callable[[Path], Iterator[str]], ...] = (
    check_files,
    check_data,
    check_licence,
    check_front_matter,
    check_readme,
    check_links,
    check_length,
    check_arguments,
)

HEADER_CONFIRM = "optunahub-registry/header_confirm.py"

_RUFF = ("--quiet", "--no-cache")
# As a hook, mypy has an environment without Optuna, so that what a package imports is Any.
_MYPY = ("-m", "mypy", "--no-error-summary", "--no-site-packages")


@cache
def _mypy_cache() -> TemporaryDirectory[str]:
    """Keep what mypy learns of the standard library for the next package; it ends with Python."""
    return TemporaryDirectory()


def check_hooks(package: Path, registry: Path | None = None) -> Iterator[str]:
    """Run the registry's hooks on all files of the package, at the place it would have there.

    Args:
        package: ``.../<category>/<name>``.
        registry: A checkout of the registry, whose settings count and whose check of READMEs is
            run. By default the settings are this project's, which says the same of ruff and mypy.
    """
    inside = f"package/{package.parent.name}/{package.name}"
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        shutil.copytree(package, folder / inside, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy((registry or ROOT) / "pyproject.toml", folder)
        commands: dict[str, tuple[str, ...]] = {
            "ruff": ("-m", "ruff", "check", *_RUFF, inside),
            "ruff format": ("-m", "ruff", "format", "--check", *_RUFF, inside),
            "mypy": (*_MYPY, f"--cache-dir={_mypy_cache().name}", "--scripts-are-modules", inside),
            "mdformat": ("-m", "mdformat", "--check", *map(str, sorted(folder.rglob("*.md")))),
        }
        if registry is not None:
            for part in (Path(HEADER_CONFIRM).parent, "template"):
                shutil.copytree(registry / part, folder / part)
            commands["header_confirm"] = (HEADER_CONFIRM,)
        for what, command in commands.items():
            done = subprocess.run(
                [sys.executable, *command], capture_output=True, text=True, cwd=folder
            )
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            if done.returncode:
                shown = lines[-1:] if "Traceback" in "".join(lines[:1]) else lines[:3]
                text = " ".join(shown).replace(f"{folder}/", "").replace(f"{inside}/", "")
                yield f"{what}: {text}"


def check_package(package: Path, registry: Path | None = None) -> list[str]:
    """Return the problems that can be found without a new environment; none is a pass."""
    found = [problem for check in CHECKS for problem in check(package)]
    return [*found, *check_hooks(package, registry)]
