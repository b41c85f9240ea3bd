from __future__ import annotations

import os
from pathlib import Path
import sys

import pytest

from objective.run.interpreter import find_interpreter
from objective.run.interpreter import Interpreter
from objective.testbed.source import TestbedError


def make_program(path: Path, text: str = "") -> Path:
    """Write a program; by default one that starts this Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def examine(python: Interpreter, *modules: str, folder: Path) -> dict[str, object]:
    return python.examine(modules, os.environ, folder)


def test_without_an_environment_it_is_this_python(tmp_path: Path) -> None:
    assert find_interpreter(tmp_path) == Interpreter((sys.executable,), "")
    assert Interpreter().variables() == {}
    assert Interpreter().folders() == []


def test_an_environment_beside_the_script_or_above_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    bed = tmp_path / "checkout" / "bed"
    bed.mkdir(parents=True)
    make_program(tmp_path.parent / f"{tmp_path.name}-other" / ".venv" / "bin" / "python")
    assert find_interpreter(bed).origin == "", "not beyond the checkout"
    above = make_program(tmp_path / ".venv" / "bin" / "python")
    assert find_interpreter(bed) == Interpreter((str(above),), "../../.venv/bin/python")
    beside = make_program(bed / "venv" / "bin" / "python")
    (bed / "venv" / "pyvenv.cfg").touch()
    python = find_interpreter(bed)
    assert python == Interpreter((str(beside),), "venv/bin/python")
    variables = python.variables()
    assert variables["VIRTUAL_ENV"] == str(bed / "venv")
    assert variables["PATH"].split(":")[0] == str(beside.parent)
    assert Path(sys.prefix) in python.folders()


@pytest.mark.parametrize(
    ("name", "text", "is_project"),
    [
        ("uv.lock", "", True),
        ("pyproject.toml", "[project]\nname = 'x'\n", True),
        ("pyproject.toml", "[tool.ruff]\n", False),
    ],
)
def test_uv_makes_the_environment_of_a_project(
    name: str,
    text: str,
    is_project: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # uv itself would have to download; what is asked of it is what matters here.
    asked = tmp_path / "asked"
    program = f'#!/bin/sh\necho "$1 $2 $3 $4" > {asked}\nshift 4\nexec {sys.executable} "$@"\n'
    make_program(tmp_path / "programs" / "uv", program)
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:{os.environ['PATH']}")
    bed = tmp_path / "bed"
    bed.mkdir()
    (bed / name).write_text(text)
    python = find_interpreter(bed)
    assert asked.exists() == is_project
    assert python.origin == (f"uv run, for its {name}" if is_project else "")
    assert python.argv == (sys.executable,), "the program that uv starts, without uv"
    if is_project:
        assert asked.read_text() == f"run --project {bed} python\n"


def test_a_path_an_environment_a_name_or_a_launcher_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make_program(tmp_path / "my env" / "bin" / "python")
    monkeypatch.chdir(tmp_path)
    for given in (str(program), "my env/bin/python", str(tmp_path / "my env"), "my env"):
        assert find_interpreter(tmp_path, given).argv == (str(program),)
    env = find_interpreter(tmp_path, f"env LEVEL=3 {sys.executable}")
    assert env.argv[1:] == ("LEVEL=3", sys.executable)
    assert env.variables() == {}
    assert examine(env, folder=tmp_path)["executable"] == sys.executable


def test_missing_modules_are_named_and_the_folders_own_are_not(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "json.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "spaced").mkdir()
    found = examine(Interpreter(), "here", "json", "spaced", "sys", "gone", folder=tmp_path)
    assert found["missing"] == ["gone"]
    assert found["version"] == list(sys.version_info[:3])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no-such-program", "--python must name a program, but there is no no-such-program"),
        ("", "--python must name a program, but is empty"),
        ("'python", "--python must be as in a shell, but: No closing quotation"),
    ],
)
def test_what_is_no_program_is_refused(given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=message):
        find_interpreter(tmp_path, given)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("#!/bin/sh\necho no module >&2\nexit 3\n", "ended with 3: no module"),
        ("#!/bin/sh\necho hello\n", "must be a Python, but is something else"),
        ("#!/bin/sh\necho '{\"version\": [3, 8, 1]}'\n", "must be Python 3.9 or newer, but is 3.8.1"),
        ("#!/no/such/interpreter\n", "must start, but: No such file"),
    ],
)  # fmt: skip
def test_what_does_not_start_python_is_one_line(
    program: str, message: str, tmp_path: Path
) -> None:
    python = Interpreter((str(make_program(tmp_path / "python", program)),), "--python")
    with pytest.raises(TestbedError, match=message) as error:
        examine(python, folder=tmp_path)
    assert "\n" not in str(error.value)
