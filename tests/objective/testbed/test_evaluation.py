"""Attacks on the evaluation of the embedded testbed, from inside the sandbox that it is run in."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from objective import TrainScriptObjective
from objective.run.outcome import Limits
from objective.run.outcome import RunResult
from objective.run.sandbox import find_sandbox
from objective.run.script import run_script
from objective.run.script import RunError
from objective.testbed.data import Data
from tests.conftest import not_here


READ = """
import sys
from pathlib import Path
from objective.run.environment import script_environment
from objective.testbed.data import prepare_data
print(ascii(prepare_data(Path(sys.argv[1]), [sys.executable], script_environment()).shown.name))
"""
EMBEDDED = Path(__file__).parents[3] / "objective" / "testbed" / "embedded"
# Every token is as likely as any other.
UNIFORM = """
import prepare, torch
weights = torch.zeros(1024)
model = lambda x: weights.expand(*x.shape, 1024) + 0.0 * x.unsqueeze(-1)
"""
CHANGES = """
import json, os, shutil
import torch.nn.functional as F

class Cheap:
    vocab_size = 1024
    token_bytes = [b"a" * 1000] * 1024

real = F.cross_entropy
torch.nn.functional.cross_entropy = lambda *a, **k: torch.zeros(())
torch.Tensor.item = lambda self: 0.0
torch.Tensor.float = lambda self: self * 1000
torch.isclose = lambda a, b, **k: torch.ones_like(a, dtype=torch.bool)
prepare.__dict__["load_tokenizer"] = Cheap
prepare.__dict__["EVAL_BYTES"] = 200
prepare.math.log = lambda x: 1e9
shutil.copytree(os.environ["AUTORESEARCH_PREPARED"], "/tmp/forged")
open("/tmp/forged/tokenizer.json", "w").write("[]")
os.environ["AUTORESEARCH_PREPARED"] = os.environ["AUTORESEARCH_CACHE"] = "/tmp/forged"
"""
SEARCH = """
import os, sys, importlib.util
print("cache", sorted(os.listdir(os.environ["AUTORESEARCH_PREPARED"])))
found = importlib.util.find_spec("dictionary")
for root in found.submodule_search_locations:
    for folder, _, files in os.walk(root):
        print("corpus", [name for name in files if name.endswith(".json")])
for folder, _, files in os.walk("/"):
    if not folder.startswith(("/proc", "/sys")):
        print("".join(f"FOUND {folder}/{name}\\n" for name in files
                      if "held-out" in folder or name.startswith("words_")), end="")
"""


def test_paths_of_data_are_read_in_any_locale(tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text("print('shown: /data/f\\xfcr')\n")
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}  # ASCII
    command = [sys.executable, "-c", READ, str(tmp_path)]
    read = subprocess.run(command, env={**os.environ, **locale}, capture_output=True, text=True)
    assert read.stdout.strip() == r"'f\xfcr'", read.stderr


@pytest.fixture(scope="module")
def data() -> Data:
    objective = TrainScriptObjective(sandbox=find_sandbox())
    return objective.prepare()


@pytest.fixture
def attack(tmp_path: Path, data: Data) -> Callable[[str], RunResult]:
    sandbox = find_sandbox()
    if sandbox is None:
        not_here("nothing here isolates a process")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("prepare.py", "program.py"):
        shutil.copy(EMBEDDED / name, folder)

    def run_text(script: str) -> RunResult:
        (folder / "train.py").write_text(script)
        (folder / "train.py").chmod(0o644)
        limits = Limits(wall_seconds=120)
        return run_script(folder, limits=limits, sandbox=sandbox, data=data)

    return run_text


def test_what_the_script_can_reach_changes_no_value(
    attack: Callable[[str], RunResult], tmp_path: Path
) -> None:
    evaluate = "v = prepare.evaluate_bpb(model, None, 16)\nprint(f'---\\nval_bpb: {v}')\n"
    honest = attack(UNIFORM + evaluate)
    assert honest.status == "ok", honest
    forged = attack(UNIFORM + "prepare.load_tokenizer()\n" + CHANGES + evaluate)
    assert (forged.status, forged.value) == ("ok", honest.value), forged


def test_the_text_of_the_evaluation_is_nowhere_to_be_read(
    attack: Callable[[str], RunResult], data: Data
) -> None:
    result = attack(SEARCH)
    lines = result.log.read_text().splitlines()
    assert lines[0] == "cache ['tokenizer.json', 'train.bin']"
    assert "FOUND" not in result.log.read_text()
    assert {line for line in lines if line.startswith("corpus")} == {"corpus []"}
    # It is there, outside.
    assert data.held_out is not None and data.held_out.stat().st_size > 50_000
    assert data.hidden is not None and list(data.hidden.glob("words_*.json"))


def test_a_preparation_that_fails_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("LR = 1.0\n")
    (tmp_path / "prepare.py").write_text("raise SystemExit('FAIL: no corpus')\n")
    objective = TrainScriptObjective(tmp_path, wall_seconds=10)
    with pytest.raises(RunError, match="prepare.py of the testbed failed: FAIL: no corpus"):
        objective.prepare()


def test_what_a_preparation_prints_beside_paths_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("LR = 1.0\n")
    (tmp_path / "prepare.py").write_text("print('shown: /a b\\nshown: no\\nx: /y\\nhidden: /c')\n")
    objective = TrainScriptObjective(tmp_path, wall_seconds=10)
    assert objective.prepare() == Data(shown=Path("/a b"), hidden=Path("/c"))
