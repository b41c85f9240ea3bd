"""Processor time of a real process, and of what it started and is gone."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
import time

from objective.run.processor_time import ProcessorTime
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
        assert clock.unseen(before, 4) == 0.0  # it and its three threads are there
        assert clock.unseen(before, 5) >= 1.0 - counted
        process.communicate(b"\n")
    clock.look()
    # None is there any more, nor known as a thread of one that is.
    assert clock.unseen(before, 4) >= 1.0 - counted
