"""A testbed that trains nothing, and its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
import random
import subprocess

import optuna
import psutil
import pytest

from studies.storage.open import open_storage
from studies.storage.open import opened
from studies.storage.open import StorageError
from tests.faults.invariants import PREPARE
from tests.faults.invariants import TRAIN
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import obedient as obedient
from tests.studies.conftest import cli as cli
from tests.studies.conftest import output_of as output_of
from tests.studies.conftest import until as until
from tests.toy_testbed import DEPTH
from tests.toy_testbed import LR
from tests.toy_testbed import write_testbed


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    path.touch()
    return path


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that holds all trainings while a test lets it exist.

    What has to happen while something trains happens then, however slow the machine is.
    """
    return tmp_path / "gate"


@pytest.fixture
def bed(tmp_path: Path, ledger: Path, gate: Path) -> Path:
    train = TRAIN.replace("LEDGER-FILE", str(ledger)).replace("GATE-FILE", str(gate))
    return write_testbed(tmp_path / "bed", train, PREPARE, **{"search_space.toml": DEPTH + LR})


@pytest.fixture
def model() -> Iterator[LoopbackServer]:
    """A server of a language model that does as it is told."""
    server = LoopbackServer()
    server.answers = obedient(random.Random(0))
    yield server
    server.close()


def arguments(bed: Path, storage: str, trials: int, **others: object) -> list[object]:
    """Build the arguments of a ``run`` of study ``s``; its ledger is of this study's trainings only."""
    options = {"method": "random", "study": "s", "trials": trials, "confirm": 0, **others}
    options.setdefault("wall_seconds", 600)  # a busy machine is slow, and no fault of a training
    if "llm" in others:  # the share of the model's turns is that of the trials after start-up
        options["warm_start"] = 0
    words: list[object] = ["run", "--testbed", bed, "--storage", storage]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    return words


def load(storage: str) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=open_storage(storage))


def states(storage: str) -> Counter[str]:
    """How many trials are in each state; none if there is no study yet."""
    try:
        with opened(storage) as database:
            study = optuna.load_study(study_name="s", storage=database)
            return Counter(t.state.name for t in study.get_trials(deepcopy=False))
    except (KeyError, StorageError):  # the study, or its tables, are being made
        return Counter()


def held(gate: Path) -> int:
    """How many trainings the gate holds. A trial that runs may be past it, and about to end."""
    return sum(psutil.pid_exists(int(m.suffix[1:])) for m in gate.parent.glob(f"{gate.name}.*"))


def trained(ledger: Path) -> int:
    return len(ledger.read_text().splitlines())


def advances(process: subprocess.Popen[str], ledger: Path, trainings: int) -> bool:
    """Wait until so many trainings have ended; whether the command still runs then."""
    until(lambda: process.poll() is not None or trained(ledger) >= trainings)
    return process.poll() is None


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes of a command; none if it has ended."""
    found = []
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    for child in children:
        try:
            line, parent = " ".join(child.cmdline()), child.parent()
            # Forks of a server keep its command line.
            forked = (
                parent is not None and parent.pid != pid and parent.cmdline() == child.cmdline()
            )
            if "spawn_main" in line or ("forkserver" in line and forked):
                found.append(child)
        except psutil.Error:
            continue
    return found
