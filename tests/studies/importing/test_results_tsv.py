from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from studies.errors import Misuse
from studies.importing.foreign import Foreign
from studies.importing.foreign import read_file
from studies.importing.results_tsv import is_results
from tests.studies.conftest import Cli


RESULTS = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription\r\n"
    "a1b2c3d\t0.997900\t44.0\tkeep\tbaseline (AdamW)\r\n"
    "b2c3d4e\t0.993200\t44.2\tkeep\tincrease LR to 0.04\x85 and \x0c more\r\n"
    "c3d4e5f\t1.005000\t44.0\tdiscard\tswitch to GeLU activation\r\n"
    "d4e5f6g\t0.000000\t0.0\tcrash\tdouble model width (OOM)\r\n"
    "e5f6a7b\t0.9"
)


def test_experiments_are_one_study_with_what_the_file_says(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "results.tsv").write_bytes(RESULTS.encode())
    for new in (4, 0):
        done = cli("import", tmp_path / "results.tsv", "--json")
        assert done.returncode == 0, done.stderr
        assert f'"imported": {new}' in done.stdout
        assert 'fewer columns than the header (cut off, perhaps)": 1' in done.stdout
    trials = optuna.load_study(study_name="autoresearch-seed0", storage=cli.storage).trials
    assert [t.user_attrs.get("val_bpb") for t in trials] == [0.9979, 0.9932, 1.005, None]
    assert [t.user_attrs["status"] for t in trials] == ["ok", "ok", "ok", "oom"]
    assert [t.user_attrs["decision"] for t in trials] == ["keep", "keep", "discard", "crash"]
    assert trials[1].user_attrs["description"] == "increase LR to 0.04 and more"
    assert trials[0].user_attrs["peak_memory_mb"] == 44 * 1024
    assert trials[0].user_attrs["commit"] == "a1b2c3d"
    # That a row is the unedited script, its description says.
    assert [t.user_attrs.get("source") for t in trials] == ["enqueued", None, None, None]


def test_another_metric_keeps_its_name_and_direction(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "results.tsv"
    path.write_text(RESULTS.replace("val_bpb", "val_acc").replace("1.005000", "100.000000"))
    asked = cli.fails(2, "import", path)
    assert "must have a direction" in asked and "add --direction maximize, or minimize." in asked
    done = cli("import", path, "--direction", "maximize")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="autoresearch-seed0", storage=cli.storage)
    assert (study.metric_names, study.direction.name) == (["val_acc"], "MAXIMIZE")
    # 100 is what stands for a failure of val_bpb alone.
    assert [t.user_attrs.get("val_acc") for t in study.trials] == [0.9979, 0.9932, 100.0, None]
    assert [t.value for t in study.trials] == [0.9979, 0.9932, 100.0, None]
    assert [t.user_attrs["status"] for t in study.trials] == ["ok", "ok", "ok", "oom"]
    shown = cli("best").stdout
    assert "val_acc" in shown and "val_bpb" not in shown
    assert "has val_acc to maximize" in cli.fails(2, "import", path, "--direction", "minimize")


def read(tmp_path: Path, header: str, *lines: str) -> Foreign:
    path = tmp_path / "results.tsv"
    path.write_text("\n".join([header, *lines]).replace(" | ", "\t"))
    return read_file(path)


@pytest.mark.parametrize(("metric", "status"), [("error_rate", "ok"), ("val_bpb", "crash")])
def test_zero_is_a_value_but_of_bits_per_byte(tmp_path: Path, metric: str, status: str) -> None:
    header = f"commit | {metric} | memory_gb | status | description"
    lines = ("a1 | 0.5 | 1 | keep | baseline", "b2 | 0.000000 | 1 | keep | perfect")
    trials = read(tmp_path, header, *lines, "c3 | 0.0 | 0.0 | crash | bug").trials
    assert [trial.status for trial in trials] == ["ok", status, "crash"]


def test_a_value_that_is_no_number_is_counted_and_not_a_crash(tmp_path: Path) -> None:
    header = "commit | val_bpb | memory_gb | status | description"
    values = ("0.9979 bpb", "0,9979", "1_0", "", "nan", "1e999")
    lines = [f"a{value} | {value} | 1 | keep | x" for value in values]
    foreign = read(tmp_path, header, *lines, "b2 | - | - | crash | bug")
    assert foreign.skipped == {"a value that is no number": 4}
    assert [trial.status for trial in foreign.trials] == ["nan", "nan", "crash"]
    assert sum(foreign.notes[note] for note in foreign.notes if "isn't finite" in note) == 2


@pytest.mark.parametrize(
    ("header", "metric"),
    [
        ("commit | status | val_bpb | memory_gb | description", "val_bpb"),
        ("commit | memory_gb | status | description | val_acc", "val_acc"),
        ("commit | step | val_bpb | memory_gb | status | description |  | ", "val_bpb"),
    ],
)
def test_the_metric_is_the_column_that_is_none_of_the_others(
    tmp_path: Path, header: str, metric: str
) -> None:
    foreign = read(
        tmp_path,
        header,
        "\t".join(["keep" if n == "status" else "7" for n in header.split(" | ")]),
    )
    assert foreign.metric == metric
    assert [trial.value for trial in foreign.trials] == [7.0]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("commit | memory_gb | status | description", "one column beside commit, memory_gb"),
        ("commit | a | b | status | description", "but has 'commit, a, b, status"),
        ("commit | val_bpb | val_bpb | status", "none twice, but has"),
        ("commit | val_bpb | status | status", "none twice, but has"),
    ],
)
def test_a_header_without_a_clear_metric_is_refused(
    tmp_path: Path, header: str, said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        read(tmp_path, header, "a | 1 | 1 | 1 | 1")


def test_other_tables_and_json_are_not_taken_for_it() -> None:
    assert is_results(RESULTS)
    assert not is_results("{}")
    assert not is_results("commit\tval_bpb\n")
    assert not is_results("name\tval_bpb\tmemory_gb\tstatus\tdescription\n")
