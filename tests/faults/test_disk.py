"""A disk that is full: a small one of memory, which is really full."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import subprocess

from optuna.trial import TrialState
import pytest

from tests.conftest import not_here
from tests.faults.conftest import arguments
from tests.faults.conftest import load
from tests.faults.conftest import trained
from tests.faults.invariants import check
from tests.studies.conftest import Cli


class SmallDisk:
    """A file system of a few pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mount("size=48k")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def grow(self) -> None:
        self._mount("remount,size=64m")

    def remove(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        # What others could use instead, a limit on the size of files, fails in another way.
        not_here("only root may mount a small disk")
    try:
        disk = SmallDisk(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        # Root of a container may have no right to mount; nothing that is ours can be wrong here.
        not_here(f"no small disk can be mounted here: {error}")
    yield disk
    disk.remove()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_a_full_disk_of_artifacts_stops_the_study_and_loses_no_result(
    workers: int, disk: SmallDisk, cli: Cli, bed: Path, ledger: Path
) -> None:
    command = arguments(bed, cli.storage, 12, workers=workers, artifacts=disk.folder)
    done = cli(*command)
    assert done.returncode == 1
    assert "disk of the artifact store is full" in done.stderr.splitlines()[-1]
    stopped = load(cli.storage).trials
    measured = [t for t in stopped if t.state == TrialState.COMPLETE]
    assert 1 <= len(measured) == trained(ledger) < 12
    assert not [t for t in stopped if t.state == TrialState.RUNNING]

    disk.grow()
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    check(load(cli.storage), ledger, trials=12)
    assert trained(ledger) == 12, "nothing was trained again"


@pytest.mark.faults
def test_a_full_disk_of_the_cache_stops_a_study_before_anything_is_trained(
    disk: SmallDisk, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded testbed's text is prepared by its first training."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(disk.folder))
    command = ["run", "--method", "random", "--study", "s", "--storage", cli.storage]
    command += ["--trials", "1", "--train-seconds", "1", "--wall-seconds", "600"]
    done = cli(*command)
    assert done.returncode == 1
    assert "free some space or set AUTORESEARCH_CACHE" in done.stderr.splitlines()[-1]
    assert list(disk.folder.iterdir()) == [], "no half of a file is left"

    disk.grow()
    done = cli(*command, "--trials", "2")
    assert done.returncode == 0, done.stderr
    stored = load(cli.storage).trials
    first, *others = [t.user_attrs.get("status") for t in stored]
    assert first is None and others == ["ok", "ok"], "what a full disk cut off is tried again"
