"""Processes side by side: what they share, and what each has for itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from studies.workers.processes import devices
from studies.workers.processes import environments
from tests.studies.conftest import Cli
from tests.studies.conftest import Gate
from tests.studies.conftest import output_of
from tests.studies.conftest import TRAIN


def test_workers_have_a_gpu_each_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(3)] == ["3", "GPU-5", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environments(2) == [{}, {}]


def test_gpus_are_those_that_the_driver_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's program is played by a script: there is no GPU here."""
    listed = tmp_path / "nvidia-smi"
    listed.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: a)'\necho 'GPU 1: A (UUID: b)'\n")
    listed.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert devices() == ["0", "1"]
    listed.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert devices() == []


def test_trainings_of_two_workers_see_different_gpus(
    cli: Cli, testbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = cli.folder / "seen"
    note = (
        f"import os\nopen({str(seen)!r}, 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + '\\n')\n"
    )
    (testbed / "train.py").write_text(note + TRAIN)
    gate = Gate(testbed, through=0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    command = ["run", "--method", "random", "--testbed", testbed, "--trials", 6, "--workers", 2]
    process = cli.start(*command, "--train-seconds", "0.4s")
    gate.wait(held=2)
    gate.open()
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert set(seen.read_text().split()) == {"4", "7"}
