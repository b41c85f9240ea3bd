"""``space`` on a testbed with a constant of each type."""

from __future__ import annotations

import json
from pathlib import Path
import re

from tests.studies.conftest import Cli
from tests.toy_testbed import write_testbed


def test_space_is_a_row_per_constant(cli: Cli, testbed: Path) -> None:
    rows = json.loads(cli("space", "--testbed", testbed, "--json").stdout)
    nothing = dict.fromkeys(("low", "high", "log", "step", "choices"))
    assert rows == [
        {**nothing, "name": "DEPTH", "type": "int", "low": 1, "high": 8}
        | {"log": False, "step": 1, "default": 4},
        {**nothing, "name": "LR", "type": "float", "low": 0.0001, "high": 0.1}
        | {"log": True, "default": 0.01},
        {**nothing, "name": "PATTERN", "type": "categorical"}
        | {"choices": ["ab", "ba"], "default": "ab"},
    ]


def test_space_lists_what_is_not_tuned_and_why(cli: Cli, tmp_path: Path) -> None:
    folder = write_testbed(tmp_path / "bed", "LR = 0.1\nKIND = 'text'\nEPOCHS = 3\n")
    left_out = {
        "KIND": "text has no neighbours to search among",
        "EPOCHS": "it says how long a training takes",
    }
    rows = json.loads(cli("space", "--testbed", folder, "--json").stdout)
    assert [row["name"] for row in rows] == ["LR", *left_out]
    assert {row["name"]: row["reason"] for row in rows if row["type"] is None} == left_out
    shown = cli("space", "--testbed", folder).stdout
    for name, why in left_out.items():
        assert re.search(rf"{name} +{why}", shown)


def test_space_writes_a_toml_that_can_be_edited(cli: Cli, tmp_path: Path) -> None:
    folder = write_testbed(tmp_path / "bed", "LR = 0.1\nLAYERS = 2\nKIND = 'text'\n")
    written = cli("space", "--testbed", folder, "--write").stdout
    assert "# KIND is not tuned: text has no neighbours to search among." in written
    (folder / "search_space.toml").write_text(written.replace("high = 8", "high = 3"))
    rows = json.loads(cli("space", "--testbed", folder, "--json").stdout)
    assert {row["name"]: row["high"] for row in rows if row["type"]} == {"LR": 1.0, "LAYERS": 3}


def test_space_takes_the_script_as_run_does_and_writes_it_down(cli: Cli, tmp_path: Path) -> None:
    folder = write_testbed(tmp_path / "bed", "LR = 0.1\n")
    judged = ("--metric", "accuracy", "--direction", "maximize", "--command", "python train.py")
    shown = cli("space", "--testbed", folder, *judged).stdout
    assert "Judged by accuracy: higher is better." in shown
    written = cli("space", "--testbed", folder, *judged, "--write").stdout
    (folder / "search_space.toml").write_text(written)
    assert cli("space", "--testbed", folder).stdout == shown


def test_space_says_where_the_metric_has_no_name(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text('LR = 0.1\nprint(f"loss: {LR:.3f}")\n')
    shown = cli("space", "--testbed", tmp_path / "fit.py").stdout
    assert "Judged by val_bpb (bits per byte)" in shown
    assert "say --metric loss if that is what it is judged by" in " ".join(shown.split())
    typo = cli("space", "--testbed", tmp_path / "fit.py", "--metric", "lss").stdout
    assert "Judged by lss" in typo and "say --metric loss" in " ".join(typo.split())
    assert (
        "Judged by loss: lower is better."
        in cli("space", "--testbed", tmp_path / "fit.py", "--metric", "loss").stdout
    )
