"""The command says which packages pass, and why others don't."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
import shutil

import pytest

from studies.commands import publish as publish_command
from studies.publish.build import build_package
from studies.publish.build import DATA
from studies.publish.build import ROOT
from studies.publish.build import sources
from studies.publish.build import VISUALIZATION
from tests.studies.conftest import Cli
from tests.studies.publish.test_build import tree


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


def test_a_folder_that_is_no_checkout_of_the_registry_is_refused(cli: Cli) -> None:
    done = cli("publish", "--registry", ".")
    assert done.returncode == 2
    assert "--registry must be a checkout of optunahub-registry, but . has no" in done.stderr
