"""A code study whose script only adds up, and changes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import re
import time
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
from tests.studies.scripted import code_spec
from tests.studies.scripted import edit
from tests.studies.scripted import insert
from tests.studies.scripted import make_testbed
from tests.studies.scripted import ScriptedChat
from tests.studies.scripted import TRAIN


WALL_SECONDS = 5.0

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


RUN_IN_A_PROCESS = """
import sys, json
from pathlib import Path
sys.path.insert(0, {root!r})
from studies.code_agent.agent import run_agent
from tests.studies.scripted import code_spec
from tests.studies.scripted import ScriptedChat
spec = code_spec(**json.loads({spec!r}))
run_agent(spec, chat=ScriptedChat(json.loads({replies!r}), log=Path({log!r})))
"""


def without_times(messages: Sequence[Message]) -> list[str]:
    """Two studies measure other times."""
    return [re.sub(r"[0-9.]+ s of training and [0-9.]+ s", "", m["content"]) for m in messages]


def wait_until_running(bench: Bench, number: int) -> None:
    deadline = time.monotonic() + 300
    while True:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        if (bench.folder / "study.db").exists():
            try:
                trials = bench.trials()
            except Exception:  # the tables are being made
                continue
            if len(trials) > number and trials[number].state == TrialState.RUNNING:
                return
