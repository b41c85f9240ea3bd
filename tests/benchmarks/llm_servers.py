"""A study with each server that people use, as it answers: requests, and turns that it decided.

    python -m tests.benchmarks.llm_servers

The servers are played, see ``tests/samplers/_llm/providers.py``. A check before the first trial is
the first of the requests, and one asks for the three trials of the warm start; whatever is beyond
28 requests was refused, or failed, once.
"""

from __future__ import annotations

from samplers._llm import client
from tests.benchmarks.keep import keep
from tests.samplers._llm.providers import N_TRIALS
from tests.samplers._llm.providers import PROVIDERS
from tests.samplers._llm.providers import run_study


def main() -> None:
    client.FIRST_PAUSE = 0.01
    lines = [
        f"Studies of {N_TRIALS} trials, all but the first of them the language model's turns.",
        "",
        "| server | behaviours | requests | turns | answered |",
        "|---|---|---|---|---|",
    ]
    for name, provider in PROVIDERS.items():
        outcome = run_study(provider)
        lines.append(
            f"| {name} | {provider.behaviours} | {outcome.requests} | {outcome.turns} "
            f"| {outcome.answered} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    keep("llm_servers", text)


if __name__ == "__main__":
    main()
