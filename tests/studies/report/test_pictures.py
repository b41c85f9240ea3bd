"""Static pictures: there is one of everything that can be drawn, and the same input is the same."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import InMemoryStorage
import pytest

from studies.report.pictures import pictures
from studies.report.pictures import write_pictures
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of


def test_every_plot_has_a_picture(memory: InMemoryStorage) -> None:
    for ratio in (0.1, 0.3):
        for model in ("big", "small"):
            name = f"{ratio}{model}"
            study = add_study(memory, "centaur", 0, name=name, llm_ratio=ratio, model=model)
            add_repetitions(memory, study, [1.0, 1.1])
    add_study(memory, "random", 0)
    drawn = pictures(runs_of(memory))
    assert set(drawn) == {
        "time", "trials", "runs", "traces", "failures", "failure-map", "sources", "ratios",
        "models", "llm",
    }  # fmt: skip
    legend = drawn["time"].axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert "random (n=1)" in labels and len(labels) == 5
    assert len([axes for axes in drawn["traces"].axes if axes.get_visible()]) == 5


def test_a_storage_without_success_has_only_pictures_of_its_failures(
    memory: InMemoryStorage,
) -> None:
    add_study(memory, "random", 0, failed_share=1.0)
    assert set(pictures(runs_of(memory))) == {"failures", "failure-map"}


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_same_runs_give_the_same_file(
    memory: InMemoryStorage, tmp_path: Path, kind: str
) -> None:
    add_study(memory, "random", 0, failed_share=1.0)
    runs = runs_of(memory)
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        files.append({p.name: p.read_bytes() for p in write_pictures(runs, folder, kind)})
    assert files[0] == files[1] and f"failures.{kind}" in files[0]
