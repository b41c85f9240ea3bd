from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import subprocess
import sys

import pytest

from objective import Testbed
from objective import TestbedError
from tests.objective.testbed.test_search_space import PAPER


def test_the_embedded_testbed_has_the_papers_parameters() -> None:
    testbed = Testbed.load()
    assert testbed.space.keys() == PAPER.keys()
    for name, distribution in testbed.space.items():
        paper = PAPER[name][0]
        assert type(distribution) is type(paper)
        assert getattr(distribution, "log", None) == getattr(paper, "log", None), name
    assert testbed.rule(testbed.baseline) == testbed.baseline
    assert "val_bpb" in testbed.task


def test_an_autoresearch_checkout_is_a_testbed_as_it_is(autoresearch: Path) -> None:
    testbed = Testbed.load(str(autoresearch))
    assert {name: (testbed.space[name], testbed.baseline[name]) for name in PAPER} == PAPER
    assert testbed.constants["TIME_BUDGET"] == 300
    assert "300 seconds" in testbed.task


@pytest.mark.parametrize(
    ("params", "changed"),
    [
        ({"HEAD_DIM": 96}, {"HEAD_DIM": 64}),  # a tie goes down
        ({"HEAD_DIM": 97}, {"HEAD_DIM": 128}),
        ({"DEVICE_BATCH_SIZE": 47}, {"DEVICE_BATCH_SIZE": 32}),
        ({"TOTAL_BATCH_SIZE": 300_000}, {"TOTAL_BATCH_SIZE": 262_144}),
        (
            {"DEVICE_BATCH_SIZE": 250, "TOTAL_BATCH_SIZE": 65_536},
            {"DEVICE_BATCH_SIZE": 256, "TOTAL_BATCH_SIZE": 524_288},
        ),
        ({"MATRIX_LR": 0.3, "DEPTH": 7}, {}),
    ],
)
def test_the_rule_makes_powers_of_two_and_whole_batches(
    autoresearch: Path, params: dict[str, object], changed: dict[str, object]
) -> None:
    testbed = Testbed.load(autoresearch)
    given = {**testbed.baseline, **params}
    assert testbed.rule(given) == {**given, **changed}
    assert given == {**testbed.baseline, **params}, "the argument stays as it was"


def test_the_rule_accepts_a_part_of_the_parameters(autoresearch: Path) -> None:
    testbed = Testbed.load(autoresearch)
    # DEVICE_BATCH_SIZE is the script's own, 128.
    assert testbed.rule({"TOTAL_BATCH_SIZE": 65_536}) == {"TOTAL_BATCH_SIZE": 262_144}
    assert testbed.rule({}) == {}


def test_a_task_of_the_testbeds_own_is_used(testbed_folder: Callable[..., Path]) -> None:
    folder = testbed_folder("DEPTH = 8\n", **{"task.md": "Make it pretty."})
    assert Testbed.load(folder).task == "Make it pretty."


def test_without_a_task_a_model_is_told_what_is_known(testbed_folder: Callable[..., Path]) -> None:
    task = Testbed.load(testbed_folder('"""Trees for\n\nhouse prices."""\nLR = 0.1\n')).task
    assert "train.py in the folder testbed, trains a model and then" in " ".join(task.split())
    assert "It says of itself: Trees for house prices." in task
    assert "language model" not in task


def test_what_is_the_same_in_all_trials_is_known_without_paths_secrets_and_settings(
    testbed_folder: Callable[..., Path],
) -> None:
    train = """\
OPTIMIZER = "sgd"
SHIFT_PIXELS = 0
EPOCHS = 5
LR = 0.1
TIME_BUDGET = 2.0
SEED = 1
API_KEY = "s3cret"
DATA = "/home/me/data"
BETAS = (0.9, 0.99)
"""
    testbed = Testbed.load(testbed_folder(train))
    assert testbed.fixed == {"OPTIMIZER": "sgd", "SHIFT_PIXELS": 0, "EPOCHS": 5}


def test_nothing_of_a_testbed_is_run_to_load_it(testbed_folder: Callable[..., Path]) -> None:
    folder = testbed_folder("DEPTH = 8\nraise SystemExit(1)\n", "T = 1\nraise SystemExit(1)\n")
    assert Testbed.load(folder).constants == {"DEPTH": 8, "T": 1}


@pytest.mark.parametrize(
    ("train", "prepare", "seconds", "can_be_set"),
    [
        ("", "TIME_BUDGET = 300", 300.0, True),
        ("TIME_BUDGET = 5.5", None, 5.5, True),
        ("TIME_BUDGET = 5", "TIME_BUDGET = 300", 5.0, True),
        ("", "\ufefffrom settings import TIME_BUDGET", None, True),
        ("", "import os\nif 1:\n    TIME_BUDGET = int(os.environ['T'])", None, True),
        ("", None, None, False),
        ("", "print(TIME_BUDGET)", None, False),
        ("TIME_BUDGET = 0", None, None, False),
        ("TIME_BUDGET = '5m'", None, None, False),
        ("TIME_BUDGET = True", None, None, False),
    ],
)
def test_a_training_time_can_be_set_where_a_constant_says_it(
    train: str,
    prepare: str | None,
    seconds: float | None,
    can_be_set: bool,
    testbed_folder: Callable[..., Path],
) -> None:
    testbed = Testbed.load(testbed_folder(f"DEPTH = 8\n{train}\n", prepare))
    assert testbed.time_budget == seconds
    if can_be_set:
        testbed.require_time_budget()
    else:
        with pytest.raises(TestbedError, match="must have a constant .* TIME_BUDGET"):
            testbed.require_time_budget()


def test_line_ends_survive(testbed_folder: Callable[..., Path]) -> None:
    assert Testbed.load(testbed_folder("DEPTH = 8\r\nx = 1\r")).source == "DEPTH = 8\r\nx = 1\r"


def test_an_unusable_folder_is_one_clear_line(
    tmp_path: Path, testbed_folder: Callable[..., Path]
) -> None:
    with pytest.raises(
        TestbedError, match="must be a folder with a train.py, or a script, but got .*missing"
    ):
        Testbed.load(tmp_path / "missing")
    folder = testbed_folder("DEPTH = 8\n")
    assert Testbed.load(folder / "train.py").path == folder
    (folder / "train.py").write_bytes(b"DEPTH = 8 # \xff\n")
    with pytest.raises(TestbedError, match="must be UTF-8, but byte 12 isn't"):
        Testbed.load(folder)
    (folder / "train.py").write_text("DEPTH = 8\n  x\n")
    with pytest.raises(TestbedError, match="line 2"):
        Testbed.load(folder)
    (folder / "train.py").write_text("DEPTH = 8\n")
    (folder / "prepare.py").write_text("=\n")
    with pytest.raises(TestbedError, match="prepare.py must be valid Python, but line 1"):
        Testbed.load(folder)


@pytest.mark.parametrize("path", ["a\0b", "~nobody-of-this-name/x", "\ud800", "a" * 5000])
def test_a_path_that_can_be_none_is_one_clear_line(path: str) -> None:
    with pytest.raises(TestbedError, match="must be a folder with a train.py, or a") as error:
        Testbed.load(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_a_folder_without_train_py_is_told_its_scripts(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text("LR = 1\n")
    (tmp_path / ".#fit.py").symlink_to("user@host.123")  # as Emacs makes it
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(TestbedError, match=f"Name the script: {tmp_path / 'fit.py'}.$"):
        Testbed.load(tmp_path)


def test_importing_objective_and_loading_a_testbed_costs_no_torch() -> None:
    program = "import sys, objective; objective.Testbed.load(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
