"""What the documents tell a reader to type is there: commands, options, files."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys
import time

from packaging.specifiers import SpecifierSet
import pytest
from typer.main import get_command

from studies.cli import COMMANDS
from studies.cli import make_app
from studies.commands.parsing import parse_moment
from tests.conftest import not_here


ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "studies").rglob("*.md")),
    *sorted((ROOT / "samplers").glob("*/README.md")),
]
_TYPED = re.compile(
    r"^(?:\$ |exec )((?:.*\\\n)*.*)"  # in a block
    r"|`(optuna-autoresearch\s+[a-z-]+(?:\s[^`]*)?)`",  # in a sentence
    re.MULTILINE,
)
_TEST_MODULE = re.compile(r"\btest_\w+\.py\b")
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def typed(text: str) -> list[str]:
    """Return the lines of a document that a reader is to type."""
    lines = (match[1] or match[2] for match in _TYPED.finditer(text))
    return [" ".join(line.replace("\\\n", " ").split()) for line in lines]


def commands() -> Iterator[tuple[str, list[str]]]:
    for document in DOCUMENTS:
        for line in typed(document.read_text(encoding="utf-8")):
            if line.startswith("optuna-autoresearch "):
                words = shlex.split(line.replace("...", "x"), comments=True)
                yield f"{document.relative_to(ROOT)}: {line}", words[1:]


@pytest.mark.parametrize("where, arguments", list(commands()), ids=lambda value: str(value)[:70])
def test_every_command_is_one_that_the_command_line_takes(
    where: str, arguments: list[str]
) -> None:
    name, *rest = arguments
    command = get_command(make_app(list(COMMANDS))).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, rest)  # raises what the command line would print


def test_the_end_of_a_slurm_job_is_a_moment_for_until() -> None:
    if sys.platform != "linux":
        not_here("needs GNU date, which SLURM's machines have")
    text = (ROOT / "docs" / "clusters.md").read_text()
    (moment,) = re.findall(r'--until ("\$\(date .*?\)")', text)
    end = int(time.time()) + 3600
    environment = {**os.environ, "SLURM_JOB_END_TIME": str(end)}
    printed = subprocess.run(
        ["sh", "-c", f"printf %s {moment}"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parse_moment(printed.stdout) == end


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = _LINK.findall(document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_of_tests_that_is_named_is_there(document: Path) -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(_TEST_MODULE.findall(document.read_text())) <= there


def test_every_row_of_the_tables_of_safety_names_its_tests() -> None:
    text = (ROOT / "docs" / "safety.md").read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and "| tests |" not in line
    ]
    assert len(rows) > 20
    assert [row for row in rows if not _TEST_MODULE.search(row.split("|")[-2])] == []


def test_pythons_whose_sockets_everybody_reaches_are_refused() -> None:
    found = re.search(r'^requires-python = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert found is not None
    versions = ["3.10.0", "3.10.8", "3.10.9", "3.11.0", "3.11.1", "3.14.0"]
    assert [*SpecifierSet(found[1]).filter(versions)] == ["3.10.9", "3.11.1", "3.14.0"]


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200
