"""Processes side by side: what they share, and what each has for itself."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
import sqlite3
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from optuna.exceptions import StorageInternalError
import psutil
import pytest

from objective import RunError
from objective.run.script import DiskFull
from studies.workers import processes
from studies.workers.processes import devices
from studies.workers.processes import environments
from studies.workers.processes import Job
from studies.workers.processes import run_jobs
from tests.studies.conftest import Cli
from tests.studies.conftest import Gate
from tests.studies.conftest import output_of
from tests.studies.conftest import TRAIN


# As Optuna raises it: only the cause tells of the disk.
COMMIT = StorageInternalError("An exception is raised during the commit.")
FROM_ANOTHER = OSError(errno.ENOSPC, "No space left on device")
FROM_ANOTHER.__cause__ = KeyError("a")
COMMIT.__cause__ = sqlite3.OperationalError("database or disk is full")


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


@pytest.mark.parametrize(
    ("error", "begun"),
    [
        (RunError("The script's interpreter is gone."), 5),
        (DiskFull("The disk of /tmp/autoresearch-1/run is full."), 2),
        (DiskFull("A disk that the script writes to is full (No space left on device)."), 2),
        (OSError(28, "No space left on device"), 2),
        (OSError(errno.EDQUOT, "Disc quota exceeded"), 2),
        (FROM_ANOTHER, 2),
        (COMMIT, 2),
    ],
)
def test_a_full_disk_is_said_by_the_jobs_that_run_and_no_other_begins(
    error: Exception, begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Process:
        pid, exitcode = None, 1

        def __init__(self, target: object, args: tuple[Any, ...], daemon: bool) -> None:
            self.job, self.connection = args[:2]

        def start(self) -> None:
            self.connection.send(processes._failure(self.job, error))

        def join(self) -> None:
            pass

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Process)
    monkeypatch.setattr(processes, "_context", lambda modules: context)
    kinds: list[str] = []
    jobs = [Job(name, lambda spec, tell: None, None) for name in "abcde"]
    run_jobs(jobs, 2, lambda events: kinds.extend(event.kind for event in events))
    assert kinds.count("started") == kinds.count("failed") == begun


def test_two_workers_have_a_gpu_each_and_no_socket_that_others_reach(
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
    command_itself = psutil.Process(process.pid)
    sockets = {
        connection.laddr
        for one in (command_itself, *command_itself.children(recursive=True))
        for connection in one.net_connections("unix")
        if connection.laddr  # a pair's have no name
    }
    assert sockets and not any(name.startswith("@") for name in sockets)
    assert {Path(name).parent.stat().st_mode & 0o777 for name in sockets} == {0o700}
    gate.open()
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert set(seen.read_text().split()) == {"4", "7"}


def test_what_the_work_imports_is_imported_once_for_all_workers(tmp_path: Path) -> None:
    (tmp_path / "imported.py").write_text(
        "import os\nBY = os.getpid()\n"
        "def work(spec, tell):\n    tell((BY, os.getpid(), os.getppid()))\n"
    )
    (tmp_path / "start.py").write_text(
        "import imported\nfrom studies.workers.processes import Job, run_jobs\n"
        "def watch(events):\n    for e in events:\n        print(*(e.what or ()))\n"
        "if __name__ == '__main__':\n"
        "    run_jobs([Job(n, imported.work, None) for n in 'ab'], 2, watch)\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, tmp_path / "start.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, str(tmp_path)])},
    )
    said = [line.split() for line in done.stdout.splitlines() if line]
    assert len(said) == 2, done.stderr
    assert {by for by, _, _ in said} == {parent for _, _, parent in said}
    assert len({worker for _, worker, _ in said}) == 2
