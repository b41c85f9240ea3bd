"""Which process is at work on a trial."""

from __future__ import annotations

import sys

import pytest

from objective import worker
from objective.worker import worker_mark


def test_a_clock_that_is_set_makes_no_process_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = worker_mark(0)
    if sys.platform == "linux":
        monkeypatch.setattr(
            "psutil._pslinux.boot_time", lambda: 0.0
        )  # which psutil's times are from
    assert worker.worker_is_here(mark)
