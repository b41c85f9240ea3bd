"""Other people's trials in our storage: files of both forms, with all that is wrong in real ones."""

from __future__ import annotations

import json
from pathlib import Path
import statistics
from typing import TYPE_CHECKING

import optuna
import pytest

from studies.commands.import_ import import_
from studies.errors import Misuse
from studies.storage.open import opened
from tests.studies.conftest import Cli
from tests.studies.importing.conftest import a_row
from tests.studies.importing.conftest import lines_of
from tests.studies.importing.conftest import mean_of_best
from tests.studies.importing.conftest import nested
from tests.studies.importing.conftest import Write
from tests.studies.importing.conftest import write as write


if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.parametrize("form", ["nested", "lines"])
def test_the_report_gives_the_files_own_means(cli: Cli, write: Write, form: str) -> None:
    content = nested()
    path = write("trials", content if form == "nested" else lines_of(content))
    done = cli("import", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("180 trials imported into 9 studies\n")
    report = cli("report", "--out", cli.folder / "report", "--json")
    assert report.returncode == 0, report.stderr
    rows = {row["method"]: row for row in json.loads(report.stdout)["methods"]}
    expected = mean_of_best(content)
    assert rows.keys() == expected.keys()
    for method, mean in expected.items():
        assert f"{rows[method]['best_mean']:.4f}" == f"{mean:.4f}"
        trials = [row for seed in content[method].values() for row in seed]
        assert (rows[method]["trials"], rows[method]["n"]) == (60, 3)
        failed = statistics.mean(not row["success"] for row in trials)
        assert rows[method]["failed_share"] == pytest.approx(failed)
        assert rows[method]["hours"] == pytest.approx(sum(row["wt"] for row in trials) / 3600)


def test_a_missing_file_and_one_without_a_trial_are_one_line(cli: Cli, write: Write) -> None:
    assert "must be a readable file" in cli.fails(2, "import", cli.folder / "none.json")
    path = write("runs.jsonl", [a_row(seed=None), a_row(seed=None, trial_id=1)])
    message = cli.fails(1, "import", path)
    assert "2 x no seed (an integer)" in message


@pytest.mark.parametrize("prefix", ["p\udcff", "p\x1b[2J", "p" * 51])
def test_a_prefix_that_no_name_can_begin_with_is_one_line(
    tmp_path: Path, write: Write, prefix: str
) -> None:
    file = write("runs.jsonl", [a_row()])
    with pytest.raises(Misuse, match="--prefix must be a text of at most 50") as raised:
        import_(file, storage=f"sqlite:///{tmp_path}/s.db", prefix=prefix)
    str(raised.value).encode()


def test_a_method_with_the_longest_prefix_keeps_its_name(tmp_path: Path, write: Write) -> None:
    storage = f"sqlite:///{tmp_path}/s.db"
    import_(write("runs.jsonl", [a_row(backend="m" * 200)]), storage=storage, prefix="p" * 50)
    with opened(storage) as there:
        (study,) = optuna.get_all_study_summaries(there)
        assert study.user_attrs["method"] == "p" * 50 + "m" * 200


def test_as_many_notes_as_a_file_asks_for_are_some_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {f"low\n{number}": 1 for number in range(2000)}
    row = {"tid": 0, "val_bpb": 1.0, "success": True, "wt": 1, "LR": 1, **names}
    file = tmp_path / "trials.json"
    file.write_text(json.dumps({"m": {"0": [row]}}))
    import_(file, storage=f"sqlite:///{tmp_path}/s.db")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 23 and lines[-1] == "    1980  for 1980 more reasons"
    assert "low " in lines[-2]


@pytest.mark.browser
def test_the_dashboard_shows_an_imported_study(cli: Cli, write: Write, page: Page) -> None:
    content = nested(12)
    assert cli("import", write("runs.json", content)).returncode == 0
    study = optuna.load_study(study_name="TPE-seed1", storage=cli.storage)
    address = cli.dashboard(cli.storage)
    page.goto(f"{address}/dashboard")
    page.get_by_text("Centaur [Opus 4.6]-seed0").first.wait_for()
    page.goto(f"{address}/dashboard/studies/{study._study_id}")
    page.wait_for_function(
        "n => document.querySelectorAll('#plot-history .scatterlayer .point').length >= n",
        arg=12,
    )
    page.goto(f"{address}/dashboard/studies/{study._study_id}/note")
    page.get_by_text("optuna-autoresearch best --study TPE-seed1").wait_for()
    best = study.best_trial
    page.goto(f"{address}/dashboard/studies/{study._study_id}/trials?numbers={best.number}")
    for text in ("MATRIX_LR", str(best.value), "training_seconds"):
        page.get_by_text(text).first.wait_for()
