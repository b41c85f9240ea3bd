"""Processor time of a real process, and of what it started and is gone."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import time

import pytest

from objective.run import processor_time
from objective.run.processor_time import ProcessorTime
from objective.run.processor_time import UnaccountedTime
from tests.conftest import not_here


THREADS = """
import threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(flush=True)
input()
"""


def test_what_has_ended_unseen_counts_with_the_most_that_it_can_have_taken() -> None:
    if not Path("/proc/self/task").exists():
        not_here("threads are listed by Linux")
    with subprocess.Popen(
        [sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        clock, before = ProcessorTime(process.pid), process.pid - 1
        counted = clock.look()
        time.sleep(1)  # while it uses none
        clock.look()
        assert clock.unseen(before, 4, 9.0) == 0.0  # it and its three threads are there
        assert clock.unseen(before, 5, 9.0) >= 1.0 - counted
        assert clock.unseen(before, 5, counted + 0.25) == pytest.approx(0.25)
        process.communicate(b"\n")
    clock.look()
    # None is there any more, nor known as a thread of one that is.
    assert clock.unseen(before, 4, 9.0) >= 1.0 - counted


def test_a_process_that_ends_while_its_threads_are_counted_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setattr(Path, "is_dir", lambda _: True)  # as it was a moment before
    monkeypatch.setattr(Path, "exists", lambda _: True)
    assert processor_time._tasks(ended.pid) == set()


def test_the_rest_of_the_machine_tells_what_a_tree_can_have_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not sys.platform.startswith("linux"):
        not_here("processor time of other processes is told by Linux")
    monkeypatch.setattr(processor_time, "_PROC", tmp_path)
    clock = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    second = os.sysconf("SC_CLK_TCK")

    def show(idle: int, started: int = 0, **processes: tuple[int, int]) -> None:
        cores = "cpu0 0 0 0 0\ncpu1 0 0 0 0\n"
        (tmp_path / "stat").write_text(
            f"cpu  0 0 0 {idle * second} 0 0\n{cores}intr 1 2\nprocesses {started}\n"
        )
        for name, (parent, seconds) in processes.items():
            folder = tmp_path / name.removeprefix("p")
            folder.mkdir(exist_ok=True)
            zeros = " 0" * 9
            (folder / "stat").write_text(
                f"7 (a) b) S {parent}{zeros} {seconds * second} 0 0 0 0 0\n"
            )

    show(0, p1=(0, 5), p2=(1, 1), p7=(2, 0), p8=(7, 0))
    unaccounted = UnaccountedTime(7)
    # Numbered in a circle of 1,000, 20 may be 1,020 if the machine has started so many.
    (tmp_path / "sys" / "kernel").mkdir(parents=True)
    (tmp_path / "sys" / "kernel" / "pid_max").write_text("1000\n")
    for started, of_the_tree in ((0, 20), (900, 20), (1019, 20), (1020, 1020), (2500, 2500)):
        show(0, started=started)
        assert unaccounted.started(20) == of_the_tree
    # 20 s of two cores, of which 6 were idle and 1 and 2 used 5: 9 are left for what is below 7.
    show(6, p1=(0, 7), p2=(1, 4), p7=(2, 1), p8=(7, 3))
    assert unaccounted.most() == pytest.approx(9.0)
    show(6, p9=(4, 6))  # its parent has ended, and it may have been of the tree
    assert unaccounted.most() == pytest.approx(9.0)
    monkeypatch.undo()


def test_a_process_that_ends_while_others_are_looked_for_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may have been missed, or count with its parent, too."""
    monkeypatch.setattr(processor_time, "_PROC", tmp_path)
    second = os.sysconf("SC_CLK_TCK")
    for name, parent, seconds in (("1", 0, 5), ("2", 1, 3)):
        (tmp_path / name).mkdir()
        stat = f"{name} (a) S {parent}{' 0' * 9} {seconds * second} 0 0 0 0\n"
        (tmp_path / name / "stat").write_text(stat)
    assert processor_time._looks_beside(7) == [8.0]
    (tmp_path / "2" / "stat").unlink()
    assert processor_time._looks_beside(7) == [5.0]
    (tmp_path / "2" / "stat").write_text(stat)
    exists, looks = Path.exists, []

    def gone(path: Path) -> bool:
        looks.append(path)
        return path.name != "2" and exists(path)

    monkeypatch.setattr(Path, "exists", gone)
    assert processor_time._looks_beside(7) == [8.0, 8.0]
