"""Each way to break a package has its sentence."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import os
from pathlib import Path
import shutil

import pytest

from studies.publish.build import build_package
from studies.publish.build import Source
from studies.publish.build import VISUALIZATION
from studies.publish.checks import check_arguments
from studies.publish.checks import check_files
from studies.publish.checks import check_front_matter
from studies.publish.checks import check_hooks
from studies.publish.checks import check_length
from studies.publish.checks import check_licence
from studies.publish.checks import check_links
from studies.publish.checks import check_package
from studies.publish.checks import check_readme
from studies.publish.checks import HEADER_CONFIRM


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    return build_package(Source("samplers/smac", "samplers/smac"), out)


@pytest.fixture
def package(sound: Path, tmp_path: Path) -> Path:
    """A sound package to break."""
    return Path(shutil.copytree(sound, tmp_path / "samplers" / "smac"))


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def breaking(package: Path) -> None:
        path = package / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return breaking


def _add(name: str, content: bytes) -> Callable[[Path], None]:
    def breaking(package: Path) -> None:
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_bytes(content)

    return breaking


def _remove(name: str) -> Callable[[Path], None]:
    return lambda package: (package / name).unlink()


Check = Callable[[Path], Iterator[str]]


@pytest.mark.parametrize(
    ("check", "breaking", "sentence"),
    [
        pytest.param(*case, id=name)
        for name, case in {
            "html": (
                check_readme,
                _replace("README.md", "## Abstract", "<b>bold</b>\n\n## Abstract"),
                "The README must not contain HTML (the site drops it), but has '<b>'.",
            ),
            "missing field": (
                check_front_matter,
                _replace("README.md", "license:", "licence:"),
                "The README's front matter must have 'license'.",
            ),
            "other licence in a field": (
                check_front_matter,
                _replace("README.md", "license: MIT License", "license: MIT"),
                "license must be 'MIT License', but got 'MIT'.",
            ),
            "version that is a number": (
                check_front_matter,
                _replace("README.md", "[5.0.0]", "[5.0]"),
                "optuna_versions must be a list of strings such as [5.0.0], but got [5.0].",
            ),
            "tags without a category": (
                check_front_matter,
                _replace("README.md", "tags: [sampler", "tags: [smac"),
                "tags must be a list with one of ['benchmark', 'callback',",
            ),
            "missing section": (
                check_readme,
                _replace("README.md", "## APIs", "## Classes"),
                "The README must have a section '## APIs'.",
            ),
            "local module in the example": (
                check_readme,
                _replace("example.py", "load_module(", "load_local_module("),
                "example.py must load the package from the registry, but has 'load_local_module('.",
            ),
            "argument that the README lacks": (
                check_arguments,
                _replace("sampler.py", "seed: int | None", "pace: int = 0, seed: int | None"),
                "The README must show, in a block of code, `SMACSampler(*, "
                "n_startup_trials: int | None=None, search_space: Mapping[str, BaseDistribution] | None=None, "
                "n_challengers: int=10000, pace: int=0, seed: int | None=None)`.",
            ),
            "other default in the README": (
                check_arguments,
                _replace("README.md", "n_challengers: int = 10_000", "n_challengers: int = 5"),
                "The README must show, in a block of code, `SMACSampler(",
            ),
            "other type in the README": (
                check_arguments,
                _replace("README.md", "n_challengers: int", "n_challengers: float"),
                "The README must show, in a block of code, `SMACSampler(",
            ),
            "link to what isn't there": (
                check_links,
                _remove("MEASURED.md"),
                "README.md leads to MEASURED.md, which is not in the package.",
            ),
            "long README": (
                check_length,
                _replace("README.md", "## Abstract", "## Abstract\n\n" + "word " * 600),
                "The README must have at most 600 words beside code, but has ",
            ),
            "other licence": (
                check_licence,
                _replace("LICENSE", "MIT License", "Apache License"),
                "LICENSE must be the MIT License, but starts with 'Apache License'.",
            ),
            "licence of nobody": (
                check_licence,
                _replace("LICENSE", "2026 The optuna-autoresearch authors", "[year] [name]"),
                "LICENSE must name a year and a holder after 'Copyright (c)'.",
            ),
            "2 MiB image": (
                check_files,
                _add("images/plot.png", os.urandom(2 * 1024 * 1024)),
                "The images of a package must stay below 100 KiB together, but got 21",
            ),
            "binary file": (
                check_files,
                _add("model.bin", b"\xff\xfe\x00"),
                "A package has no binary files but images, but got model.bin.",
            ),
            "missing file": (check_files, _remove("README.md"), "README.md is missing."),
            "unformatted": (
                check_hooks,
                _add("extra.py", b"x = [1,2]\n"),
                "ruff format: Would reformat: extra.py",
            ),
            "unused import": (check_hooks, _add("extra.py", b"import os\n"), "ruff: F401"),
            "untyped": (
                check_hooks,
                _add("extra.py", b"def f(x):\n    return x\n"),
                "mypy: extra.py:1: error: Function is missing a type annotation",
            ),
            "unformatted Markdown": (
                check_hooks,
                _replace("README.md", "## Example", "## Example\n\n\n"),
                'mdformat: Error: File "README.md" is not formatted.',
            ),
            "unformatted notes": (
                check_hooks,
                _add("notes.md", b"# Notes\ntext\n"),
                'mdformat: Error: File "notes.md" is not formatted.',
            ),
        }.items()
    ],
)
def test_a_broken_package_fails_with_the_right_sentence(
    check: Check, breaking: Callable[[Path], None], sentence: str, package: Path
) -> None:
    breaking(package)
    (problem,) = check(package)
    assert problem.startswith(sentence)


def test_syntax_that_python_3_8_lacks_is_refused(package: Path) -> None:
    _add("extra.py", b"with (\n    open('a') as a,\n    open('b') as b,\n):\n    pass\n")(package)
    problems = list(check_hooks(package))
    assert problems[0].startswith("ruff: invalid-syntax: Cannot use parentheses within a `with`")


def test_a_functions_arguments_are_shown_like_those_of_a_class(tmp_path: Path) -> None:
    package = build_package(Source("visualization/plot_best_so_far", VISUALIZATION), tmp_path)
    assert not list(check_arguments(package))
    _replace("plot.py", 'interval: Literal["t", "bootstrap"] = "t"', "level: float = 0.95")(
        package
    )
    (problem,) = check_arguments(package)
    assert problem.startswith(
        "The README must show, in a block of code, `plot_best_so_far("
        "studies: Mapping[str, Sequence[Study]] | Sequence[Study] | Study, *, against: str | Callable[[FrozenTrial], float] | None=None, "
        "counts: Callable[[FrozenTrial], bool] | None=None, level: float=0.95,"
    )


def test_the_settings_and_the_script_of_a_checkout_of_the_registry_count(
    package: Path, tmp_path: Path
) -> None:
    registry = tmp_path / "registry"
    for name, text in {
        "pyproject.toml": "[tool.ruff]\nline-length = 20\n[tool.ruff.lint.isort]\n"
        "force-single-line = true\nlines-after-imports = 2\nno-sections = true\n",
        "template/README.md": "",
        HEADER_CONFIRM: "import pathlib\nreadme = 'package/samplers/smac/README.md'\n"
        "assert 'license:' in pathlib.Path(readme).read_text(), f'no license in {readme}'\n"
        "assert pathlib.Path('template/README.md').exists()\n",
    }.items():
        (registry / name).parent.mkdir(parents=True, exist_ok=True)
        (registry / name).write_text(text)
    _replace("README.md", "license:", "licence:")(package)
    for path in package.rglob("*.py"):
        path.unlink()
    _add("long.py", b"numbers = [1, 2, 3, 4]\n")(package)
    assert list(check_hooks(package, registry)) == [
        "ruff format: Would reformat: long.py",
        "header_confirm: AssertionError: no license in README.md",
    ]
    assert not list(check_hooks(package))


def test_all_that_is_wrong_is_listed_at_once(package: Path) -> None:
    _add("model.bin", b"\xff\xfe\x00")(package)
    _remove("LICENSE")(package)
    _replace("README.md", "license:", "licence:")(package)
    _replace("README.md", "## APIs", "<b>Classes</b>")(package)
    _replace("README.md", "n_challengers: int = 10_000", "n=10_000")(package)
    _add("extra.py", b"import os\ndef f(x): return x\n")(package)
    problems = "\n".join(check_package(package))
    for part in (
        "model.bin",
        "LICENSE is missing",
        "have 'license'",
        "'## APIs'",
        "'<b>'",
        "must show, in a block of code, `SMACSampler(",
        "ruff: ",
        "ruff format: ",
        "mypy: ",
    ):
        assert part in problems, problems
