"""A training's command line for a shell: it runs from any folder as its trial did."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

from objective.run.interpreter import find_interpreter
from objective.testbed.command import Command
from objective.testbed.testbed import Testbed


def by_hand(testbed: Testbed, line: str) -> str:
    """Return what a shell runs a training with, given the command line of its trial.

    Raises:
        TestbedError: If the line, the files or the interpreter can't be used.
    """
    files, runtime, command = testbed.files, testbed.runtime, Command.parse(line)
    cwd = files.root / files.cwd
    words = list(command.words)
    if command.runs_script:
        words[1] = os.path.relpath(testbed.path / words[1], cwd)
    if command.is_python:
        python = find_interpreter(testbed.path, runtime.python, resolve=False)
        if python.origin or shutil.which("python") != sys.executable:
            words[:1] = python.argv
    variables = dict(word.split("=", 1) for word in runtime.env if "=" in word)
    if paths := [os.path.relpath(path, cwd) for path in files.python_path(files.root)]:
        given = variables.get("PYTHONPATH") or os.environ.get("PYTHONPATH")
        variables["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [given])])
    variables |= command.environment
    set_ = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    # What may be a key is stored without its value, which the user's shell must have.
    set_ += [f'{word}="${{{word}?}}"' for word in runtime.env if "=" not in word]
    return " ".join(["cd", shlex.quote(str(cwd)), "&&", *set_, shlex.join(words)])
