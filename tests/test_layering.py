"""The order of imports: commands at the top, objective and samplers at the ground, none upward.

``python -m tests.test_layering`` prints the rooms, their lines and what they import of each other.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
import functools
from pathlib import Path

from graphlib import CycleError
from graphlib import TopologicalSorter


ROOT = Path(__file__).parent.parent
# From the ground up: a room imports of the floors below its own only, so that rooms of one floor
# don't know each other. A room is a package or a module.
FLOORS = (
    (
        "objective",
        "samplers",
        "studies.best_so_far",
        "studies.printable",
        "studies.rows",
        "studies.stopping",
    ),
    (
        "studies.storage",
        "studies.library",
        "studies.budget",
        "studies.random_steps",
    ),
    (
        "studies.errors",
        "studies.facts",
        "studies.methods",
        "studies.changes",
        "studies.study_note",
    ),
    # What a code study's trials say, which everything that names a best has to know.
    ("studies.code_agent.history",),
    ("studies.notes", "studies.range_ends", "studies.repetitions"),
    ("studies.spec", "studies.loop", "studies.pruning"),
    ("studies.llm",),
    ("studies.study",),
    ("studies.code_agent", "studies.played"),
    ("studies.workers",),
    ("studies.comparison", "studies.revalidation", "studies.importing"),
    ("studies.best",),
    ("studies.report",),
    ("studies.scoreboard",),
    ("studies.publish",),
    ("studies.commands",),
    ("studies.cli",),
    ("studies.__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


@dataclass(frozen=True)
class Import:
    """An import of one module of this project by another; those for types only are imports too.

    Attributes:
        importer: The module that imports, by its full name.
        imported: What it imports.
        where: ``file:line``.
    """

    importer: str
    imported: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.importer} imports {self.imported}"


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PACKAGES = ("objective", "samplers", "studies")
MODULES = {
    _name(path): path for folder in PACKAGES for path in sorted((ROOT / folder).rglob("*.py"))
}


def _imports(name: str, path: Path) -> list[Import]:
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            inner = [f"{module}.{alias.name}" for alias in node.names]
            names = [each if each in MODULES else module for each in inner]
        else:
            continue
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        found += [Import(name, each, where) for each in names if each.split(".")[0] in PACKAGES]
    return found


@functools.cache  # not at once: every process of the tests imports this
def imports() -> list[Import]:
    return [each for name, path in MODULES.items() for each in _imports(name, path)]


def room_of(module: str) -> str | None:
    """The innermost room of `FLOORS` that a module is in; ``studies`` itself is in none."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in FLOOR), None)


def upward() -> list[Import]:
    """Imports of a floor that is not below, but for those within a room."""
    return [
        each
        for each in imports()
        if (above := room_of(each.importer)) is not None
        and (below := room_of(each.imported)) is not None
        and above != below
        and FLOOR[above] <= FLOOR[below]
    ]


def circle() -> list[Import]:
    """Imports that lead from a module back to itself; nothing if there is no such circle."""
    graph: dict[str, set[str]] = {}
    for each in imports():
        graph.setdefault(each.importer, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        steps = set(zip(error.args[1][1:], error.args[1]))
        return [each for each in imports() if (each.importer, each.imported) in steps]
    return []


def test_every_module_is_in_a_room_of_the_order() -> None:
    homeless = {name for name in MODULES if room_of(name) is None} - {"studies"}
    assert not homeless, "\n".join(sorted(homeless))


def test_what_is_imported_is_there() -> None:
    """mypy ignores what it can't find, and an import in a function fails only when it is called."""
    broken = [each for each in imports() if each.imported not in MODULES]
    assert not broken, "\n".join(map(str, broken))


def test_nothing_is_imported_upward() -> None:
    broken = upward()
    assert not broken, "\n".join(map(str, broken))


def test_no_module_imports_itself_by_a_circle() -> None:
    broken = circle()
    assert not broken, "\n".join(map(str, broken))


def test_methods_do_not_know_each_other_and_what_they_share_knows_none() -> None:
    methods = {path.parent.name for path in (ROOT / "samplers").glob("*/sampler.py")}
    broken = [
        each
        for each in imports()
        if each.importer.startswith("samplers.") and each.imported.startswith("samplers.")
        if each.imported.split(".")[1] in methods - {each.importer.split(".")[1]}
    ]
    assert not broken, "\n".join(map(str, broken))


def table() -> str:
    """A line a room, from the top down: its lines, and how often it imports of which others."""
    lines: Counter[str | None] = Counter()
    for name, path in MODULES.items():
        lines[room_of(name)] += len(path.read_text().splitlines())
    rows = []
    for number, rooms in reversed(list(enumerate(FLOORS))):
        for room in rooms:
            others = Counter(
                room_of(each.imported) for each in imports() if room_of(each.importer) == room
            )
            said = ", ".join(f"{name} {n}" for name, n in others.most_common() if name != room)
            rows.append(f"{number:>2}  {room:<22} {lines[room]:>6}  {said or '-'}")
    heading = f"{'':>2}  {'room':<22} {'lines':>6}  imports of"
    return "\n".join([heading, *rows, f"circles {int(bool(circle()))}, upward {len(upward())}"])


if __name__ == "__main__":
    print(table())
