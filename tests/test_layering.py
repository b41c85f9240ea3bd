"""Data flows one way: studies -> samplers, objective; the two never import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "samplers": {"objective", "studies"},
    "objective": {"samplers", "studies"},
}


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """The absolute name and line of everything that a file of this project imports."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.append((node.lineno, ".".join([*base, *filter(None, [node.module])])))
    return found


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_samplers_and_objective_meet_only_in_optuna_types(folder: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in sources(folder)
        for line, name in imported_modules(path)
        if name.split(".")[0] in FORBIDDEN[folder]
    ]
    assert not broken, "\n".join(broken)


def test_the_llm_core_knows_no_method_and_methods_do_not_know_each_other() -> None:
    methods = {p.parent.name for p in (ROOT / "samplers").glob("*/sampler.py")}
    broken = []
    for path in sources("samplers"):
        home = path.relative_to(ROOT / "samplers").parts[0]
        for line, name in imported_modules(path):
            parts = name.split(".")
            if parts[0] == "samplers" and len(parts) > 1 and parts[1] in methods - {home}:
                broken.append(f"{path.relative_to(ROOT)}:{line}: imports {name}")
    assert not broken, "\n".join(broken)
