"""Pictures of what a browser shows."""

from __future__ import annotations

from pathlib import Path
import shutil
from typing import TYPE_CHECKING

from PIL import Image
import pytest

from studies.publish.build import ROOT
from studies.publish.gallery import STORED
from studies.publish.screenshots import IMAGES
from studies.publish.screenshots import photograph_dashboard


if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.mark.browser
def test_the_dashboard_shows_the_stored_study_and_the_note_on_its_best_trial(
    browser: Browser, tmp_path: Path
) -> None:
    photograph_dashboard(browser, Path(shutil.copy(STORED, tmp_path)), tmp_path)
    for path in (tmp_path / "dashboard.png", tmp_path / "dashboard_trial.png"):
        with Image.open(path) as new, Image.open(IMAGES / path.name) as stored:
            assert new.size == stored.size, f"`make pictures` writes {path.name} anew"
            assert len(new.getcolors() or ()) > 20  # more than an empty page


def test_every_picture_in_the_docs_is_shown_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert [path.name for path in IMAGES.iterdir() if f"images/{path.name}" not in text] == []
