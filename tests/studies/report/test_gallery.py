"""The stored study of the gallery, and the page that is built of it."""

from __future__ import annotations

from pathlib import Path
import shutil

import pytest

from studies.commands.report import report


STORED = Path(__file__).parents[3] / "docs" / "gallery" / "trainings.db"


def test_the_gallery_is_a_page_of_real_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(STORED, tmp_path)  # whose folder may be read-only
    report(f"sqlite:///{tmp_path / STORED.name}", tmp_path / "out", title="Gallery")
    assert "1 run, 18 trials" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for heading in ("The best so far", "All trials", "Learning curves", "Who found"):
        assert heading in page
