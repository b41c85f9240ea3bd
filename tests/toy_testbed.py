"""Parts of testbeds that train nothing, for tests that need a testbed and no torch."""

from __future__ import annotations

from pathlib import Path


DEPTH = """
[DEPTH]
type = "int"
low = 1
high = 8
"""
LR = """
[LR]
type = "float"
low = 0.0001
high = 0.1
log = true
"""
PATTERN = """
[PATTERN]
type = "categorical"
choices = ["ab", "ba"]
"""


def write_testbed(folder: Path, train: str, prepare: str | None = None, **files: str) -> Path:
    """Write a testbed: a ``train.py``, and a ``prepare.py`` and other files if given."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train.py": train, **files}
    if prepare is not None:
        files["prepare.py"] = prepare
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder
