"""Costs of CentaurSampler when the model is not asked, and of its import.

A turn is a whole trial of an objective that costs nothing, so that the sampler's storage accesses
count. CmaEsSampler and CentaurSampler take turns block by block in the same process, each on a
study of its own, so that what else the machine does hits both alike; the ratio is of the summed
seconds, and its spread is over repetitions.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.centaur_overhead

Takes about three minutes; prints and writes ``results/centaur_overhead.md``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING
import warnings

import optuna

from samplers.centaur import CentaurSampler

from .keep import keep
from .smac_cost import SPACE


if TYPE_CHECKING:
    from collections.abc import Callable

N_TRIALS = 600
BLOCK = 10
REPETITIONS = {"memory": 5, "SQLite": 3}
IMPORTS = 15


def objective(trial: optuna.Trial) -> float:
    return float(
        sum(
            isinstance(trial._suggest(name, d), str) or trial.params[name]
            for name, d in SPACE.items()
        )
    )


def seconds(storages: list[str | None]) -> list[float]:
    """Seconds that 600 trials take with CmaEsSampler and with CentaurSampler."""
    samplers: list[Callable[[], optuna.samplers.BaseSampler]] = [
        lambda: optuna.samplers.CmaEsSampler(seed=0, warn_independent_sampling=False),
        lambda: CentaurSampler(llm_ratio=0, seed=0),
    ]
    studies = [
        optuna.create_study(storage=storage, sampler=sampler())
        for storage, sampler in zip(storages, samplers)
    ]
    spent = [0.0, 0.0]
    for block in range(N_TRIALS // BLOCK):
        # Who goes first alternates.
        for i in (0, 1) if block % 2 else (1, 0):
            start = time.perf_counter()
            studies[i].optimize(objective, n_trials=BLOCK)
            spent[i] += time.perf_counter() - start
    assert [t.params for t in studies[0].trials] == [t.params for t in studies[1].trials]
    return spent


def import_seconds(statement: str) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    )


def main() -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines = [
        f"{N_TRIALS} trials of {len(SPACE)} parameters, `llm_ratio=0`; milliseconds a trial:",
        "",
        "| storage | CmaEsSampler | CentaurSampler | ratio (median) | ratios |",
        "|---|---|---|---|---|",
    ]
    for name, repetitions in REPETITIONS.items():
        spent = []
        for _ in range(repetitions):
            with tempfile.TemporaryDirectory() as folder:
                urls = [f"sqlite:///{folder}/{i}.db" for i in range(2)]
                spent.append(seconds(list(urls) if name == "SQLite" else [None, None]))
        ratios = [ours / theirs for theirs, ours in spent]
        theirs, ours = (1000 * statistics.median(s) / N_TRIALS for s in zip(*spent))
        told = ", ".join(f"{r:.2f}" for r in ratios)
        lines.append(
            f"| {name} | {theirs:.2f} | {ours:.2f} | {statistics.median(ratios):.2f} | {told} |"
        )
    pairs = [
        (
            import_seconds("import optuna, cmaes; optuna.samplers.CmaEsSampler"),
            import_seconds("from samplers import CentaurSampler; import optuna, cmaes"),
        )
        for _ in range(IMPORTS)
    ]
    theirs, ours = (statistics.median(p) for p in zip(*pairs))
    lines += [
        "",
        f"`import optuna, cmaes`: {theirs:.2f} s; `from samplers import CentaurSampler`: "
        f"{ours:.2f} s, ratio {statistics.median(b / a for a, b in pairs):.2f} (median of "
        f"{IMPORTS} pairs of fresh processes).",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    keep("centaur_overhead", text)


if __name__ == "__main__":
    main()
