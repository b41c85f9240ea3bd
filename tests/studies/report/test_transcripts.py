"""Which prompts and replies a page gets, and how much of them."""

from __future__ import annotations

from pathlib import Path

from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import InMemoryStorage
import pytest

from studies.report import transcripts
from studies.report.transcripts import load_transcripts
from studies.report.transcripts import shorten
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of


def test_a_long_text_keeps_its_beginning_and_its_end_and_says_what_is_missing() -> None:
    text = "".join(chr(97 + i % 26) for i in range(1000))
    cut = shorten(text, 100)
    assert cut.startswith(text[:60]) and cut.endswith(text[-40:])
    assert "[... 900 characters left out ...]" in cut
    assert shorten(text, 1000) == text


def test_improvements_come_before_a_sample_of_the_others(
    memory: InMemoryStorage, tmp_path: Path
) -> None:
    asked = range(2, 120, 3)
    said = {number: f"said in {number}" for number in asked}
    add_study(memory, "centaur", 0, trials=120, said=said, folder=tmp_path)
    (run,) = runs_of(memory)
    found = load_transcripts([run], memory, FileSystemArtifactStore(tmp_path))
    numbers = [entry["trial"] for entry in found]
    assert 0 < len(numbers) <= transcripts.PER_RUN and numbers == sorted(numbers)
    assert {row.number for row in run.incumbents if row.number in asked} <= set(numbers)
    assert [entry["text"] for entry in found] == [f"said in {number}" for number in numbers]


def test_the_best_run_of_each_method_comes_first_when_there_is_too_much(
    memory: InMemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, gap in enumerate((0.2, 0.0, 0.1)):
        said = {2: "x" * 100}
        add_study(memory, "centaur", seed, gap=gap, trials=6, said=said, folder=tmp_path)
    monkeypatch.setattr(transcripts, "MOST_IN_ALL", 250)
    runs = runs_of(memory)
    found = load_transcripts(runs, memory, FileSystemArtifactStore(tmp_path))
    assert [runs[entry["run"]].seed for entry in found] == [1, 2]


def test_a_transcript_whose_file_is_gone_is_left_out(
    memory: InMemoryStorage, tmp_path: Path
) -> None:
    add_study(memory, "centaur", 0, said={2: "gone"}, folder=tmp_path)
    store = FileSystemArtifactStore(tmp_path / "elsewhere")
    assert load_transcripts(runs_of(memory), memory, store) == []
