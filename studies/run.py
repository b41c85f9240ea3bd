"""``run``: tune a training script by one method, or go on where the same command stopped."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

from rich.console import Console
import typer

from objective import Testbed
from studies import options
from studies.budget import Budget
from studies.errors import Misuse
from studies.facts import study_facts
from studies.methods import LLM_RATIO
from studies.methods import METHODS
from studies.processes import stop_by_signal
from studies.progress import Progress
from studies.study import run_study
from studies.study import run_workers
from studies.study import StudySpec
from studies.tables import dry_run_report
from studies.tables import final_table


DEFAULT_TRIALS = 20


def run(
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="; ".join(f"{name}: {row.summary}" for name, row in METHODS.items()) + ".",
        ),
    ],
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: options.StudyName = None,
    testbed: options.TestbedFolder = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and storage, same study.")] = 0,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trials of the study in total, failures and earlier runs included. "
            f"[default: {DEFAULT_TRIALS}, if there is no --budget]",
        ),
    ] = None,
    budget: options.Budget = None,
    train_seconds: options.TrainSeconds = None,
    memory_limit: options.MemoryLimit = None,
    llm: options.Llm = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="(methods that ask a language model) Which of the server's models.",
        ),
    ] = None,
    llm_ratio: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="(centaur) Share of the trials after start-up that the language model decides.",
        ),
    ] = LLM_RATIO,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that train at the same time.")
    ] = 1,
    artifacts: options.Artifacts = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing and write nothing: print the search space and, if the method asks "
            "a language model, the first prompt, its tokens, the number of calls and their cost.",
        ),
    ] = False,
    price_in: Annotated[
        float | None, typer.Option(min=0, help="Price of a million prompt tokens, for --dry-run.")
    ] = None,
    price_out: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a million completion tokens, for --dry-run."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Tune a training script by one method.

    Trial 0 is the script as it is; the study ends after --trials or --budget. The same command
    again goes on where it was stopped, by Ctrl-C, a crash or a power failure, and several of them
    at once share the work.
    """
    if method not in METHODS:
        raise Misuse(f"--method must be one of {', '.join(METHODS)}, but got {method!r}.")
    if trials is None and budget is None:
        trials = DEFAULT_TRIALS
    script = Testbed.load(testbed)
    planned = script.constants.get("TIME_BUDGET")
    if train_seconds is None and isinstance(planned, (int, float)):
        train_seconds = float(planned)
    if budget is not None and train_seconds is not None and train_seconds > budget:
        raise Misuse(
            f"--budget must hold at least one trial of {train_seconds:g} s, but got {budget:g} s."
        )
    name = f"{method}-seed{seed}"
    spec = StudySpec(
        storage=storage,
        name=study or (name if testbed is None else f"{script.path.name}-{name}"),
        method=method,
        seed=seed,
        budget=Budget(trials, budget, train_seconds),
        testbed=testbed,
        memory_limit_mb=memory_limit,
        llm=llm,
        model=model,
        llm_ratio=llm_ratio,
        artifacts=artifacts,
    )
    if dry_run:
        _dry_run(spec, price_in, price_out, as_json)
    else:
        _run(spec, workers, as_json)


def _dry_run(
    spec: StudySpec, price_in: float | None, price_out: float | None, as_json: bool
) -> None:
    from studies.dry_run import dry_run

    facts = dry_run(spec, price_in, price_out)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        Console(soft_wrap=True).print(dry_run_report(facts))


def _run(spec: StudySpec, workers: int, as_json: bool) -> None:
    stop_by_signal()
    uses_llm = METHODS[spec.method].uses_llm
    with Progress(spec.budget, workers=workers, uses_llm=uses_llm) as progress:
        try:
            if workers == 1:
                study = run_study(spec, progress.update)
            else:
                study = run_workers(spec, workers, progress.update, progress.say)
        except KeyboardInterrupt:
            progress.console.print(f"stopped; to go on:\n  {options.this_command()}", markup=False)
            raise typer.Exit(1) from None
    facts = study_facts(study)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    Console().print(final_table(facts))
    print(f"\nto look at it:\n  {_command('status', spec)}\n  {_command('dashboard', spec)}")


def _command(name: str, spec: StudySpec) -> str:
    command = options.command(name, spec.storage)
    if name == "dashboard" and spec.artifacts is not None:
        command += f" --artifacts {shlex.quote(str(spec.artifacts))}"
    return command
