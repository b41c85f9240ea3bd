"""A testbed that needs no torch, and the command line in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import redirect_stderr
from contextlib import redirect_stdout
import io
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any
from typing import TypeVar
import warnings

import optuna
from optuna.trial import FrozenTrial
import pytest

from objective import DataSet
from objective import fit_surrogate
from objective import Testbed
from objective.run.sandbox import find_sandbox
from studies.cli import main
from tests.conftest import not_here
from tests.toy_testbed import DEPTH
from tests.toy_testbed import LR
from tests.toy_testbed import PATTERN
from tests.toy_testbed import write_testbed


# For what has to happen at all: it finds what hangs, and says nothing of speed. A machine that
# does other work, too, takes ten times as long as an idle one.
SECONDS = 300.0

Seen = TypeVar("Seen")

needs_sandbox = pytest.mark.usefixtures("any_sandbox")

# Trains by sleeping. DEPTH = 8 needs too much memory; the best is DEPTH = 5, LR = 1e-3.
TRAIN = """\
import math
import time

import prepare

DEPTH = 4
LR = 0.01
PATTERN = "ab"

start = time.perf_counter()
for step in range(1, 5):
    time.sleep(prepare.TIME_BUDGET / 4)
    print(f"\\rstep {step:05d} ({step * 25:.1f}%) | loss: {5 - step / 10:.6f} |", end="", flush=True)
if DEPTH == 8:
    raise MemoryError
seconds = time.perf_counter() - start
bpb = prepare.evaluate_bpb((DEPTH - 5) ** 2 / 10 + abs(math.log10(LR) + 3))
print(f"\\n---\\nval_bpb: {bpb:.6f}\\ntraining_seconds: {seconds:.3f}")
"""
PREPARE = """\
TIME_BUDGET = 0.05


def evaluate_bpb(loss):
    return 1 + loss
"""


def write_sleeping(folder: Path) -> Path:
    return write_testbed(folder, TRAIN, PREPARE, **{"search_space.toml": DEPTH + LR + PATTERN})


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's clock, nine hours ahead of UTC, in which databases hold times."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def testbed(tmp_path: Path) -> Path:
    return write_sleeping(tmp_path / "bed")


@pytest.fixture(scope="session")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A surrogate of the tests' testbed, fitted to what its formula says."""
    folder = write_sleeping(tmp_path_factory.mktemp("surrogate"))
    testbed = Testbed.load(folder)
    studies = []
    for seed in range(3):
        study = optuna.create_study(
            study_name=str(seed), sampler=optuna.samplers.RandomSampler(seed=seed)
        )
        for key, value in {"method": "random", "seed": seed, "train_seconds": 0.05}.items():
            study.set_user_attr(key, value)
        for _ in range(25):
            trial = study.ask(testbed.space)
            ok = trial.params["DEPTH"] < 8
            attrs: dict[str, Any] = {"status": "ok" if ok else "oom", "training_seconds": 5.0}
            attrs["total_seconds"] = 7.0
            value = 2 + trial.params["DEPTH"] / 10
            if ok:
                attrs["val_bpb"] = value
            for key, attr in attrs.items():
                trial.set_user_attr(key, attr)
            study.tell(trial, value if ok else 100.0)
        studies.append(study)
    file = folder / "surrogate.json.xz"
    fit_surrogate(DataSet.collect(studies, testbed, {})).data.write(file)
    return file


def until(condition: Callable[[], Seen]) -> Seen:
    """Wait until something is the case: what was seen then."""
    deadline = time.monotonic() + SECONDS
    while not (seen := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)
    return seen


def output_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait until a command ends: what it printed, and its errors."""
    return process.communicate(timeout=SECONDS)


def status_after(number: signal.Signals) -> int:
    """The status of a command that this signal has stopped, as `subprocess` writes it."""
    return -number if number == signal.SIGINT else 128 + number


class Gate:
    """Lets a testbed's first trainings through, and holds later ones until it is opened.

    A test that waits until a trial trains sees it then, however busy the machine is.

    Args:
        testbed: The folder.
        through: How many trainings end as they would.
    """

    def __init__(self, testbed: Path, through: int) -> None:
        self._shut = testbed.parent / "gate-is-shut"
        self._shut.touch()
        self._through = through
        self._begun = testbed.parent / "trainings"
        self._begun.touch()
        hold = f"""\
import os

with open({str(self._begun)!r}, "a") as begun:
    begun.write(".")
while os.path.getsize({str(self._begun)!r}) > {through} and os.path.exists({str(self._shut)!r}):
    time.sleep(0.05)
"""
        train = testbed / "train.py"
        before, end, after = train.read_text().partition("if DEPTH == 8:")
        train.write_text(before + hold + end + after)

    def wait(self, held: int) -> None:
        """Wait until so many trainings are held."""
        until(lambda: self._begun.stat().st_size == self._through + held)

    def open(self) -> None:
        self._shut.unlink()


class Cli:
    """The command line, with a working directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = f"sqlite:///{folder}/autoresearch.db"
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command as the leader of a process group."""
        process = subprocess.Popen(
            [sys.executable, "-m", "studies", *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def dashboard(self, storage: str) -> str:
        """Start the dashboard: its address."""
        server = self.start("dashboard", "--storage", storage, "--port", 0)
        assert server.stdout is not None
        return server.stdout.readline().split("/dashboard")[0]

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in this process: Python's own start would take longer."""
        argv = ["studies", *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            patch.setattr(sys, "argv", argv)
            patch.setenv("COLUMNS", "100")
            patch.chdir(self.folder)
            handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
                main()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        status = ended.value.code
        assert isinstance(status, int)
        return subprocess.CompletedProcess(argv, status, out.getvalue(), err.getvalue())

    def fails(self, status: int, *arguments: object) -> str:
        """The one line on stderr of a command that must fail with this exit status."""
        done = self(*arguments)
        assert done.returncode == status, done
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    def trials(self, study: str) -> list[FrozenTrial]:
        """Return a study's stored trials; none if there is no study yet."""
        if not (self.folder / "autoresearch.db").exists():
            return []
        try:
            return optuna.load_study(study_name=study, storage=self.storage).trials
        except Exception:  # the tables or the study are being made
            return []


@pytest.fixture(scope="session")
def any_sandbox() -> None:
    # What a model has written is never run without one: where the system offers none, there is
    # nothing but the refusal to test, which tests/objective/run/test_sandbox.py does everywhere.
    if find_sandbox() is None:
        not_here("neither bubblewrap nor unshare works on this system")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    folder = tmp_path / "work"
    folder.mkdir()
    runner = Cli(folder)
    yield runner
    for process in runner.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
