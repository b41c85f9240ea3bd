"""The files that the code agent edits, as one text.

Of a single file it is what the file holds. Several stand one after the other, the script first, each
below a line with its name:

    #### model.py ####

So whatever stores, compares, shows or edits a script does the same with several.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import PurePosixPath
import re
from typing import Any
from typing import TYPE_CHECKING

from objective.testbed.source import parse_script
from objective.testbed.source import read_constants
from objective.testbed.source import read_text
from objective.testbed.source import set_constants
from studies.errors import Misuse


if TYPE_CHECKING:
    from objective import Testbed
    from objective.testbed.source import Constant


SCRIPT = "train.py"  # the name of a text that names none
_HEAD = re.compile(r"^#### ([\w./-]+) ####\n", re.MULTILINE)
_OPTION = "--edit-files"


def join(files: Mapping[str, str]) -> str:
    """Return files, by name, as one text, from which `split` makes them again."""
    if len(files) == 1:
        return next(iter(files.values()))
    return "".join(f"{_head(name)}\n{text}\n" for name, text in files.items())


def _head(name: str) -> str:
    return f"#### {name} ####"


def split(text: str) -> dict[str, str]:
    """Return the files of a text by name, in their order; of one that names none it is `SCRIPT`."""
    heads = list(_HEAD.finditer(text))
    if not heads or heads[0].start():
        return {SCRIPT: text}
    ends = [head.start() for head in heads[1:]] + [len(text)]
    # A newline was added to each, so that a head begins a line whatever a file ends with.
    return {head[1]: text[head.end() : end - 1] for head, end in zip(heads, ends)}


def script_and_others(text: str) -> tuple[str, dict[str, str]]:
    """Return the script of a text, and the other files by name."""
    files = split(text)
    return files.pop(next(iter(files))), files


def unedited(testbed: Testbed, others: Sequence[str] = ()) -> str:
    """Return a testbed's script, with the other files that may be edited, as one text.

    Args:
        testbed: The testbed.
        others: Names of Python files in its folder.

    Raises:
        Misuse: If one isn't there, is no file of the testbed's own that a trial has a copy of, or
            decides what a script is worth.
        TestbedError: If one can't be read.
    """
    script = testbed.delivery.script or SCRIPT
    files = {script: testbed.source}
    folder, copies = testbed.files.folder, set(testbed.files.copies)
    prepare = testbed.path / "prepare.py"
    trusted = {"prepare", *(_imports(read_text(prepare)) if prepare.is_file() else ())}
    for name in others:
        path = PurePosixPath(name)
        plain = str(path) == name and path.suffix == ".py" and ".." not in path.parts
        if not plain or path.is_absolute() or name in files or folder / path not in copies:
            raise Misuse(
                f"{_OPTION} must name Python files of the testbed beside {script}, as they are seen"
                f" from its folder, but got {name!r}"
            )
        if path.stem in trusted or path.parts[0] in trusted:
            raise Misuse(f"{_OPTION} must leave {name} as it is: the evaluation uses it")
        files[name] = read_text(testbed.path / name)
    if split(join(files)) != files and others:
        raise Misuse(
            f"{_OPTION} can't tell the files apart: none may have a line such as {_head(script)}, or"
            " other signs in its name than letters, digits and _-./"
        )
    return join(files)


def constants_of(text: str) -> dict[str, Constant]:
    """Return the constants that can be set in one place, by name: none that two files have.

    Raises:
        TestbedError: If a file is not valid Python.
    """
    found: dict[str, Constant] = {}
    twice: set[str] = set()
    for name, source in split(text).items():
        own = read_constants(source, name)
        twice |= own.keys() & found.keys()
        found |= own
    return {name: constant for name, constant in found.items() if name not in twice}


def with_constants(text: str, values: Mapping[str, Any]) -> str:
    """Return the files with other values for some of their constants.

    Raises:
        TestbedError: If no file has such a constant, or a value can't be written as a literal.
    """
    files = split(text)
    left = dict(values)
    for name, source in files.items():
        own = {n: left.pop(n) for n in read_constants(source, name).keys() & left.keys()}
        files[name] = set_constants(source, own, name)
    first = next(iter(files))
    set_constants(files[first], left, first)  # which says what is wrong with what is left
    return join(files)


def _imports(source: str) -> set[str]:
    """Return the first names of the modules that a script imports."""
    names = set()
    for node in ast.walk(parse_script(source, "the script")):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {(node.module or alias.name).split(".")[0] for alias in node.names}
    return names
