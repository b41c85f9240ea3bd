"""A code study whose script only adds up, and changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import optuna
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from samplers._llm.chat import Message
from studies.code_agent.agent import run_agent
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import read_history
from studies.code_agent.sources import Sources
from studies.spec import Spec
from studies.storage.open import artifact_folder
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage
from tests.conftest import die
from tests.conftest import in_a_process_that_dies
from tests.studies.scripted import code_spec
from tests.studies.scripted import edit
from tests.studies.scripted import insert
from tests.studies.scripted import make_testbed
from tests.studies.scripted import ScriptedChat
from tests.studies.scripted import TRAIN


WALL_SECONDS = 10.0  # enough, on a busy machine too, to meet the other limits first

BETTER_RATE = edit("lower the rate", "RATE = 0.5", "RATE = 0.3")
BEST_RATE = edit("lower the rate more", "RATE = 0.3", "RATE = 0.1")
WORSE_RATE = edit("raise the rate", "RATE = 0.5", "RATE = 0.9")
# A failure that says nothing against the code, and one that does.
BUG = insert("read a file that isn't there", "open('/nowhere')")
MISTAKE = insert("use a name that isn't there", "undefined_name")


class Bench:
    """A study in a folder of its own: a storage, a testbed, a spec."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.testbed = make_testbed(folder / "bed")
        self.options: dict[str, Any] = {
            "storage": f"sqlite:///{folder}/study.db",
            "testbed": self.testbed,
            "train_seconds": 0.05,
            "wall_seconds": WALL_SECONDS,
            "memory_mb": 300,
            "baselines": 1,
            "unsafe": True,
            **options,
        }

    def spec(self, **options: Any) -> Spec:
        return code_spec(**{**self.options, **options})

    def run(self, chat: ScriptedChat, trials: int, **options: Any) -> CodeHistory:
        run_agent(self.spec(trials=trials, **options), chat=chat)
        return self.history()

    def trials(self) -> list[FrozenTrial]:
        storage = open_storage(self.options["storage"])
        return optuna.load_study(study_name="code-test", storage=storage).trials

    def history(self) -> CodeHistory:
        return read_history(self.trials())

    def sources(self) -> Sources:
        return Sources(open_artifacts(self.options["storage"]), TRAIN)

    def artifact(self, trial: FrozenTrial, name: str) -> str:
        storage = open_storage(self.options["storage"])
        (meta,) = [m for m in get_all_artifact_meta(trial, storage=storage) if m.filename == name]
        return (artifact_folder(self.options["storage"]) / meta.artifact_id).read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def outcomes(history: CodeHistory) -> list[str]:
    return [step.outcome for step in history.steps]


def finished(number: int, source: str, value: float) -> FrozenTrial:
    trial = optuna.trial.create_trial(
        value=value, user_attrs={"source": source, "status": "ok", "val_bpb": value}
    )
    trial.number = number
    return trial


_PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from studies.code_agent.agent import run_agent
from tests.studies.scripted import code_spec
from tests.studies.scripted import ScriptedChat
spec, replies, log = map(json.loads, sys.argv[2:])
run_agent(code_spec(**spec), chat=ScriptedChat(replies, log=Path(log)))
"""


def start(
    bench: Bench,
    replies: Sequence[str],
    log: str,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """Work on a study in a process of its own.

    Args:
        bench: The study.
        replies: Of the model.
        log: Name of a file for its requests.
        environment: Variables on top of this process's.
        options: Of the study.
    """
    spec = {**bench.options, **options, "testbed": str(bench.testbed)}
    words = [spec, list(replies), str(bench.folder / log)]
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, root, *map(json.dumps, words)],
        text=True,
        env={**os.environ, **(environment or {})},
    )


def die_in(bench: Bench, number: int, replies: Sequence[str], log: str, **options: Any) -> None:
    """Work on a study, as with `start`, in a process that is killed when a trial is claimed."""

    def watch(trials: Sequence[FrozenTrial]) -> None:
        if any(t.number == number and t.state == TrialState.RUNNING for t in trials):
            die()

    chat = ScriptedChat(replies, log=bench.folder / log)
    in_a_process_that_dies(lambda: run_agent(bench.spec(**options), watch, chat=chat))


def requests(bench: Bench, log: str) -> list[list[str]]:
    path = bench.folder / log
    if not path.exists():
        return []
    return [without_times(json.loads(line)) for line in path.read_text().splitlines()]


def without_times(messages: Sequence[Message]) -> list[str]:
    """Two studies measure other times."""
    return [re.sub(r"[0-9.]+ s of training and [0-9.]+ s", "", m["content"]) for m in messages]
