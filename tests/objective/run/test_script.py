"""Real processes, most of them without torch, one for each way that a run can end."""

from __future__ import annotations

from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from objective.run.environment import script_environment
from objective.run.outcome import Limits
from objective.run.sandbox import Sandbox
from objective.run.sandbox import SandboxError
from objective.run.script import DiskFull
from objective.run.script import run_script
from objective.run.script import RunError
from objective.testbed.data import Data
from objective.testbed.metric import Metric
from tests.conftest import gone
from tests.objective.run.conftest import GOOD
from tests.objective.run.conftest import PREPARE
from tests.objective.run.conftest import Run


def test_the_traceback_starts_in_the_script(run: Run) -> None:
    log = run("def f():\n    1 / 0\nf()").log.read_text()
    assert log.count("File ") == 2 and "launch.py" not in log and "runpy" not in log


def test_train_seconds_become_the_time_budget(run: Run) -> None:
    script = "from prepare import TIME_BUDGET\nprint('---\\nval_bpb:', TIME_BUDGET)"
    prepare = "TIME_BUDGET = 300\n"
    assert run(script, prepare, train_seconds=5.0).log.read_text().endswith(" 5\n")
    assert run(script, prepare, train_seconds=0.5).value == 0.5
    assert run(script, prepare).value == 300


def test_the_script_runs_as_if_it_were_started_in_its_folder(run: Run) -> None:
    result = run(
        """
        import os, sys, helper
        assert __name__ == "__main__" and len(sys.argv) == 1
        assert all(os.path.samefile(p, "train.py") for p in (__file__, sys.argv[0]))
        assert os.path.samefile(sys.path[0], ".")
        assert sys.modules["__main__"].__file__ == __file__
        """
    )
    assert result.reason == "ModuleNotFoundError: No module named 'helper'"
    (result.log.parent / "testbed" / "helper.py").touch()
    assert run((result.log.parent / "testbed" / "train.py").read_text()).status == "no-metric"


@pytest.mark.parametrize("threads", ["4,2", " 2", "", "all"])
def test_whatever_says_how_many_threads_a_script_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert run(GOOD).status == "ok"


def test_no_secret_is_in_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "OPENAI_API_KEY",
        "AUTORESEARCH_LLM_KEY",
        "AUTORESEARCH_TOKEN",
        "AUTORESEARCH_DSN",
        "PLANTED",
        "PGPASSWORD",
    ]
    for name in names:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("AUTORESEARCH_SEED", "7")
    log = run("import os, json; print(json.dumps(dict(os.environ)))").log.read_text()
    environment = json.loads(log)
    assert "hunter2" not in log
    assert environment["AUTORESEARCH_SEED"] == "7"
    assert environment["PATH"] == os.environ["PATH"]
    assert script_environment({"A": "b"})["A"] == "b"


def test_a_script_reads_and_writes_utf_8_whatever_the_locale(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.ISO-8859-1")
    result = run("import sys; print('→', sys.flags.utf8_mode)\n" + GOOD)
    assert result.status == "ok" and "→ 1\n" in result.log.read_text(encoding="utf-8")


def test_a_run_that_is_no_longer_wanted_is_killed(run: Run) -> None:
    result = run(
        """
        import os, time
        print(os.getpid(), "step 1 (10%) | loss: 3.0", flush=True)
        time.sleep(60)
        """,
        on_progress=lambda step, value, is_share: value > 2,
    )
    assert (result.status, result.reason) == ("pruned", "")
    assert gone(int(result.log.read_text().split()[0]), 0.1)


@pytest.mark.parametrize("ignore", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_an_overdue_run_is_asked_to_end_and_then_killed(run: Run, ignore: str) -> None:
    result = run(
        f"""
        import os, signal, time
        {ignore}
        print(os.getpid(), flush=True)
        time.sleep(60)
        """,
        wall_seconds=3,
        grace_seconds=0.5,
    )
    assert result.status == "timeout"
    assert result.reason == "killed after 3 s of wall-clock time"
    assert result.returncode == (-signal.SIGKILL if ignore else -signal.SIGTERM)
    assert gone(int(result.log.read_text()), 0.1)


def test_nothing_that_the_script_started_outlives_it(run: Run) -> None:
    result = run(
        """
        import subprocess, sys
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        for new_session in (False, True):
            print(subprocess.Popen(command, start_new_session=new_session).pid, flush=True)
        # Twice removed: its parent is gone before the script is.
        subprocess.run([sys.executable, "-c", "import subprocess, sys; print(subprocess.Popen("
                        f"{command}, start_new_session=True).pid)"])
        print("---\\nval_bpb: 1.0")
        """.replace("{command}", "[sys.executable, '-c', 'import time; time.sleep(60)']")
    )
    assert result.status == "ok"
    pids = [int(line) for line in result.log.read_text().split("---")[0].split()]
    assert len(pids) == 3
    if sys.platform == "linux":
        assert all(gone(pid, 0.1) for pid in pids)


def test_training_dies_with_a_runner_that_is_killed(
    tmp_path: Path, testbed_folder: Callable[..., Path]
) -> None:
    folder = testbed_folder(
        """
import os, subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         start_new_session=True)
with open("../pids.part", "w") as file:
    print(os.getpid(), os.getppid(), other.pid, file=file)
os.rename("../pids.part", "../pids")
time.sleep(60)
"""
    )
    program = (
        "import sys, pathlib; from objective.run.script import run_script; from objective.run.outcome import Limits;"
        "run_script(pathlib.Path(sys.argv[1]), limits=Limits(wall_seconds=60))"
    )
    runner = subprocess.Popen([sys.executable, "-c", program, str(folder)], start_new_session=True)
    while not (tmp_path / "pids").exists():
        assert runner.poll() is None
        time.sleep(0.05)
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_memory_beyond_the_limit_is_refused_and_classified(run: Run) -> None:
    result = run("x = bytearray(10**9)\n" + GOOD, memory_mb=200)
    assert result.status == "oom"
    assert result.reason == "out of memory (limit 200 MB): MemoryError"
    assert run("x = bytearray(10**8)\n" + GOOD, memory_mb=200).status == "ok"


def test_torch_beyond_the_limit_is_out_of_memory(run: Run) -> None:
    result = run("import torch\ntorch.ones(10**9)\n" + GOOD, memory_mb=1000)
    assert result.status == "oom"
    assert "can't allocate memory" in result.reason


@pytest.mark.parametrize("memory_mb", [1, 16, 40, 80, 120])
def test_a_limit_below_what_the_interpreter_needs_is_out_of_memory(
    run: Run, memory_mb: int
) -> None:
    result = run("import torch\n" + GOOD, memory_mb=memory_mb)
    assert result.status == "oom"
    assert f"(limit {memory_mb} MB)" in result.reason


def test_forks_beyond_the_limit_on_processes_are_no_lack_of_memory(run: Run) -> None:
    # Processes that fail at once print their tracebacks line by line into each other's.
    line = "BlockingIOError: [Errno 11] Resource temporarily unavailable"
    tangled = f"Traceback (most recent call last):\n{line}\nTraceback (most recent call last):\n  os.fork()"
    result = run(f"print({tangled!r})\nexit(1)", memory_mb=300)
    assert (result.status, result.reason) == ("crash", line)


def test_a_flood_of_output_is_cut_in_the_middle(run: Run) -> None:
    result = run(
        "print('first')\nfor i in range(10**4): print('x' * 1000)\n" + GOOD, log_bytes=10**5
    )
    text = result.log.read_bytes()
    assert result.status == "ok"
    assert len(text) < 3 * 10**5
    assert text.startswith(b"first\n") and text.endswith(b"val_bpb: 1.5\n")
    assert text.count(b" bytes left out") == 1
    left_out = int(text.split(b"\n[... ")[1].split()[0])
    marker = len(f"\n[... {left_out} bytes left out ...]\n")
    assert left_out + len(text) - marker == len("first\n") + 10**4 * 1001 + len(
        "---\nval_bpb: 1.5\n"
    )


def test_an_endless_line_is_survived(run: Run) -> None:
    result = run("print('x' * 10**7, end='')\nprint()\n" + GOOD)
    assert result.status == "ok"


def test_too_much_output_ends_a_run(run: Run) -> None:
    result = run("while True: print('x' * 10**5)", output_mb=2)
    assert (result.status, result.reason) == ("crash", "killed: it wrote more than 2 MB of output")
    assert result.log.stat().st_size < 3 * 2**20
    assert Limits(wall_seconds=1).output_mb == 512  # as docs/safety.md says


def test_a_flood_into_the_metric_pipe_ends_a_run(run: Run) -> None:
    script = """
        import json, os, stat, sys
        pipes = [fd for fd in map(int, os.listdir("/proc/self/fd"))
                 if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")
                 and stat.S_ISFIFO(os.fstat(fd).st_mode)]
        while True:
            for fd in pipes:
                os.write(fd, b"[" * 50_000)
    """
    result = run(script, PREPARE, output_mb=2)
    assert (result.status, result.reason) == ("crash", "killed: it wrote more than 2 MB of output")


def test_a_script_that_escapes_and_goes_on_writing_is_left_behind(run: Run) -> None:
    # Without its watcher nobody kills it. (In a sandbox the name space ends with its first.)
    result = run(
        """
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            print(os.getpid(), flush=True)
            end = time.monotonic() + 20
            while time.monotonic() < end:
                os.write(1, b"x" * 1000 + bytes([10]))
        time.sleep(0.5)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
        """,
    )
    os.kill(int(result.log.read_bytes().split()[0]), signal.SIGKILL)
    assert result.status == "killed"


def test_a_full_disk_is_no_measurement(testbed_folder: Callable[..., Path]) -> None:
    folder = testbed_folder("print(1)\n" + GOOD)
    with pytest.raises(RunError, match="The disk of /dev/full is full"):
        run_script(folder, limits=Limits(wall_seconds=60), log=Path("/dev/full"))
    with pytest.raises(RunError, match="must be writable, but: No such file or directory"):
        run_script(folder, limits=Limits(wall_seconds=60), log=folder / "no" / "log")


def test_a_metrics_file_is_where_the_script_works(testbed_folder: Callable[..., Path]) -> None:
    folder = testbed_folder("open('m.json', 'w').write('{\"loss\": 0.5}')\n")
    result = run_script(
        folder,
        limits=Limits(wall_seconds=60),
        command=("python", str(folder / "train.py")),
        metric=Metric("loss", file="m.json"),
        cwd=folder.parent,
    )
    assert (result.status, result.value) == ("ok", 0.5), result.reason


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "print('loss: 0.5')",
            "the script wrote no file m.json where it works, or in its own",
        ),
        ("open('m.json', 'w').write('{}')", "no `loss: NUMBER`, `loss=NUMBER` or JSON is in"),
    ],
)
def test_a_metrics_file_that_was_not_written_is_told_from_one_without_the_metric(
    testbed_folder: Callable[..., Path], code: str, said: str
) -> None:
    folder = testbed_folder(code + "\n", **{"m.json": "stale"})
    result = run_script(folder, limits=Limits(60), metric=Metric("loss", file="m.json"))
    assert result.status == "no-metric" and result.reason.startswith(said)


@pytest.mark.parametrize(
    "error",
    [
        "OSError(28, 'No space left on device')",
        "OSError(122, 'Disk quota exceeded')",
        "Exception('Disc quota exceeded')",
        "RuntimeError('[enforce fail at inline_container.cc:626] . PytorchStreamWriter failed writing'"
        " ' file data/0: file write failed')",
    ],
)
def test_a_full_disk_that_a_script_writes_to_is_no_measurement(error: str, run: Run) -> None:
    with pytest.raises(DiskFull, match="A disk that the script writes to is full"):
        run(f"raise {error}")


class _Missing(Sandbox):
    """A sandbox that can't be set up."""

    def command(self, *_: object, **__: object) -> list[str]:
        raise SandboxError("no program for it")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"python": ["/no/such/python"]}, "must start, but: No such file"),
        ({"sandbox": _Missing("none", True)}, "no program for it"),
        ({"sandbox": _Missing("none", True), "data": Data(held_out=Path("/none"))}, "'/none'"),
    ],
)
def test_what_can_not_start_leaves_nothing_open(
    options: dict[str, Any], message: str, testbed_folder: Callable[..., Path]
) -> None:
    folder = testbed_folder(GOOD)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with pytest.raises((RunError, SandboxError, FileNotFoundError), match=message):
            run_script(folder, limits=Limits(wall_seconds=60), **options)
    assert len(os.listdir("/proc/self/fd")) <= before
