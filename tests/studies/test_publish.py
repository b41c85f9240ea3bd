"""Packages are self-contained and reproducible, and each way to break one has its sentence."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path

import pytest

from studies.publish import build_package
from studies.publish import check_package
from studies.publish import packages
from studies.publish import PublishError
from studies.publish import rewrite_shared_imports


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", packages())
def test_a_package_passes_and_a_second_build_changes_no_byte(name: str, tmp_path: Path) -> None:
    package = build_package(name, tmp_path)
    assert check_package(package).problems == []
    first = tree(tmp_path)
    build_package(name, tmp_path)
    assert tree(tmp_path) == first


def test_only_the_shared_modules_that_are_reached_are_vendored(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "samplers" / "_llm").mkdir(parents=True)
    (root / "samplers" / "one").mkdir()
    for name, text in {
        "_llm/__init__.py": "",
        "_llm/a.py": "from .b import B\n",
        "_llm/b.py": "B = 1\n",
        "_llm/c.py": "",
        "one/sampler.py": "from .._llm.a import A\n",
    }.items():
        (root / "samplers" / name).write_text(text)
    package = build_package("one", tmp_path / "dist", root)
    assert sorted(tree(package)) == ["_llm/__init__.py", "_llm/a.py", "_llm/b.py", "sampler.py"]
    assert (package / "sampler.py").read_text() == "from ._llm.a import A\n"


@pytest.mark.parametrize(
    "line", ["from ..other import x", "from samplers.other import x", "from objective import y"]
)
def test_an_import_that_cannot_be_published_is_named_by_file_and_line(line: str) -> None:
    with pytest.raises(PublishError, match=r"one/sampler\.py:2"):
        rewrite_shared_imports(f"import os\n{line}\n", "one/sampler.py")


def _replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def breaking(package: Path) -> None:
        path = package / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return breaking


def _large_image(package: Path) -> None:
    (package / "images").mkdir()
    (package / "images" / "plot.png").write_bytes(os.urandom(2 * 1024 * 1024))


def _unformatted(package: Path) -> None:
    (package / "extra.py").write_text("x = [1,2]\n")


@pytest.mark.parametrize(
    ("breaking", "sentence"),
    [
        (
            _replace("README.md", "## Abstract", "<b>bold</b>\n\n## Abstract"),
            "must not contain HTML",
        ),
        (_replace("README.md", "license:", "licence:"), "must have 'license'"),
        (
            _replace("__init__.py", "from .", "from ..other import x\nfrom ."),
            "import from another",
        ),
        (_replace("LICENSE", "MIT License", "Apache License"), "must be the MIT License"),
        (_large_image, "below 100 KiB together, but got 2048 KiB"),
        (_unformatted, "ruff format"),
    ],
    ids=["html", "missing-field", "other-package", "licence", "image", "unformatted"],
)
def test_a_broken_package_fails_with_the_right_sentence(
    breaking: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    package = build_package("smac", tmp_path)
    breaking(package)
    assert any(sentence in problem for problem in check_package(package).problems)
