"""A language model that reads its replies from a list, and a testbed to edit without torch."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import samplers
from samplers import Completion
from samplers._llm.chat import Message
from studies.budget import Budget
from studies.spec import Editing
from studies.spec import Limits
from studies.spec import Spec
from studies.spec import Where
from tests.toy_testbed import write_testbed


# The value is a function of the script alone, so that nothing is noise: 1 + (RATE - 0.1) ** 2,
# and 0.5 more with activation() as it is.
TRAIN = '''\
"""Trains nothing, quickly."""

import time

from prepare import evaluate_bpb
from prepare import TIME_BUDGET

RATE = 0.5
STEPS = 4


def activation(x):
    # (a remark)
    return abs(x)


def schedule(progress):
    # (a remark)
    return 1.0


def train():
    start = time.perf_counter()
    for step in range(STEPS):
        time.sleep(TIME_BUDGET / STEPS)
        share = 100 * (step + 1) / STEPS
        print(f"step {step:05d} ({share:.1f}%) | loss: {5 - step:.6f} |", flush=True)
    return time.perf_counter() - start


seconds = train()
loss = 1 + (RATE - 0.1) ** 2 + 0.25 * abs(activation(-1.0)) + 0.25 * schedule(1.0)
val_bpb = evaluate_bpb(loss)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {seconds:.3f}")
print(f"peak_vram_mb:     {12.0:.1f}")
'''
PREPARE = """\
TIME_BUDGET = 10.0


def evaluate_bpb(model):
    return float(model)
"""


def make_testbed(folder: Path) -> Path:
    task = {"task.md": "A script that trains nothing.\n"}
    return write_testbed(folder, TRAIN, PREPARE, **task)


def code_spec(
    storage: str,
    testbed: str | Path,
    trials: int,
    train_seconds: float | None = None,
    wall_seconds: float | None = None,
    memory_mb: int | None = None,
    **editing: Any,
) -> Spec:
    """A study of the code agent."""
    return Spec(
        Where(storage, testbed=Path(testbed)),
        "code-test",
        "karpathy-code",
        0,
        Budget(trials, None, train_seconds),
        Limits(memory_mb, wall_seconds),
        editing=Editing(**editing),
    )


def edit(description: str, old: str, new: str) -> str:
    return f"DESCRIPTION: {description}\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


def insert(description: str, code: str) -> str:
    """An edit that puts code at the beginning of train()."""
    body = "".join(f"    {line}\n" if line else "\n" for line in code.strip().splitlines())
    return edit(description, "def train():", f"def train():\n{body.rstrip()}")


class ScriptedChat(samplers.ScriptedChat):
    """One whose requests can be written to a file, for a process to tell of them.

    Args:
        replies: One a request.
        context_tokens: Tokens that it says its context holds.
        log: A file for the requests, a JSON line each.
    """

    def __init__(
        self, replies: Sequence[Any], context_tokens: int | None = None, log: Path | None = None
    ) -> None:
        super().__init__(replies, context_tokens=context_tokens)
        self._log = log

    def complete(self, messages: Sequence[Message], **options: Any) -> Completion:
        if self._log is not None:
            with open(self._log, "a") as file:
                file.write(json.dumps(list(messages)) + "\n")
        return super().complete(messages, **options)

    @property
    def last_prompt(self) -> str:
        return self.requests[-1].messages[-1]["content"]
