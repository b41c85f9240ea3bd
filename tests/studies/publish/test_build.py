"""Packages are self-contained and the same bytes every time."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
import shutil

import pytest

from studies.commands import publish as publish_command
from studies.publish.build import build_package
from studies.publish.build import DATA
from studies.publish.build import PublishError
from studies.publish.build import rewrite_imports
from studies.publish.build import ROOT
from studies.publish.build import sources
from studies.publish.build import VISUALIZATION
from tests.studies.conftest import Cli


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_command_says_pass_of_every_package_and_again_changes_no_byte(
    cli: Cli, surrogate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = cli.folder / "root"
    for folder in ("samplers", "objective", VISUALIZATION):
        shutil.copytree(ROOT / folder, root / folder)
    (root / DATA).parent.mkdir(exist_ok=True)
    shutil.copy(surrogate, root / DATA)
    monkeypatch.setattr(publish_command, "ROOT", root)
    (cli.folder / "registry" / "package").mkdir(parents=True)

    done = cli("publish", "--into", "registry")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == [f"{source.package}: pass" for source in sources()]
    out = cli.folder / "dist" / "package"
    built = tree(out)
    assert tree(cli.folder / "registry" / "package") == built
    assert built["benchmarks/autoresearch/surrogate.json"] == lzma.decompress(
        surrogate.read_bytes()
    )

    for source in sources(root):
        build_package(source, out, root)
    assert tree(out) == built

    shutil.rmtree(root / DATA.rpartition("/")[0])
    (root / "samplers" / "smac" / "extra.py").write_text("from ..centaur import state\n")
    monkeypatch.setattr(publish_command, "sources", lambda root: sources(root)[3:5])
    done = cli("publish", "--json")
    assert done.returncode == 1
    smac, benchmark = json.loads(done.stdout).values()
    assert "smac/extra.py:1 says 'from ..centaur import state'" in smac[0]
    assert "must have a data set" in benchmark[0]


def test_only_the_shared_modules_that_are_reached_are_vendored(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "samplers" / "_llm").mkdir(parents=True)
    (root / "samplers" / "one").mkdir()
    for name, text in {
        "_llm/__init__.py": "",
        "_llm/a.py": "from .b import B\n",
        "_llm/b.py": "B = 1\n",
        "_llm/c.py": "",
        "one/c.py": "",
        "one/sampler.py": "from .._llm.a import A\nfrom .c import C\n",
    }.items():
        (root / "samplers" / name).write_text(text)
    (source,) = (each for each in sources(root) if each.package == "samplers/one")
    package = build_package(source, tmp_path / "dist", root)
    assert sorted(tree(package)) == [
        "_llm/__init__.py",
        "_llm/a.py",
        "_llm/b.py",
        "c.py",
        "sampler.py",
    ]
    assert (package / "sampler.py").read_text() == "from ._llm.a import A\nfrom .c import C\n"


@pytest.mark.parametrize(
    "line",
    [
        "from ..other import x",
        "from samplers.other import x",
        "from objective import y",
        "import objective.run.script",
    ],
)
def test_an_import_that_cannot_be_published_is_named_by_file_and_line(line: str) -> None:
    with pytest.raises(PublishError, match=r"one/sampler\.py:2"):
        rewrite_imports(f"import os\n{line}\n", "one/sampler.py")


@pytest.mark.parametrize(
    ("dots", "objective", "run", "package"),
    [
        (".", "._objective", "._objective.run", "._objective"),
        (".", ".", ".run", "."),
        ("..", "..", "..run", ".."),
    ],
    ids=["of a package", "inside", "inside a folder"],
)
def test_imports_of_the_objective_lead_to_its_copy(
    dots: str, objective: str, run: str, package: str
) -> None:
    source = "from objective.run.script import x\nfrom objective import y\n"
    assert rewrite_imports(source, "here.py", dots, objective) == (
        f"from {run}.script import x\nfrom {package} import y\n"
    )
