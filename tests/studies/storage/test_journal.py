"""Journals on a disk that was full, after a power cut, and with lines of something else."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
import pytest

from studies.storage.examine import examine_journal
from studies.storage.journal import damage
from studies.storage.journal import JournalFile
from studies.storage.open import open_storage
from studies.storage.open import StorageError


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """With three finished trials."""
    path = tmp_path / "j.log"
    _add(path, 3)
    return path


def _add(path: Path, trials: int) -> None:
    study = optuna.create_study(
        storage=open_storage(f"journal:{path}"), study_name="s", load_if_exists=True
    )
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)


def _values(path: Path) -> list[float | None]:
    loaded = optuna.load_study(study_name="s", storage=open_storage(f"journal:{path}"))
    return [trial.value for trial in loaded.trials]


def _plain_values(path: Path) -> list[float | None]:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return [t.value for t in optuna.load_study(study_name="s", storage=storage).trials]


def _mend(path: Path) -> list[str]:
    findings = examine_journal(path)
    for finding in findings:
        if finding.mend is not None:
            finding.mend()
    return [finding.kind for finding in findings]


TORN = [b'{"op_code":4,"worker_id":"w-1","stu', b"\0" * 300, b"\xff\xfe", b"{", b"[" * 50_000]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_end_is_passed_over_and_cut_off_by_the_next_write(
    torn: bytes, journal: Path
) -> None:
    before = _values(journal)
    with journal.open("ab") as file:
        file.write(torn)
    assert _values(journal) == before
    _add(journal, 1)
    assert len(_values(journal)) == 4 and _values(journal)[:3] == before
    assert _plain_values(journal) == _values(journal)


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_line_to_which_another_was_added_is_read_and_mended_in_its_place(
    torn: bytes, journal: Path
) -> None:
    """As plain Optuna leaves it, which reads nothing any more from the next line on."""
    before = _values(journal)
    with journal.open("ab") as file:
        file.write(torn)
    other = optuna.load_study(
        study_name="s", storage=JournalStorage(JournalFileBackend(str(journal)))
    )
    with pytest.raises(Exception):
        other.add_trial(optuna.trial.create_trial(value=7.0))
    reader = optuna.load_study(study_name="s", storage=open_storage(f"journal:{journal}"))
    assert [t.value for t in reader.trials] == [*before, 7.0]

    size = journal.stat().st_size
    assert _mend(journal) == ["unreadable-lines"]
    assert journal.stat().st_size == size and _mend(journal) == []
    assert _plain_values(journal) == [*before, 7.0]
    _add(journal, 1)
    assert len(reader.trials) == 5, "who reads it meanwhile goes on"


def test_lines_of_something_else_are_passed_over(journal: Path) -> None:
    before = _values(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    strange = [b"x" * 200 + b"\n", b"17\n", b'{"op_code":null}\n', b"[" * 100_000 + b"\n"]
    journal.write_bytes(b"".join(lines[:4] + strange + lines[4:]))
    assert _values(journal) == before
    assert damage(journal).lines == [5, 8] and damage(journal).short == [6, 7]
    assert _mend(journal) == ["unreadable-lines", "unreadable-lines"]
    found = damage(journal)
    assert not found.lines and found.short == [6, 7], "which only a person can delete"
    assert _values(journal) == before


ENDED = {"op_code": 6, "trial_id": 3, "state": 1, "values": [1.0]}
WRONG: list[dict[str, object]] = [
    {"op_code": 99},
    {"op_code": "x"},
    {"op_code": 6},
    ENDED | {"datetime_complete": "99999-01-01T00:00:00"},
    ENDED | {"trial_id": []},
    ENDED | {"state": 17, "datetime_complete": "2026-01-01T00:00:00"},
    {"op_code": 5, "trial_id": 3, "param_name": "x", "param_value_internal": 0.5}
    | {"distribution": "{}"},
    {"op_code": 0, "study_name": "other", "directions": [9]},
    {"op_code": 0, "study_name": [1], "directions": [1]},
    {"op_code": 4, "study_id": 0, "datetime_start": None, "params": {"x": 1}},
    {"op_code": 8, "trial_id": 3, "user_attr": [1]},
]


@pytest.mark.parametrize("change", WRONG)
def test_a_change_that_cannot_be_made_is_passed_over_and_mended(
    change: dict[str, object], journal: Path
) -> None:
    before = _values(journal)
    optuna.load_study(study_name="s", storage=open_storage(f"journal:{journal}")).ask()
    with journal.open("a") as file:
        # Longer than what it is replaced by.
        file.write(json.dumps(change | {"worker_id": "w" * 90}) + "\n")
    assert _values(journal) == [*before, None]
    _add(journal, 1)
    assert len(_values(journal)) == 5
    assert _mend(journal) == ["unreadable-lines"] and _mend(journal) == []
    assert _plain_values(journal) == _values(journal)


def test_a_write_that_failed_leaves_nothing(journal: Path) -> None:
    """A limit on the size of files cuts a line in the middle, as a full disk does."""
    program = f"""
import resource, signal
from pathlib import Path
from studies.storage.journal import JournalFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = Path({str(journal)!r}).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
try:
    JournalFile(Path({str(journal)!r})).append_logs([{{"op_code": 0, "worker_id": "w"}}])
except OSError as error:
    print(error.strerror)
"""
    before = journal.read_bytes()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "File too large", done.stderr
    assert journal.read_bytes() == before


def test_a_journal_that_is_only_read_is_not_written(journal: Path) -> None:
    with pytest.raises(StorageError, match="read only"):
        JournalFile(journal, read_only=True).append_logs([{"op_code": 0}])
    missing = journal.with_name("none.log")
    JournalFile(missing, read_only=True)
    assert not missing.exists()


def test_an_attribute_that_looks_like_a_change_is_none(journal: Path) -> None:
    """Quotes are escaped inside of a text, but an attribute may be an object."""
    storage = open_storage(f"journal:{journal}")
    study = optuna.load_study(study_name="s", storage=storage)
    study.set_user_attr("k", {"op_code": 3, "text": '{"op_code":3}'})
    assert study.user_attrs["k"] == {"op_code": 3, "text": '{"op_code":3}'}
    torn = journal.read_bytes().splitlines()[-1]
    line = torn[: -len("}}\n")] + json.dumps({"op_code": 1}).encode() + b"\n"
    journal.write_bytes(journal.read_bytes() + line)
    assert len(_values(journal)) == 3
