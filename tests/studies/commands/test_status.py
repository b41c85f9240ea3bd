"""The table of a storage's studies, in terminals of any width."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from studies.commands.status import status
from tests.studies.report.synthetic import add_study


NAME = "a-study-of-a-long-name-seed0"


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/s.db"
    add_study(optuna.storages.get_storage(url), "centaur", 0, name=NAME)
    return url


@pytest.mark.parametrize("columns", [60, 80, 200, None])
def test_nothing_is_cut_however_narrow_it_is(
    url: str,
    columns: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    status(url)
    out = capsys.readouterr().out
    words = out.split()
    for heading in ("state", "trials", "baseline", "best", "charged", "LLM"):
        assert heading in words
    assert NAME in out and "(33%)" in out and "ok" in out
    assert max(map(len, out.splitlines())) <= (columns or 200)
