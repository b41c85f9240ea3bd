"""Edits and tuning as one method: killed and resumed, by several workers, and as safe as edits."""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from objective.run.sandbox import BUBBLEWRAP
from objective.testbed.source import read_constants
import samplers
from samplers._llm.scripted import Request
from studies.code_agent.agent import run_agent
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import is_tuned
from studies.code_agent.history import read_history
from studies.code_agent.history import TUNER
from studies.code_agent.ideas import waiting
from studies.code_agent.tuning import structure_of
from studies.storage.open import open_storage
from tests.studies.code_agent.conftest import Bench
from tests.studies.code_agent.conftest import die_in
from tests.studies.code_agent.conftest import finished
from tests.studies.code_agent.conftest import outcomes
from tests.studies.code_agent.conftest import requests
from tests.studies.code_agent.conftest import start
from tests.studies.code_agent.conftest import without_times
from tests.studies.conftest import needs_sandbox
from tests.studies.scripted import edit
from tests.studies.scripted import ScriptedChat
from tests.studies.scripted import TRAIN


FLAT = edit("flat", "    return 1.0", "    return 0.0")
LINEAR = edit("linear", "    return abs(x)", "    return 0.5 * abs(x)")


def sources(trials: Sequence[FrozenTrial]) -> list[str]:
    return [t.user_attrs["source_sha256"] for t in trials if t.state == TrialState.COMPLETE]


def test_killed_twice_a_study_has_the_same_next_prompt_and_the_same_next_tuning_trial(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"trials": 6, "tune": 0.5, "tune_edits": 1}
    benches = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        benches.append(Bench(tmp_path / name))
    whole, killed = benches
    replies = [FLAT, LINEAR, *["no"] * 9]
    chat = ScriptedChat(replies)
    whole.run(chat, **options)
    asked: list[list[str]] = []
    for number in (2, 5):  # the tuner's first trial, and the repetition of the one after it
        die_in(killed, number, replies[len(asked) :], f"log-{number}", **options)
        asked += requests(killed, f"log-{number}")
    last = ScriptedChat(replies[len(asked) :])
    killed.run(last, **options)
    asked += [without_times(request.messages) for request in last.requests]
    assert asked == [without_times(request.messages) for request in chat.requests]
    assert sources(killed.trials()) == sources(whole.trials())
    assert any(map(is_tuned, whole.trials()))


def test_workers_edit_and_tune_at_once_and_run_nothing_twice(bench: Bench) -> None:
    def ideas(worker: int) -> str:
        return "".join(
            edit(f"{worker}.{i}", "    return 1.0", f"    return {0.5 + worker / 10 + i / 100}")
            for i in range(3)
        )

    options: dict[str, Any] = {"trials": 14, "tune": 0.5, "proposals": 3, "wall_seconds": 30.0}
    workers = [
        start(bench, [ideas(worker), ideas(worker + 2), *["no"] * 20], f"{worker}", **options)
        for worker in range(2)
    ]
    assert [process.wait(timeout=300) for process in workers] == [0, 0]
    trials = bench.trials()
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    prints = [t.user_attrs["fingerprint"] for t in trials if "fingerprint" in t.user_attrs]
    assert len(prints) == len(set(prints))
    assert any(map(is_tuned, trials))
    # Each idea was run, told to the model, or waits; each script that was run is there.
    given = {sha for t in trials for sha in t.user_attrs.get("ideas_sha256", ())}
    settled = {t.user_attrs.get("idea_sha256") for t in trials}
    settled |= {sha for t in trials for sha in t.user_attrs.get("dropped_sha256", ())}
    assert given and given <= settled | set(waiting(trials))
    for trial in trials:
        if sha := trial.user_attrs.get("source_sha256"):
            assert structure_of(bench.sources().load(sha))


# Small models write no blocks: they choose constants, and say so; tuning improves the script all the same.


def chosen(request: Request) -> str:
    """Reply as a small model does: with prose, or with one of the constants that are offered."""
    if request.schema is None:
        return "I suggest to lower the rate."
    fields = request.schema["anyOf"][0]["properties"]
    value = fields["value"]["enum"][-1]
    return json.dumps({"name": fields["name"]["const"], "value": value, "reason": "it may help"})


def honest(history: CodeHistory) -> bool:
    """Whether every proposal that ran says that it is a choice, and every other one why it didn't."""
    return all(
        step.trial.user_attrs["form"] == "choice" if step.outcome != "rejected" else step.reason
        for step in history.proposals
    )


def test_tuning_improves_what_a_model_that_writes_no_blocks_can_not(bench: Bench) -> None:
    run_agent(bench.spec(trials=8, tune=0.5), chat=samplers.ScriptedChat(chosen))
    history = bench.history()
    assert history.proposals and honest(history)
    assert "kept" in [step.outcome for step in history.tuned]
    assert sum(step.gain for step in history.tuned if step.outcome == "kept") > 0.1


# What holds for edits holds for their tuned structures.


@needs_sandbox
def test_a_tuned_structure_runs_isolated_and_is_worth_what_the_evaluator_says(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, unsafe=False)
    script = bench.testbed / "train.py"
    script.write_text(script.read_text().replace("import time\n", "import ctypes\nimport time\n"))
    keyctl = 250 if os.uname().machine == "x86_64" else 219
    lie = f"""\
libc = ctypes.CDLL(None)
print("user name space", libc.unshare(0x10000000))
print("keyring", libc.syscall({keyctl}, 1, None))
print("vsock", libc.socket(40, 1, 0))
print("---")
val_bpb = 0.000001"""
    liar = FLAT + edit("", 'print("---")', lie).split("\n", 1)[1]
    history = bench.run(ScriptedChat([liar, *["no"] * 20]), trials=6, tune=0.8)
    assert outcomes(history)[1] == "kept"
    assert history.tuned
    for step in history.tuned:
        source = bench.sources().load(step.trial.user_attrs["source_sha256"])
        rate = float(read_constants(source)["RATE"].value or 0)
        assert step.value == pytest.approx(1.25 + (rate - 0.1) ** 2)
        assert step.trial.user_attrs["isolation"] in (BUBBLEWRAP, "namespaces")
        log = bench.artifact(step.trial, "train.log")
        assert "user name space -1\nkeyring -1\nvsock -1\n" in log


def test_a_structure_that_the_rules_refuse_is_not_tuned(bench: Bench) -> None:
    bench.run(ScriptedChat([]), trials=1, tune=0.8)
    bad = "import torch\n" + TRAIN.replace("RATE = 0.5", "RATE = 0.5\ntorch.Tensor.item = float")
    study = optuna.load_study(
        study_name="code-test", storage=open_storage(bench.options["storage"])
    )
    attrs = {
        "source": "llm",
        "status": "ok",
        "parent": 0,
        "source_sha256": bench.sources().save(bad),
    }
    study.add_trial(create_trial(value=1.4, user_attrs=attrs))
    history = bench.run(ScriptedChat(["no"] * 8), trials=5, tune=0.8)
    assert outcomes(history) == ["baseline", "kept"] + ["rejected"] * 3


def test_other_constants_that_train_for_longer_are_not_kept() -> None:
    trials = [finished(0, "startup", 1.0), finished(1, TUNER, 0.5)]
    for trial, seconds in zip(trials, (10.0, 14.0)):
        trial.user_attrs["measured_seconds"] = seconds
    assert outcomes(read_history(trials, min_gain=0.01)) == ["baseline", "overtime"]
