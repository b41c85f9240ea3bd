"""Scripts in real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import textwrap

import pytest

from objective.run.outcome import Limits
from objective.run.outcome import RunResult
from objective.run.script import run_script


GOOD = "print('---')\nprint('val_bpb: 1.5')\n"
PREPARE = "TIME_BUDGET = 300\ndef evaluate_bpb(x):\n    return x\n"

Run = Callable[..., RunResult]


@pytest.fixture
def run(testbed_folder: Callable[..., Path]) -> Run:
    """Run a script to its end, with the limits given by name."""

    def run_text(
        train: str,
        prepare: str | None = None,
        on_progress: Callable[[float, float], bool] | None = None,
        **limits: float | int,
    ) -> RunResult:
        folder = testbed_folder(textwrap.dedent(train), prepare)
        return run_script(
            folder,
            limits=Limits(**{"wall_seconds": 60, **limits}),  # type: ignore[arg-type]
            on_progress=on_progress,
        )

    return run_text
