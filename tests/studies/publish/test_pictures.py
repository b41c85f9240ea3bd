"""The pictures in the packages are those of the stored results."""

from __future__ import annotations

from pathlib import Path
import shutil

from studies.publish.build import ROOT
from studies.publish.pictures import draw
from studies.publish.pictures import NAME
from studies.publish.pictures import PICTURES
from studies.publish.pictures import regrets
from studies.scoreboard.analysis import Board
from studies.scoreboard.runs import read


def test_a_picture_shows_the_regret_that_the_tables_tell() -> None:
    for number, told in (
        (0, {"CentaurSampler, no language model": 0.04, "TPESampler": 0.066}),
        (-1, {"GPSampler": 0.133, "TPESampler": 0.115, "RandomSampler": 0.206}),
    ):
        picture = PICTURES[number]
        results = read(ROOT / "studies/results" / picture.results / "runs.csv")
        plot = regrets(Board(results, picture.samplers), picture.trials)
        ends = {marks.label: round(float(marks.y[-1]), 3) for marks in plot.marks}
        assert told.items() <= ends.items()


def test_each_package_has_its_picture_and_drawing_again_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    for each in PICTURES:
        assert (ROOT / each.folder / f"{NAME}.png").read_bytes()[:4] == b"\x89PNG"
        (tmp_path / each.folder).mkdir(parents=True)
        target = tmp_path / "studies/results" / each.results
        shutil.copytree(ROOT / "studies/results" / each.results, target, dirs_exist_ok=True)
    first = {path: path.read_bytes() for path in draw(tmp_path)}
    assert {path: path.read_bytes() for path in draw(tmp_path)} == first
    assert len(first) == len(PICTURES)
