"""Speed of the embedded model with OpenVINO and with llama.cpp.

The same requests to both, in turns: a prompt that neither has read before, as long as Centaur's,
and the same one again, five times side by side, as LLAMBO asks. What is compared is the ratio: the
seconds are this machine's.

    python -m tests.benchmarks.engines [--rounds 3]

Takes about three minutes on two idle cores; prints and writes ``results/engines.md`` and
``.csv``.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import random
import statistics
import time

from samplers import Completion
from samplers import OpenAIChat
from samplers._llm import embedded
from samplers._llm.llama_cpp_server import LlamaCppServer
from samplers._llm.reply import params_schema

from .keep import keep
from .smac_cost import SPACE


ROWS = 22
SIDE_BY_SIDE = 5


def prompt(seed: int) -> str:
    rng = random.Random(seed)
    rows = [",".join(f"{rng.random():.4g}" for _ in SPACE) for _ in range(ROWS)]
    return "Trials:\n" + "\n".join(rows) + "\nReply with a JSON object of the next trial."


def ask(chat: OpenAIChat, seed: int, *, reply: bool = True) -> Completion:
    return chat.complete(
        [{"role": "user", "content": prompt(seed // 10)}],
        schema=params_schema(SPACE) if reply else None,
        max_tokens=60 if reply else 1,
        seed=seed,
    )


@dataclass
class Speeds:
    """Speeds of an engine in a round, in tokens a second.

    Attributes:
        engine: Its name.
        round: From 1 on.
        reading: Of a prompt that is new.
        alone: Of the reply to one request.
        several: Of the replies to several side by side, in all.
    """

    engine: str
    round: int
    reading: float
    alone: float
    several: float


def measure(chat: OpenAIChat, engine: str, round: int) -> Speeds:
    reading = ask(chat, 10 * round, reply=False)
    alone = ask(chat, 10 * round + 1)
    started = time.perf_counter()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        several = list(
            threads.map(lambda i: ask(chat, 10 * round + i), range(2, 2 + SIDE_BY_SIDE))
        )
    seconds = time.perf_counter() - started
    return Speeds(
        engine,
        round,
        reading.prompt_tokens / reading.seconds,
        alone.completion_tokens / alone.seconds,
        sum(c.completion_tokens for c in several) / seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    path = embedded.embedded_model()
    assert path is not None and embedded._has_openvino(), "both engines have to be installed"
    openvino = OpenAIChat(base_url=embedded.embedded_server())
    n = embedded._n_cpus()
    server = LlamaCppServer(
        path, "127.0.0.1", 0, n_threads=n, n_cpus=n, context_tokens=embedded._CONTEXT_TOKENS
    )
    llama_cpp = OpenAIChat(base_url=f"{server.listening_address}/v1")
    chats = {"OpenVINO": openvino, "llama.cpp": llama_cpp}
    for name, chat in chats.items():
        measure(chat, name, 0)  # warm
    runs = [
        measure(chat, name, round)
        for round in range(1, options.rounds + 1)
        for name, chat in chats.items()
    ]
    columns = ("reading", "alone", "several")
    fast, slow = (
        [statistics.median(getattr(r, c) for r in runs if r.engine == name) for c in columns]
        for name in chats
    )
    lines = [
        f"| engine | prompt tokens / s | reply tokens / s | of {SIDE_BY_SIDE} side by side |",
        "|---|---|---|---|",
        "| OpenVINO | " + " | ".join(f"{value:.0f}" for value in fast) + " |",
        "| llama.cpp | " + " | ".join(f"{value:.0f}" for value in slow) + " |",
        "| ratio | " + " | ".join(f"{a / b:.1f}" for a, b in zip(fast, slow)) + " |",
        "",
        f"Medians of {options.rounds} rounds, {embedded._n_cpus()} CPUs.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    keep("engines", text, runs)


if __name__ == "__main__":
    main()
