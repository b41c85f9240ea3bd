from __future__ import annotations

import json
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from objective import Testbed
from studies.changes import changes
from studies.changes import fingerprints
from studies.changes import recorded
from tests.toy_testbed import write_testbed


def test_changes_are_named() -> None:
    before = {"a.py": "1", "b.py": "1", "c.py": "1"}
    now = {"a.py": "1", "b.py": "2", "d.py": "1"}
    assert changes(before, now) == "b.py was edited, c.py is gone, d.py is new"
    assert changes(before, before) == ""


def test_many_changes_are_counted() -> None:
    files = {f"{n}.py": "1" for n in range(9)}
    assert changes({}, files).endswith("4.py is new, 4 more")


def test_many_files_are_recorded_by_folder() -> None:
    files = {f"data/{n}/x.csv": "1" for n in range(5000)} | {"a.py": "1", "../up/b.py": "1"}
    before = recorded(files)
    assert before.keys() == {"data/", "a.py", "../up/"}
    assert len(json.dumps(before)) < 200
    files["data/7/x.csv"] = "2"
    assert changes(before, recorded(files)) == "data/ was edited"
    assert recorded({"a.py": "1"}) == {"a.py": "1"}


def test_a_new_file_may_hide_what_is_installed_for_the_script_alone(tmp_path: Path) -> None:
    def now() -> dict[str, str]:
        return fingerprints(Testbed.load(bed), {})

    bed = write_testbed(tmp_path, "import fits\nLR = 1\n")
    installed = bed / ".venv" / "lib" / "site-packages" / "rare"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    program = bed / ".venv" / "bin" / "python"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={installed.parent} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    for name in ("rare.py", "b.py", "best_train.py", "old/rare.py"):
        (bed / name).parent.mkdir(exist_ok=True)
        (bed / name).write_text("A = 1\n")
    assert now().keys() == {"rare.py"}


@pytest.mark.parametrize("example", ["digits/classify.py", "forty_constants/train.py"])
def test_a_winner_and_notebooks_beside_a_script_are_no_change(
    example: str, tmp_path: Path
) -> None:
    script = tmp_path / "testbeds" / example
    shutil.copytree(Path(__file__).parents[1] / "testbeds", tmp_path / "testbeds")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "testbeds"], check=True)
    before = fingerprints(Testbed.load(script))
    for name in ("best_train.py", "b.py", "scratch.py", "notebooks/eda.py"):
        new = script.parent / name
        new.parent.mkdir(exist_ok=True)
        new.write_text("import os, train\nos.listdir('.')\n")
    assert fingerprints(Testbed.load(script), before) == before
    assert fingerprints(Testbed.load(script)) != before


def test_new_files_that_change_nothing_are_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now() -> dict[str, str]:
        return fingerprints(Testbed.load(bed), before)

    bed = write_testbed(tmp_path, "LR = 1\n")
    before: dict[str, str] | None = None
    assert now() == (before := {}), "the script alone"
    (bed / "helper.py").write_text("A = 1\n")
    assert now() == before, "nothing imports it"
    (bed / "train.py").write_text("import helper\nLR = 1\n")
    assert list(now()) == ["helper.py"]

    before = now()
    (bed / "b.py").write_text("import c\n")
    (bed / "c.py").touch()
    assert now() == before, "nothing leads to either"
    (bed / "helper.py").write_text("import c\n")
    assert changes(before, now()) == "c.py is new, helper.py was edited"
    (bed / "helper.py").unlink()
    assert changes(before, now()) == "helper.py is gone"

    monkeypatch.setattr("studies.changes._MAX_FILES", 3)
    for name in ("more/a.py", "more/d.py", "helper.py"):
        (bed / name).parent.mkdir(exist_ok=True)
        (bed / name).write_text("A = 1\n")
    before = None
    assert now().keys() == {"b.py", "c.py", "helper.py", "more/"}
    before = now()
    (bed / "e.py").touch()
    assert now() == before
    (bed / "more" / "e.py").touch()
    assert changes(before, now()) == "more/ was edited"
