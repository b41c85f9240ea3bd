"""Invariants of a study, whatever died while it ran.

The trainings keep a ledger of their own, which no fault can reach: a line for each that came to its
end, with the constants that it really ran and its value. No two values are equal, so that each can
be looked for in the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.worker import WORKER
from objective.worker import worker_is_here
from studies.budget import Budget
from studies.budget import is_evaluated
from studies.budget import is_ok
from studies.facts import LLM_SOURCES


# A testbed that costs nothing. What it writes is what it ran; the value is one of a kind. Trainings
# are held while the gate is there, and say so in a file beside it.
TRAIN = """\
import json
import os
import random
import time

import prepare

DEPTH = 4
LR = 0.01

while os.path.exists("GATE-FILE"):
    open(f"GATE-FILE.{os.getpid()}", "w").close()
    time.sleep(0.02)
start = time.perf_counter()
time.sleep(prepare.TIME_BUDGET)
seconds = time.perf_counter() - start
bpb = prepare.evaluate_bpb((DEPTH - 5) ** 2 / 10 + LR + random.random() / 1000)
line = json.dumps({"DEPTH": DEPTH, "LR": LR, "value": bpb}) + "\\n"
with open("LEDGER-FILE", "a") as ledger:
    ledger.write(line)
print(f"---\\nval_bpb: {bpb:.6f}\\ntraining_seconds: {seconds:.3f}", flush=True)
"""
PREPARE = "TIME_BUDGET = 0.2\n\n\ndef evaluate_bpb(loss):\n    return 1 + loss\n"
STARTUP = 10  # of Centaur's trials
BASELINE = {"DEPTH": 4, "LR": 0.01}


def check(
    study: optuna.Study,
    ledger: Path,
    *,
    trials: int,
    kills: int = 0,
    llm_ratio: float | None = None,
) -> None:
    """Hold a study that is done to the invariants.

    Args:
        study: The study.
        ledger: What its trainings wrote.
        trials: Its budget.
        kills: Workers that were killed by SIGKILL. A training whose worker dies before it has read
            the result has no value; one a kill, at most.
        llm_ratio: The share of trials after start-up that the language model had to decide:
            exactly, since what repeats a killed trial has its turn.
    """
    stored = study.trials
    evaluated = [t for t in stored if is_evaluated(t)]
    measured = [t for t in evaluated if is_ok(t)]
    _check_values(measured, _read(ledger), kills)
    _check_states(stored)
    assert len(evaluated) == trials, "the budget is used up and not overrun"
    assert Budget(trials).is_used_up(stored)
    repeated = [t.params for t in evaluated if t.params == BASELINE]
    assert repeated == [BASELINE], "the baseline is measured once"
    assert len({tuple(t.params.values()) for t in evaluated}) == trials, "nothing is run twice"
    if llm_ratio is not None:
        turns = sum(t.user_attrs.get("source") in LLM_SOURCES for t in evaluated)
        planned = math.floor((trials - STARTUP) * llm_ratio)
        assert turns == planned


def _read(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def _check_values(
    measured: Sequence[FrozenTrial], trainings: Sequence[dict[str, Any]], kills: int
) -> None:
    values = [t.user_attrs["val_bpb"] for t in measured]
    assert values == [t.value for t in measured]
    assert len(set(values)) == len(values), "no training counts twice"
    by_value = {training["value"]: training for training in trainings}
    for trial in measured:
        ran = {name: by_value[trial.value][name] for name in trial.params}
        assert ran == trial.params, "what is stored is what was run"
    lost = by_value.keys() - set(values)
    assert len(lost) <= kills, f"finished trainings are not in the storage: {lost}"


def _check_states(trials: Sequence[FrozenTrial]) -> None:
    assert [t.number for t in trials] == list(range(len(trials)))
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            assert worker_is_here(trial.system_attrs[WORKER]), f"{trial.number} has no worker"
