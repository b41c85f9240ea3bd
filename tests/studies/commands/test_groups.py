from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from studies.commands.groups import Script
from studies.commands.groups import with_groups


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="In columns.")] = 2
    height: int = 3


def test_the_options_of_a_group_are_the_commands_own() -> None:
    seen = []

    @with_groups
    def draw(name: Annotated[str, typer.Option()], size: Size, times: int = 1) -> None:
        seen.append((name, size, times))

    app = typer.Typer(add_completion=False)
    app.command()(draw)
    done = CliRunner().invoke(app, ["--height", "5", "--name", "a", "--times", "4"])
    assert done.exit_code == 0 and seen == [("a", Size(2, 5), 4)]
    assert "In columns." in CliRunner().invoke(app, ["--help"]).output
    assert CliRunner().invoke(app, ["--name", "a", "--width", "0"]).exit_code == 2


def test_a_python_of_ones_own_is_found_from_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env").mkdir()
    pythons = [Script(python=p).where("", None).runtime.python for p in ("env", "uv run python")]
    assert pythons == [str(tmp_path / "env"), "uv run python"]
