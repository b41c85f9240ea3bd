"""Which Python runs a testbed's script: the one that is named, or that belongs to its folder.

If none is named, the first that applies:

1. a virtual environment ``.venv`` or ``venv`` in the testbed's folder, or in one above it up to the
   top of its checkout;
2. ``uv run``, if a ``uv.lock``, or a ``pyproject.toml`` with a ``[project]``, lies in the folder and
   uv is installed;
3. the Python that runs this.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import functools
import json
import os
from pathlib import Path
import shlex
import shutil
import subprocess
import sys
from typing import Any

from objective.testbed.source import TestbedError


OLDEST = (3, 9)  # that launch.py runs on

_START_SECONDS = 60.0
_UV_SECONDS = 3600.0  # it may have to download all that the script needs

# Tells of the interpreter, and which of the modules named in its arguments it would not find.
_PROBE = """\
import sys
here = sys.path.pop(0)
import importlib.util, json
sys.path.insert(0, here)
missing = []
for name in sys.argv[1:]:
    try:
        found = name in sys.modules or importlib.util.find_spec(name) is not None
    except Exception:  # whatever a package above it raises: a script could not import it either
        found = False
    if not found:
        missing.append(name)
print(json.dumps({"executable": sys.executable, "version": sys.version_info[:3],
                  "prefixes": sorted({sys.prefix, sys.base_prefix}), "path": sys.path,
                  "missing": missing}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A command that starts Python.

    Attributes:
        argv: The command.
        origin: What it was taken from, for people; empty for the Python that runs this.
    """

    argv: tuple[str, ...] = (sys.executable,)
    origin: str = ""

    def variables(self) -> dict[str, str]:
        """Return the variables with which the programs of its environment are found."""
        program = Path(self.argv[0])
        if len(self.argv) > 1 or not self.origin or not program.is_absolute():
            return {}
        found = {"PATH": os.pathsep.join([str(program.parent), os.environ.get("PATH", "")])}
        if (program.parent.parent / "pyvenv.cfg").exists():
            found["VIRTUAL_ENV"] = str(program.parent.parent)
        return found

    def folders(self) -> list[Path]:
        """Return the folders that it needs to run, for a sandbox that shows no others."""
        if not self.origin:
            return []
        return [Path(prefix) for prefix in _told(self.argv)["prefixes"]]

    def packages(self) -> list[str]:
        """Return the folders in which it finds installed packages."""
        path = _told(self.argv)["path"] if self.origin else sys.path
        return [folder for folder in path if folder.endswith("-packages")]

    def examine(
        self, modules: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> dict[str, Any]:
        """Start it, and return its ``executable``, ``version``, ``prefixes``, ``path``, ``missing``.

        Args:
            modules: Names of top-level modules that a script in the folder would import.
            environment: Variables.
            folder: Working directory, in which modules are looked for first.

        Raises:
            TestbedError: If it doesn't start, or is no Python that a script could be run by.
        """
        return _examine(self.argv, tuple(modules), environment, folder, _START_SECONDS)


def find_interpreter(
    folder: Path, python: str | None = None, *, resolve: bool = True
) -> Interpreter:
    """Return the Python for the script of a folder.

    Args:
        folder: The testbed's.
        python: A path, the folder of a virtual environment, the name of a program, or a command
            that starts Python, such as ``uv run python``; None looks for one, see the module.
        resolve: Let uv make its environment, and return the program in that; otherwise what uv
            would be called with, of which nothing is run.

    Raises:
        TestbedError: If there is no such program, or uv can't make the environment.
    """
    if python is not None:
        return Interpreter(_named(python), f"--python {python}")
    for level in _levels(folder):
        for name in (".venv", "venv"):
            program = level / name / "bin" / "python"
            if program.exists():
                return Interpreter((str(program),), os.path.relpath(program, folder))
    for sign in ("uv.lock", "pyproject.toml"):
        if _is_project(folder / sign) and (uv := shutil.which("uv")):
            argv = (uv, "run", "--project", str(folder), "python")
            return Interpreter((_resolved(argv),) if resolve else argv, f"uv run, for its {sign}")
    return Interpreter()


def _named(python: str) -> tuple[str, ...]:
    try:
        words = shlex.split(python)
    except ValueError as error:
        raise TestbedError(f"--python must be as in a shell, but: {error}.") from None
    if not words:
        raise TestbedError("--python must name a program, but is empty.")
    # A path with spaces may come unquoted.
    whole = Path(python).expanduser()
    if whole.exists():
        words = [str(whole)]
    program = Path(words[0]).expanduser()
    if (program / "bin" / "python").exists():
        program = program / "bin" / "python"
    if program.is_file() and os.access(program, os.X_OK):
        # Not resolved: a link into another environment finds that one's packages.
        return (os.path.abspath(program), *words[1:])
    found = shutil.which(words[0])
    if found is None:
        raise TestbedError(f"--python must name a program, but there is no {words[0]} here.")
    return (found, *words[1:])


def _levels(folder: Path) -> list[Path]:
    """Return the folder, and those above it up to the top of its checkout."""
    levels = [folder, *folder.parents]
    tops = [n for n, level in enumerate(levels) if (level / ".git").exists()]
    return levels[: tops[0] + 1] if tops else levels[:1]


def _is_project(path: Path) -> bool:
    if not path.is_file():
        return False
    return path.name != "pyproject.toml" or "\n[project]" in "\n" + path.read_text(
        errors="replace"
    )


@functools.lru_cache
def _resolved(argv: tuple[str, ...]) -> str:
    """Return the program that a launcher starts, once it has made the environment."""
    # uv looks for its cache, mirrors and certificates in variables of its own.
    found = _examine(argv, (), os.environ, Path.cwd(), _UV_SECONDS)
    return str(found["executable"])


@functools.lru_cache
def _told(argv: tuple[str, ...]) -> dict[str, Any]:
    return _examine(argv, (), os.environ, Path.cwd(), _START_SECONDS)


def _examine(
    argv: tuple[str, ...],
    modules: tuple[str, ...],
    environment: Mapping[str, str],
    folder: Path,
    seconds: float,
) -> dict[str, Any]:
    command = [*argv, "-c", _PROBE, *modules]
    shown = shlex.join(argv)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
        last = done.stdout.strip().rpartition("\n")[2]
        found = json.loads(last) if done.returncode == 0 else {}
        version = tuple(found.get("version", ()))
    except OSError as error:
        raise TestbedError(f"{shown} must start, but: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise TestbedError(f"{shown} must start, but didn't in {seconds:g} s.") from None
    except (ValueError, AttributeError, TypeError):
        raise TestbedError(f"{shown} must be a Python, but is something else.") from None
    if not version:
        said = " ".join(done.stderr.split())[-300:]
        raise TestbedError(f"{shown} must start Python, but ended with {done.returncode}: {said}")
    if version < OLDEST:
        raise TestbedError(
            f"{shown} must be Python {OLDEST[0]}.{OLDEST[1]} or newer, but is"
            f" {'.'.join(map(str, version))}."
        )
    return dict(found)
