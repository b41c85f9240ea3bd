"""What a training may try against an evaluator that is another process, and a GPU's limit of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
import subprocess
import sys
import textwrap
from types import MappingProxyType
from types import SimpleNamespace
from typing import Any
from typing import NamedTuple

import numpy as np
import pytest
import torch

from objective.run import launch
from objective.run.outcome import Limits
from objective.run.outcome import RunResult
from objective.run.sandbox import Sandbox
from objective.run.script import run_script
from objective.testbed.data import Data
from tests.objective.run.conftest import kind_id
from tests.objective.run.conftest import KINDS
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

Attack = Callable[..., RunResult]


def before_evaluation(script: str) -> str:
    return textwrap.dedent(script) + HONEST


@pytest.fixture
def attack(sandbox: Sandbox, testbed_folder: Callable[..., Path], tmp_path: Path) -> Attack:
    """Run a script in a sandbox; what is held out is the number 5."""
    held_out = tmp_path / "held-out"
    held_out.write_text("5")

    def run_text(script: str, **limits: float) -> RunResult:
        folder = testbed_folder(textwrap.dedent(script), PREPARE)
        for path in folder.iterdir():
            path.chmod(0o644)
        return run_script(
            folder,
            limits=Limits(**{"wall_seconds": 30, **limits}),  # type: ignore[arg-type]
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
    assert (result.status, result.value) == ("no-metric", None), result
    result = attack(
        """
        import builtins, prepare
        builtins.abs = lambda x: 0.0
        prepare.__dict__["abs"] = lambda x: 0.0
        prepare.evaluate_bpb(4)
        print("---\\nval_bpb: 0.0")
        """
    )
    assert (result.status, result.value, result.mismatch) == ("ok", 1.0, True), result


@pytest.mark.parametrize("sandbox", KINDS[:1], ids=kind_id, indirect=True)
@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("open('hoard', 'ab').write(b'x' * 10**7)", "used more than"),
        ("subprocess.Popen(['sleep', '60'])", "too many processes"),
        ("print('x' * 10**6)", "of output"),
    ],
)
def test_its_other_limits_hold_while_it_is_asked_to_end(
    attack: Attack, deed: str, reason: str
) -> None:
    script = f"""
        import signal, subprocess, time
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
        while not asked:
            time.sleep(0.1)
        while True:
            try:
                {deed}
            except OSError:  # it met the kernel's limit
                time.sleep(0.01)
        """
    result = attack(script, wall_seconds=6, grace_seconds=27, memory_mb=300, output_mb=50)
    assert reason in result.reason, result


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


def test_those_who_measure_ignore_stops_and_the_training_does_not(attack: Attack) -> None:
    result = attack(
        before_evaluation(
            """
            import os, re, signal
            stops = sum(1 << s - 1 for s in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
            # Evaluator, watcher and training; the first two were forked one after the other.
            for pid in (os.getpid() - 1, os.getppid(), os.getpid()):
                status = open(f"/proc/{pid}/status").read()
                ignored = int(re.search("SigIgn:\\t(.*)", status)[1], 16)
                print("IGNORES", ignored & stops == stops, ignored & stops == 0)
            """
        )
    )
    assert result.value == 1.0
    lines = [line for line in result.log.read_text().splitlines() if "IGNORES" in line]
    assert lines == ["IGNORES True False"] * 2 + ["IGNORES False True"]


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


def test_the_time_of_processes_that_came_and_went_unseen_counts(attack: Attack) -> None:
    # Who ignores SIGCHLD isn't told what a child took, nor what that one's own children took.
    script = before_evaluation(
        """
        import os, signal, time
        def in_children(times, work):
            for _ in range(times):
                if os.fork() == 0:
                    work()
                    os._exit(0)
                try:
                    os.wait()
                except ChildProcessError:
                    pass
        def burn():
            while time.process_time() < 0.05: pass
        def burn_below():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            in_children(2, burn)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        in_children(10, burn)
        in_children(5, burn_below)
        """
    )
    result = attack(script)
    # Twenty times 0.05 s, as a process counts them itself; the system's count differs a little.
    assert result.status == "ok" and result.charged_seconds >= 0.9


def test_an_evaluation_that_takes_longer_than_the_training_is_charged(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objective.run.script._EVALUATION_SECONDS", 0.2)
    burning = "import time\n    while time.process_time() < 1: pass\n    answer = "
    result = run(HONEST, PREPARE.replace("answer = ", burning))
    assert result.status == "ok" and result.charged_seconds >= 0.5


def test_a_script_that_only_prints_its_time_is_believed_without_an_evaluator(run: Run) -> None:
    result = run("print('---\\nval_bpb: 1.0\\ntraining_seconds: 0.001')")
    assert (result.charged_seconds, result.trained_seconds) == (0.001, None)


class Scores(NamedTuple):
    loss: float
    val_bpb: float


@dataclass
class Report:
    val_bpb: float
    tokens: int = 7


class Refusing:
    def __float__(self) -> float:
        raise RuntimeError("not a number")


@pytest.mark.parametrize(
    ("returned", "number"),
    [
        (1.5, 1.5),
        (2, 2.0),
        (Decimal("1.5"), 1.5),
        (np.float32(1.5), 1.5),
        (np.array([[1.5]]), 1.5),
        (torch.tensor([1.5], requires_grad=True), 1.5),
        ((1.5, None), 1.5),
        ([1.5, "bits", True], 1.5),
        ((1.5, {"tokens": "many"}), 1.5),
        ({"bits": 1.5}, 1.5),
        ({"loss": 3.0, "val_bpb": torch.tensor(1.5)}, 1.5),
        (MappingProxyType({"loss": 3.0, "val_bpb": 1.5}), 1.5),
        ({"valid": {"val_bpb": 1.5, "loss": 3.0}, "steps": 4}, 1.5),
        ((3.0, {"val_bpb": (1.5,)}), 1.5),
        (Scores(3.0, 1.5), 1.5),
        (Report(1.5), 1.5),
        (SimpleNamespace(val_bpb=1.5, loss=3.0), 1.5),
        # Which of them, if any, isn't clear.
        ((1.5, 3.0), None),
        ({"bits": 1.5, "loss": 3.0}, None),
        ({"a": {"val_bpb": 1.5}, "b": {"val_bpb": 3.0}}, None),
        (np.array([1.5, 3.0]), None),
        (torch.tensor([1.5, 3.0]), None),
        ("1.5", None),
        (True, None),
        (np.True_, None),
        (None, None),
        (10**400, None),
        (1j, None),
        (Refusing(), None),
        ([], None),
    ],
)
def test_of_what_an_evaluator_returns_the_clear_number_counts(
    returned: Any, number: float | None
) -> None:
    reported: list[float | None] = []
    evaluate = launch._reporting(lambda: returned, "val_bpb", reported.append)
    assert evaluate() is returned
    assert reported == [number]


def test_what_an_evaluator_returns_reaches_the_script_unused() -> None:
    around: list[Any] = [1.5]
    around.append(around)
    reported: list[float | None] = []
    assert launch._reporting(lambda: around, "val_bpb", reported.append)() is around
    values = launch._reporting(lambda: iter([1.5]), "val_bpb", reported.append)()
    assert list(values) == [1.5] and reported == [None, None]


@pytest.mark.parametrize(
    ("returned", "value"),
    [("{'val_bpb': x, 'loss': 3.0}", 1.25), ("(x, {'loss': 3.0, 'tokens': 4})", 2.5)],
)
def test_without_a_clear_number_the_printed_one_counts(
    run: Run, returned: str, value: float
) -> None:
    prepare = f"def evaluate_bpb(x):\n    return {returned}\n"
    script = "import prepare\nprint(prepare.evaluate_bpb(1.25))\nprint('---\\nval_bpb: 2.5')"
    assert run(script, prepare).value == value


# There is no GPU where these tests run: what is really asked of PyTorch is all that they can show.
TORCH = """
import os
from types import SimpleNamespace
print("settings:", os.environ.get("PYTORCH_ALLOC_CONF"))
queued = []
def start():
    print("soft limit at the start of CUDA:", resource.getrlimit(resource.RLIMIT_DATA)[0])
import resource
_C = SimpleNamespace(_cuda_init=start)
def lazy_init():
    _C._cuda_init()
    for call in queued:
        call()
cuda = SimpleNamespace(
    _lazy_call=queued.append, current_device=lambda: 0, lazy_init=lazy_init,
    get_device_properties=lambda device: SimpleNamespace(total_memory=2**30),
    set_per_process_memory_fraction=lambda share, device: print("share", share, "of", device),
)
"""


def run_limited(program: str, folder: Path, **torch: str) -> str:
    """Run a program with a limit of 256 MB on a machine that seems to have a GPU."""
    for name, text in torch.items():
        (folder / f"{name}.py").write_text(text)
    code = f"""
import os, resource, sys
sys.path[:0] = [{str(Path(launch.__file__).parents[2])!r}, {str(folder)!r}]
from objective.run import launch
launch.GPU_FILES = ("/dev/null",)
launch._limit_memory(256)
{textwrap.dedent(program)}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_without_a_gpu_is_limited_on_a_machine_with_one(tmp_path: Path) -> None:
    program = """
    import torch
    try:
        bytearray(2**29)
    except MemoryError:
        print("limited")
    """
    assert run_limited(program, tmp_path, torch="class _C: pass\n") == "limited\n"


def test_the_limit_moves_to_the_device_when_cuda_starts(tmp_path: Path) -> None:
    program = """
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    import torch
    import torch
    print("imported")
    torch.cuda.lazy_init()
    bytearray(2**29)
    """
    out = run_limited(program, tmp_path, torch=TORCH).splitlines()
    assert out[:2] == ["settings: expandable_segments:True", "imported"]
    assert out[2] == "soft limit at the start of CUDA: -1"
    assert out[3:] == ["share 0.25 of 0"]


def test_a_script_that_asks_for_the_cpu_has_no_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    assert run_limited("print(resource.getrlimit(resource.RLIMIT_DATA))", tmp_path) == (
        f"({2**28}, {2**28})\n"
    )
