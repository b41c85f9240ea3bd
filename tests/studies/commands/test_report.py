"""The command: what it writes, pins and refuses."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import json
from pathlib import Path
import re
from typing import Any

import optuna
from optuna.trial import FrozenTrial
import pytest

from objective.testbed.metric import Metric
from studies.commands.report import PictureFormat
from studies.commands.report import report
from studies.commands.work.report import folder_names
from studies.errors import Misuse
from studies.storage.attributes import CheckedAttributes
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A storage of two short runs."""
    url = f"sqlite:///{tmp_path}/s.db"
    storage = optuna.storages.get_storage(url)
    add_study(storage, "random", 0, trials=4)
    add_study(storage, "tpe", 0, trials=6)
    return url


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_writes_the_page_every_table_and_every_series_and_pictures_if_asked(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    report(url, out)
    said = capsys.readouterr().out
    assert "2 runs, 10 trials" in said and "can't support a claim" in said
    assert len(rows(out / "trials.csv")) == 10
    assert [row["method"] for row in rows(out / "runs.csv")] == ["random", "tpe"]
    assert {row["method"] for row in rows(out / "methods.csv")} == {"random", "tpe"}
    assert [row["value"] for row in rows(out / "tests.csv")] == ["best"]
    assert {row["reference"] for row in rows(out / "times_to_target.csv")} == {"random"}
    whole = json.loads((out / "report.json").read_text())
    series = {path.stem: rows(path) for path in (out / "series").iterdir()}
    assert {name: len(records) for name, records in whole["series"].items()} == {
        name: len(records) for name, records in series.items()
    }
    assert set(series) >= {"time", "trials", "final", "failure-map"}
    assert not (out / "pictures").exists(), "drawing them takes longer than all else"
    report(url, out, pictures=PictureFormat.pdf)
    assert {path.name for path in (out / "pictures").iterdir()} >= {"time.pdf", "traces.pdf"}
    assert (out / "report.html").stat().st_size > 1_000_000  # plotly is in it


def test_each_trial_is_read_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    check = CheckedAttributes.check_trials

    def noted(self: CheckedAttributes, trials: Sequence[FrozenTrial]) -> None:
        read.extend(t._trial_id for t in trials)
        check(self, trials)

    monkeypatch.setattr(CheckedAttributes, "check_trials", noted)
    report(url, tmp_path / "out")
    assert sorted(read) == list(range(1, 11))


def test_json_is_the_facts_without_nan(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(url, tmp_path / "out", as_json=True)

    def refuse(text: str) -> Any:
        raise AssertionError(text)

    facts = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert {row["method"]: row["best_sd"] for row in facts["methods"]} == {
        "random": None,
        "tpe": None,
    }
    assert facts["tests"][0]["n"] == 1 and facts["notes"]


def test_a_table_without_rows_is_no_file_and_none_of_before_stays(
    url: str, tmp_path: Path
) -> None:
    report(url, tmp_path / "out")
    assert (tmp_path / "out" / "tests.csv").exists()
    alone = f"sqlite:///{tmp_path}/alone.db"
    add_study(optuna.storages.get_storage(alone), "random", 0, trials=2)
    report(alone, tmp_path / "out")
    assert not (tmp_path / "out" / "tests.csv").exists()


def test_a_cut_leaves_out_what_came_later(url: str, tmp_path: Path) -> None:
    report(url, tmp_path / "out", trials=3)
    assert len(rows(tmp_path / "out" / "trials.csv")) == 6
    report(url, tmp_path / "out", budget=600.0)
    kept = rows(tmp_path / "out" / "trials.csv")
    assert 0 < len(kept) < 10 and all(float(row["training_seconds_so_far"]) <= 600 for row in kept)


def test_several_comparisons_have_a_folder_each(url: str, tmp_path: Path) -> None:
    storage = optuna.storages.get_storage(url)
    add_study(storage, "random", 0, trials=2, name="x", comparison="on the surrogate")
    report(url, tmp_path / "out")
    assert len(rows(tmp_path / "out" / "unnamed" / "trials.csv")) == 10
    assert len(rows(tmp_path / "out" / "on-the-surrogate" / "trials.csv")) == 2
    report(url, tmp_path / "one", comparison="on the surrogate")
    assert len(rows(tmp_path / "one" / "trials.csv")) == 2


def test_each_metric_has_a_folder_with_the_best_by_its_own_direction(
    url: str, tmp_path: Path
) -> None:
    storage = optuna.storages.get_storage(url)
    accuracy = Metric("accuracy", "maximize")
    add_study(storage, "tpe", 0, name="acc", metric=accuracy)
    add_study(storage, "tpe", 1, gap=-0.5, name="better", metric=accuracy)
    report(url, tmp_path / "out")
    (tmp_path / "out" / "val_bpb-lower-is-better" / "report.html").read_text()
    folder = tmp_path / "out" / "accuracy-higher-is-better"
    assert [row["study"] for row in rows(folder / "runs.csv")] == ["acc", "better"]
    assert {"accuracy"} < rows(folder / "trials.csv")[0].keys()
    page = (folder / "report.html").read_text()
    assert re.search(r"accuracy -0\.\d+ in trial \d+ of better", page)


def test_a_comparison_without_the_reference_has_its_own_and_says_so(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = optuna.storages.get_storage(url)
    for method in ("random", "gp"):
        add_study(storage, method, 0, trials=2, name=f"y-{method}", comparison="y")
    add_study(storage, "gp", 0, trials=2, name="alone", comparison="alone")
    report(url, tmp_path / "out", reference="tpe")
    assert "y has no tpe: its reference is random" in (said := capsys.readouterr().err)
    assert "alone has no" not in said, "nothing is compared with it"

    def reference(comparison: str) -> set[str]:
        tests = rows(tmp_path / "out" / comparison / "tests.csv")
        return {row["reference"] for row in tests}

    assert (reference("unnamed"), reference("y")) == ({"tpe"}, {"random"})


def test_what_leaves_nothing_of_one_comparison_is_refused_before_another_is_written(
    url: str, tmp_path: Path
) -> None:
    storage = optuna.storages.get_storage(url)
    add_study(storage, "random", 0, trials=2, seconds=9000.0, name="y", comparison="y")
    with pytest.raises(Misuse, match="must leave a finished trial, but leave none of y"):
        report(url, tmp_path / "out", budget=600.0)
    assert not (tmp_path / "out").exists()


def test_a_report_of_one_study_leaves_out_others_but_its_repetitions(
    url: str, tmp_path: Path
) -> None:
    """A storage may have other scripts and first attempts, which no reader would average."""
    storage = optuna.storages.get_storage(url)
    add_study(storage, "tpe", 0, trials=3, name="first attempt", failed_share=1.0)
    for name in ("tpe-seed0", "random-seed0"):
        study = optuna.load_study(study_name=name, storage=storage)
        add_repetitions(storage, study, [1.0, 1.2])
    report(url, tmp_path / "out", study=["tpe-seed0"])
    (run,) = rows(tmp_path / "out" / "runs.csv")
    assert (run["study"], run["revalidated_n"]) == ("tpe-seed0", "2")
    assert "first attempt" not in (tmp_path / "out" / "report.json").read_text()
    optuna.create_study(storage=storage, study_name="waits")
    with pytest.raises(Misuse, match="a study with a finished trial, but got waits"):
        report(url, tmp_path / "none", study=["waits"])


def test_the_unnamed_comparison_is_chosen_as_it_is_listed(url: str, tmp_path: Path) -> None:
    storage = optuna.storages.get_storage(url)
    add_study(storage, "random", 0, trials=2, name="y", comparison="y")
    for name in ("(unnamed)", ""):
        report(url, tmp_path / "out", comparison=name)
        assert len(rows(tmp_path / "out" / "trials.csv")) == 10


def test_names_that_make_the_same_folder_have_one_each() -> None:
    names = ["", "lr=0.1", "lr 0.1", "LR 0.1", "=", "a" * 60 + "b", "a" * 60 + "c", "x"]
    folders = folder_names(names)
    assert list(folders) == names
    assert folders["lr=0.1"] == "lr-0.1" and folders["x"] == "x"
    assert re.fullmatch("lr-0.1-[0-9a-f]{6}", folders["lr 0.1"])
    assert len({folder.casefold() for folder in folders.values()}) == len(names)


def test_studies_whose_names_make_the_same_folder_have_a_report_each(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    for name in ("lr=0.1", "lr 0.1"):
        optuna.create_study(storage=url, study_name=name).optimize(lambda t: 0.0, n_trials=1)
    report(url, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*/report.html"))) == 2


def test_plots_are_pinned_to_the_dashboards_study_once(url: str, tmp_path: Path) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    for _ in range(2):
        report(url, tmp_path / "out", pin="tpe-seed0")
    study = optuna.load_study(study_name="tpe-seed0", storage=url)
    pinned = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    assert set(pinned) == {"report-time", "report-trials", "report-runs", "report-failures"}
    names = [trace.get("name") for trace in json.loads(pinned["report-time"])["data"]]
    assert sorted(name.split(":")[0] for name in names) == ["random", "tpe"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "x"}, "--reference must be one of random, tpe, but got 'x'."),
        ({"comparison": "x"}, "--comparison must be one of (unnamed), but got 'x'."),
        ({"study": ["tpe-seed0", "x"]}, "--study must be one of .*, but got x."),
        ({"pin": "x"}, "--pin must be a study of .*, but there is none of name 'x'."),
        ({"budget": 1.0}, "--budget and --trials must leave a finished trial"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_is_written(
    url: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Misuse, match=message.replace("(", r"\(").replace(")", r"\)")):
        report(url, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_storage_without_runs_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=url)
    with pytest.raises(Misuse, match="must hold a study with a finished trial"):
        report(url, tmp_path / "out")
