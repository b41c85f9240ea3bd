"""A user's files that are called as this project's packages are: its own are run all the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil
import subprocess
import sysconfig

import pytest

from tests.studies.conftest import Cli


PACKAGES = ("objective", "samplers", "studies")


@pytest.fixture
def script() -> str:
    """The console script, which `python -m studies` is not: that looks in its folder first."""
    name = "optuna-autoresearch"
    found = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.defpath]))
    assert found is not None, "the project must be installed: pip install --editable ."
    return found


@pytest.fixture
def shadowed(cli: Cli) -> Path:
    """A working directory with a file of each package's name, none of which may be imported."""
    for name in PACKAGES:
        (cli.folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')\n")
    return cli.folder


@pytest.mark.parametrize("where", [["--workers", "2"], ["--workers", "2", "--cluster", "local"]])
def test_workers_run_where_files_bear_the_packages_names(
    script: str, shadowed: Path, testbed: Path, where: list[str]
) -> None:
    command = ["run", "--testbed", str(testbed), "--method", "random", "--trials", "2", "--json"]
    done = subprocess.run(
        [script, *command, *where], cwd=shadowed, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluated"] == 2
    assert "was imported" not in done.stderr


def test_a_training_finds_its_own_file_of_such_a_name(
    script: str, shadowed: Path, testbed: Path
) -> None:
    train = testbed / "train.py"
    train.write_text(f"import objective\n{train.read_text()}")
    (testbed / "objective.py").write_text("")
    command = ["run", "--testbed", str(testbed), "--method", "random", "--trials", "1", "--json"]
    done = subprocess.run(
        [script, *command], cwd=shadowed, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] == 1
