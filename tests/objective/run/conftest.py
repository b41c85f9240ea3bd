"""Scripts in real processes, and in sandboxes of each kind."""

from __future__ import annotations

from collections.abc import Callable
import functools
import os
from pathlib import Path
import subprocess
import sys
import textwrap

import pytest

from objective.run import sandbox as sandbox_module
from objective.run.outcome import Limits
from objective.run.outcome import OnProgress
from objective.run.outcome import RunResult
from objective.run.sandbox import BUBBLEWRAP
from objective.run.sandbox import NAMESPACES
from objective.run.sandbox import Sandbox
from objective.run.script import run_script
from tests.conftest import not_here


GOOD = "print('---')\nprint('val_bpb: 1.5')\n"
PREPARE = "TIME_BUDGET = 300\ndef evaluate_bpb(x):\n    return x\n"

Run = Callable[..., RunResult]


@pytest.fixture
def run(testbed_folder: Callable[..., Path]) -> Run:
    """Run a script to its end, with the limits given by name."""

    def run_text(
        train: str,
        prepare: str | None = None,
        on_progress: OnProgress | None = None,
        **limits: float | int,
    ) -> RunResult:
        folder = testbed_folder(textwrap.dedent(train), prepare)
        return run_script(
            folder,
            limits=Limits(**{"wall_seconds": 60, **limits}),  # type: ignore[arg-type]
            on_progress=on_progress,
        )

    return run_text


# Sandboxes

KINDS = [
    Sandbox(name, user_namespace)
    for name in (BUBBLEWRAP, NAMESPACES)
    for user_namespace in (False, True)
    # Without a namespace of one's own it takes root.
    if user_namespace or os.geteuid() == 0
]
# In a namespace that root makes, root's own processes are exempt from the kernel's limit on them:
# only the runner's watch holds these (a fork bomb in tests/studies/code_agent/test_agent.py).
LIMITED = [kind for kind in KINDS if not (kind.user_namespace and os.geteuid() == 0)]


@functools.cache
def problem_of(kind: Sandbox) -> str | None:
    return sandbox_module._problem(kind)


def kind_id(kind: Sandbox) -> str:
    return f"{kind.name}-{'user' if kind.user_namespace else 'root'}"


@pytest.fixture(params=KINDS, ids=kind_id)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    kind: Sandbox = request.param
    problem = problem_of(kind)
    if problem:
        # bubblewrap may not be installed, and kernels may forbid user namespaces. The program
        # itself uses what there is, or refuses to run a model's code.
        not_here(f"not offered by this system: {problem}")
    return kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "trial"
    path.mkdir()
    for name in ("train.py", "prepare.py"):
        (path / name).write_text("original = True\n")
    return path


def start(
    sandbox: Sandbox, folder: Path, script: str, disk_mb: int = 64, max_tasks: int = 200
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", "-S", "-c", textwrap.dedent(script)]
    return subprocess.Popen(
        sandbox.command(
            argv, folder=folder, wall_seconds=20, disk_mb=disk_mb, max_tasks=max_tasks
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"]},
        start_new_session=True,
    )


def attack(sandbox: Sandbox, folder: Path, script: str, **options: int) -> str:
    process = start(sandbox, folder, script, **options)
    try:
        return process.communicate(timeout=20)[0]
    finally:
        process.kill()
