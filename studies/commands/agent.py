"""``agent``: let a language model edit a training script, one change after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies import random_steps
from studies.commands import options
from studies.errors import Misuse


def agent(
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: Annotated[
        str | None,
        typer.Option(
            "--study", metavar="NAME", help="Name of the study. [default: code-seedSEED]"
        ),
    ] = None,
    testbed: options.TestbedFolder = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the language model's replies.")] = 0,
    trials: Annotated[
        int,
        typer.Option(
            min=1, help="Trials in total: baselines, proposals that ran, proposals refused."
        ),
    ] = 20,
    train_seconds: options.TrainSeconds = None,
    wall_seconds: options.WallSeconds = None,
    memory_limit: options.MemoryLimit = None,
    baselines: Annotated[
        int,
        typer.Option(min=1, help="Runs of the unedited script, which tell the noise of a run."),
    ] = 3,
    min_gain: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="A change is kept if it improves the value by more than this. [default: two standard "
            "deviations of the baselines]",
        ),
    ] = None,
    whole_files: Annotated[
        bool,
        typer.Option(
            "--whole-files", help="Ask for whole files instead of search / replace blocks."
        ),
    ] = False,
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Run what the model wrote without any isolation."),
    ] = False,
    llm: options.Llm = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of the server's models.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that propose and train at the same time.")
    ] = 1,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the trials as karpathy/autoresearch's results.tsv."
        ),
    ] = None,
    patches: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the accepted steps as a series of patches."),
    ] = None,
    artifacts: options.Artifacts = None,
    as_json: options.Json = False,
) -> None:
    """Let a language model edit the training script.

    Each change is run in a sandbox, kept if it improves the value by more than the noise, and
    reverted otherwise. The same command again goes on where it was stopped.
    """
    from objective import Testbed
    from studies.commands.work.agent import run
    from studies.commands.work.agent import say_isolation
    from studies.commands.work.agent import tell
    from studies.spec import AgentSpec
    from studies.spec import memory_share

    if llm == random_steps.LLM:
        raise Misuse(f"--llm must be a language model here, for {llm} can't write code.")
    script = Testbed.load(testbed)
    if train_seconds is not None:
        script.require_time_budget()
    name = f"code-seed{seed}"
    if memory_limit is None:
        memory_limit = memory_share(workers)
    spec = AgentSpec(
        storage=storage,
        name=study or (name if testbed is None else f"{script.path.name}-{name}"),
        seed=seed,
        trials=trials,
        train_seconds=train_seconds,
        wall_seconds=wall_seconds,
        testbed=testbed,
        memory_limit_mb=memory_limit,
        baselines=baselines,
        min_gain=min_gain,
        whole_files=whole_files,
        unsafe=unsafe,
        llm=llm,
        model=model,
        artifacts=artifacts,
    )
    say_isolation(unsafe)
    run(spec, script, workers)
    tell(spec, script, export, patches, as_json)
