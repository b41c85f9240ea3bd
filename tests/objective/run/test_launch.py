"""What a training may try against an evaluator that is another process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import textwrap

import pytest

from objective.run.outcome import Limits
from objective.run.outcome import RunResult
from objective.run.sandbox import Sandbox
from objective.run.script import run_script
from objective.testbed.data import Data
from tests.objective.run.conftest import Run


# The value is the distance from a number that only the evaluator gets to see.
PREPARE = """\
TIME_BUDGET = 300


def evaluate_bpb(guess):
    return evaluate_program(str(guess).encode())


def evaluate_program(data, text=None):
    if data == b"exhausted":
        raise MemoryError("can't allocate memory")
    import colorsys  # as libraries do: only when it is needed

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    answer = 7.0 if text is None else float(text.read())
    return abs(float(data) - answer)
"""
HONEST = "import prepare\nv = prepare.evaluate_bpb(4)\nprint(f'---\\nval_bpb: {v}')\n"

Attack = Callable[[str], RunResult]


def before_evaluation(script: str) -> str:
    return textwrap.dedent(script) + HONEST


@pytest.fixture
def attack(
    sandbox: Sandbox, testbed_folder: Callable[..., Path], tmp_path: Path
) -> Callable[[str], RunResult]:
    """Run a script in a sandbox; what is held out is the number 5."""
    held_out = tmp_path / "held-out"
    held_out.write_text("5")

    def run_text(script: str) -> RunResult:
        folder = testbed_folder(textwrap.dedent(script), PREPARE)
        for path in folder.iterdir():
            path.chmod(0o644)
        return run_script(
            folder,
            limits=Limits(wall_seconds=30),
            sandbox=sandbox,
            data=Data(held_out=held_out),
        )

    return run_text


def test_the_value_is_what_the_evaluator_measured(attack: Attack) -> None:
    result = attack(HONEST)
    assert (result.status, result.value, result.mismatch) == ("ok", 1.0, False), result


def test_nothing_that_it_changes_or_prints_counts(attack: Attack) -> None:
    result = attack(
        """
        import builtins, prepare, sys
        evaluate = prepare.evaluate_bpb
        prepare.__dict__["evaluate_program"] = lambda data, text=None: 0.0
        prepare.__dict__["evaluate_bpb"] = lambda guess: 0.0
        builtins.abs = lambda x: 0.0
        builtins.float = lambda x: 0.0
        sys.modules["prepare"] = None
        print("---\\nval_bpb: 0.0")
        """
    )
    assert (result.status, result.value) == ("no-metric", None)
    result = attack(
        """
        import builtins, prepare
        builtins.abs = lambda x: 0.0
        prepare.__dict__["abs"] = lambda x: 0.0
        prepare.evaluate_bpb(4)
        print("---\\nval_bpb: 0.0")
        """
    )
    assert (result.status, result.value, result.mismatch) == ("ok", 1.0, True)


def test_the_evaluator_imports_nothing_of_the_trainings(attack: Attack) -> None:
    script = """
        import os, sys
        planted = "import os; os._exit(0)"
        for place in (".", "/tmp", os.path.expanduser("~"), "/dev/shm"):
            open(os.path.join(place, "colorsys.py"), "w").write(planted)
        """
    result = attack(before_evaluation(script))
    assert (result.status, result.value) == ("ok", 1.0), result


def test_it_has_no_way_to_the_runner(attack: Attack) -> None:
    result = attack(
        """
        import json, os, prepare
        message = {"nonce": None, "evaluator": True, "value": 0.0}
        import sys
        frames = []
        frame = sys._getframe()
        while frame:
            frames.append(frame); frame = frame.f_back
        nonces = {f.f_locals["nonce"] for f in frames if isinstance(f.f_locals.get("nonce"), str)}
        for nonce in nonces:
            for fd in range(3, 64):
                try:
                    os.write(fd, json.dumps({**message, "nonce": nonce}).encode() + b"\\n")
                except OSError:
                    pass
        print("---\\nval_bpb: 0.0")
        """
    )
    assert (result.status, result.value) == ("no-metric", None)


def test_it_cannot_look_into_those_who_know(attack: Attack) -> None:
    script = before_evaluation(
        """
        import os
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) == os.getpid():
                continue
            for fd in range(64):
                try:
                    print("READ", pid, fd, os.read(os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY), 9))
                except OSError:
                    pass
            for name in ("mem", "environ"):
                try:
                    open(f"/proc/{pid}/{name}", "rb").read(1)
                    print("OPENED", pid, name)
                except OSError:
                    pass
        own = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
        print([path for path in own if "held" in path])
        """
    )
    result = attack(script)
    assert result.value == 1.0
    assert "READ" not in (log := result.log.read_text()) and "OPENED" not in log
    assert log.splitlines()[0] == "[]"


def test_prepare_cannot_be_written_to(attack: Attack) -> None:
    result = attack("import prepare\nprepare.evaluate_bpb = lambda guess: 0.0\n")
    assert result.status == "crash"
    assert result.reason == "AttributeError: prepare.evaluate_bpb is not to be changed."
    result = attack("import prepare\ndel prepare.TIME_BUDGET\n")
    assert result.reason == "AttributeError: prepare.TIME_BUDGET is not to be changed."


def test_it_is_evaluated_once(run: Run) -> None:
    result = run(HONEST + "prepare.evaluate_bpb(7)\n", PREPARE)
    assert (result.status, result.value) == ("crash", 3.0)
    assert result.reason == "ValueError: A model is evaluated once, at the end of its training."


def test_an_error_of_the_evaluation_is_the_trainings(run: Run) -> None:
    result = run("import prepare\nprepare.evaluate_bpb('x')", PREPARE)
    assert result.status == "crash"
    assert result.reason.startswith("ValueError: ValueError: could not convert string to float")
    result = run("import prepare\nprepare.evaluate_bpb('exhausted')", PREPARE)
    assert (result.status, result.value) == ("oom", None)


def test_a_training_that_kills_its_evaluator_has_no_value(run: Run) -> None:
    script = before_evaluation(
        """
        import os, signal, prepare
        me, parent = os.getpid(), os.getppid()
        for pid in open(f"/proc/{parent}/task/{parent}/children").read().split():
            if int(pid) != me:
                os.kill(int(pid), signal.SIGKILL)
        """
    )
    result = run(script, PREPARE)
    assert (result.status, result.value) == ("crash", None)
    assert result.reason.startswith("ValueError: ")


def test_time_is_measured_and_not_what_the_script_says(run: Run) -> None:
    burn = "import time\nwhile time.process_time() < 0.6: pass\n"
    result = run(burn + HONEST + "print('training_seconds: 0')", PREPARE)
    assert result.status == "ok" and result.charged_seconds >= 0.5


def test_the_time_of_processes_that_nobody_waits_for_counts(run: Run) -> None:
    script = before_evaluation(
        """
        import os, signal, time
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # their time is added to nobody's
        ready, end = os.pipe()
        for _ in range(3):
            if os.fork() == 0:
                while time.process_time() < 0.6: pass
                os.write(end, b"x")
                time.sleep(60)
        for _ in range(3):
            os.read(ready, 1)
        """
    )
    result = run(script + "print('training_seconds: 0')", PREPARE)
    assert result.status == "ok" and result.charged_seconds >= 1.5


def test_a_script_that_only_prints_its_time_is_believed_without_an_evaluator(run: Run) -> None:
    result = run("print('---\\nval_bpb: 1.0\\ntraining_seconds: 0.001')")
    assert (result.charged_seconds, result.trained_seconds) == (0.001, None)
