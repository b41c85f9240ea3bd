"""The stored study of the gallery: its notes, and the page that is built of it."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shutil
import sqlite3

import optuna
from optuna_dashboard._note import get_note_from_system_attrs
import pytest

from studies.commands.report import report
from studies.publish.gallery import annotate
from studies.publish.gallery import STORED


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the stored study, whose folder may be written."""
    return Path(shutil.copy(STORED, tmp_path))


def notes(database: Path) -> list[str]:
    """The notes on all trials, as the dashboard reads them."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}")
    study = optuna.load_study(study_name=None, storage=storage)
    attrs = storage.get_study_system_attrs(study._study_id)
    return [str(get_note_from_system_attrs(attrs, t._trial_id)["body"]) for t in study.trials]


def test_the_gallery_is_a_page_of_real_trainings(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(f"sqlite:///{copy}", tmp_path / "out", title="Gallery")
    assert "1 run, 18 trials" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for heading in ("The best so far", "All trials", "Learning curves", "Who found"):
        assert heading in page


def test_each_trial_says_who_proposed_it_what_changed_and_what_came_of_it(copy: Path) -> None:
    found = notes(copy)
    assert len(found) == 18 and all(found)
    assert found[0].startswith("Given: the script's own values.")
    assert "which the critic preferred to that of the language model" in found[13]
    assert "Changed from trial 12, the best then:" in found[14]
    assert found[14].endswith("Came to val\\_bpb 2.5275: the best so far, by 0.011.")
    assert "Failed: oom" in found[1]


def test_the_stored_notes_are_those_that_are_written_today(copy: Path) -> None:
    assert not annotate(copy), "`make gallery` writes them anew"
    assert copy.read_bytes() == STORED.read_bytes()


def test_notes_come_back_as_they_were_and_the_file_is_small_and_readable_anywhere(
    copy: Path,
) -> None:
    with sqlite3.connect(copy) as connection:
        connection.execute("DELETE FROM study_system_attributes WHERE key LIKE 'dashboard:1:%'")
        connection.execute(
            "UPDATE study_system_attributes SET value_json = '\"old\"' "
            "WHERE key LIKE 'dashboard:2:note_str%'"
        )
    connection.close()
    assert annotate(copy)
    assert notes(copy) == notes(STORED)
    assert os.path.getsize(copy) <= os.path.getsize(STORED)
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


def test_nothing_in_the_stored_study_tells_of_a_machine() -> None:
    with sqlite3.connect(STORED) as connection:
        text = "\n".join(connection.iterdump())
    connection.close()
    assert re.findall(r"/(?:home|root|tmp|work|usr|var|mnt|Users)/\S*|[A-Z]:\\\\\S+", text) == []
