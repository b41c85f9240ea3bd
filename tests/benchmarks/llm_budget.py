"""Requests, characters, tokens and seconds of a language model per trial after a long history.

    python -m tests.benchmarks.llm_budget [TRIALS ...] [--scripted]

For each method a study on the embedded testbed's search space gets that many stored trials (500 by
default; random, a fifth of them out of memory, the scores of an analytic function), then
a few trials more, whose requests are counted. The model is the one that ``default_chat`` finds;
``--scripted`` takes one that answers every schema at once, which leaves only the counts to look at.
The first trial finds no cached prefix, the later ones what their predecessors left.

Takes about five minutes with the embedded model on two idle cores; prints and writes
``results/llm_budget.md`` and ``.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
import math
import time
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.trial import create_trial

from objective import Testbed
from samplers import CentaurSampler
from samplers import KarpathyAgentSampler
from samplers import LLAMBOSampler
from samplers._llm.connect import default_chat
from samplers._llm.schema_chat import SchemaChat

from .keep import keep


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from samplers import Chat
    from samplers import Completion
    from samplers._llm.chat import Message

MEASURED = 5  # trials of each method after the stored ones
METHODS = ("llambo-paper", "llambo-optunahub", "karpathy-hp", "centaur")
HUB: dict[str, Any] = {
    "labels": "binary",
    "warm_start": "random",
    "categoricals": "random",
    "failures": "hidden",
}
# From the published runs, by the logs of their requests.
REFERENCES = """\
| reference implementation | requests | prompt characters | reply characters |
|---|---|---|---|
| LLAMBO (Paper) | 12 | about 420,000 | about 12,000 |
| LLAMBO (Optuna) | 24 to 25 | about 400,000 | about 22,000 |
| Karpathy agent, 14 hyperparameters | 1 | about 9,000 | about 400 |
"""


class CountingChat:
    """Passes everything on, and keeps the size of each prompt."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.characters: list[int] = []
        self.tokens: list[int] = []

    @property
    def model(self) -> str:
        return self._chat.model

    @property
    def context_tokens(self) -> int | None:
        return self._chat.context_tokens

    def count_tokens(self, text: str) -> int:
        return self._chat.count_tokens(text)

    def complete(self, messages: Sequence[Message], **kwargs: Any) -> Completion:
        self.characters.append(sum(len(m["content"]) for m in messages))
        completion = self._chat.complete(messages, **kwargs)
        self.tokens.append(completion.prompt_tokens)
        return completion


def score(params: Mapping[str, Any], rng: np.random.Generator) -> float:
    """Something with a known best, in the range of bits per byte."""
    rate = abs(math.log10(params["MATRIX_LR"] / 0.04))
    return 1.0 + 0.1 * rate + 0.01 * abs(params["DEPTH"] - 4) + 0.002 * float(rng.normal())


def study_with_history(
    sampler: optuna.samplers.BaseSampler, testbed: Testbed, n: int
) -> optuna.Study:
    study = optuna.create_study(sampler=sampler)
    rng = np.random.default_rng(0)
    draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n):
        params = draws.ask(testbed.space).params
        failed = rng.random() < 0.2
        study.add_trial(
            create_trial(
                params=params,
                distributions=testbed.space,
                value=100.0 if failed else score(params, rng),
                user_attrs={"status": "oom" if failed else "ok"},
            )
        )
    return study


@dataclass
class Turn:
    """The requests of one trial.

    Attributes:
        method: A method of ``studies``.
        stored: Trials that the study began with.
        trial: The trial's number, counted from those.
        requests: Sent to the server.
        characters: Of their prompts together.
        prompt_tokens, reply_tokens: Of all of them.
        largest: Prompt tokens of the largest one.
        seconds: That the suggestion took.
        source: Who decided the trial.
    """

    method: str
    stored: int
    trial: int
    requests: int
    characters: int
    prompt_tokens: int
    largest: int
    reply_tokens: int
    seconds: float
    source: str


def measure(method: str, chat: Chat, testbed: Testbed, n: int) -> Iterator[Turn]:
    """``MEASURED`` trials after ``n`` stored ones."""
    counting = CountingChat(chat)
    arguments: dict[str, Any] = {
        "chat": counting,
        "task": testbed.task,
        "rule": testbed.rule,
        "seed": 0,
    }
    sampler: optuna.samplers.BaseSampler
    if method == "karpathy-hp":
        sampler = KarpathyAgentSampler(**arguments)
    elif method == "centaur":
        sampler = CentaurSampler(**arguments, llm_ratio=1.0)
    else:
        sampler = LLAMBOSampler(**arguments, **(HUB if method == "llambo-optunahub" else {}))
    study = study_with_history(sampler, testbed, n)
    rng = np.random.default_rng(1)
    for i in range(MEASURED):
        counting.characters.clear()
        counting.tokens.clear()
        start = time.perf_counter()
        trial = study.ask(testbed.space)
        seconds = time.perf_counter() - start
        study.tell(trial, score(trial.params, rng))
        facts = study.trials[-1].user_attrs
        yield Turn(
            method,
            n,
            i,
            len(counting.characters),
            sum(counting.characters),
            facts["llm_prompt_tokens"],
            max(counting.tokens),
            facts["llm_completion_tokens"],
            seconds,
            facts["source"],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trials", type=int, nargs="*", default=[500])
    parser.add_argument("--scripted", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    testbed = Testbed.load()
    chat: Chat = SchemaChat() if options.scripted else default_chat()
    lines = [
        f"Model: {chat.model}.",
        "",
        "| method | stored trials | requests | prompt characters | prompt tokens | largest request "
        "| reply tokens | seconds | source |",
        "|" + "---|" * 9,
    ]
    print("\n".join(lines))
    turns = []
    for n in options.trials:
        for method in METHODS:
            for turn in measure(method, chat, testbed, n):
                turns.append(turn)
                lines.append(
                    f"| {turn.method} | {turn.stored} + {turn.trial} | {turn.requests} "
                    f"| {turn.characters:,} | {turn.prompt_tokens:,} | {turn.largest:,} "
                    f"| {turn.reply_tokens:,} | {turn.seconds:.1f} | {turn.source} |"
                )
                print(lines[-1], flush=True)
    print(f"\n{REFERENCES}", end="")
    if not options.scripted:
        keep("llm_budget", "\n".join(lines) + f"\n\n{REFERENCES}", turns)


if __name__ == "__main__":
    main()
