"""``agent``: let a language model edit a training script, one change after the other."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import sys
from typing import Annotated

import optuna
from rich.console import Console
import typer

from objective import Testbed
from objective.run.sandbox import find_sandbox
from objective.testbed.metric import Metric
from studies import random_steps
from studies.budget import Budget
from studies.code_agent.agent import run_agent
from studies.code_agent.export import agent_facts
from studies.code_agent.export import agent_table
from studies.code_agent.export import write_patches
from studies.code_agent.export import write_results
from studies.code_agent.history import read_history
from studies.code_agent.sources import Sources
from studies.commands import options
from studies.commands.progress import Progress
from studies.errors import Failed
from studies.errors import Misuse
from studies.llm import open_llm
from studies.llm import share_embedded_model
from studies.loop import Watch
from studies.spec import AgentSpec
from studies.spec import memory_share
from studies.stopping import stop_by_signal
from studies.storage.kinds import check_sharing
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage
from studies.study import open_code_study
from studies.workers.share import share_work


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
    _say_isolation(unsafe)
    _run(spec, script, workers)
    _tell(spec, script, export, patches, as_json)


def _say_isolation(unsafe: bool) -> None:
    if unsafe:
        text = "isolation: none. What the model writes can do all that you can."
    elif (sandbox := find_sandbox()) is not None:
        text = f"isolation: {sandbox.name} (no network, no files but its own, limits)"
    else:
        raise Misuse(
            "code written by a model must be isolated, but neither bubblewrap nor unshare works"
            " here: install bubblewrap (and allow user namespaces), or take the risk with --unsafe"
        )
    print(text, file=sys.stderr)


def _run(spec: AgentSpec, script: Testbed, workers: int) -> None:
    stop_by_signal()
    budget = Budget(spec.trials, None, spec.train_seconds)
    with Progress(budget, script.metric.name, workers=workers, uses_llm=True) as progress:
        try:
            if workers == 1:
                work(spec, progress.update)
                return
            check_sharing(spec.storage, workers=workers)
            study = open_code_study(spec, script, open_storage(spec.storage, patience=0))
            shared = replace(spec, llm=share_embedded_model(spec.llm, spec.model, workers))
            share_work(study, work, shared, workers, progress.update, progress.say)
        except KeyboardInterrupt:
            raise Failed(f"stopped; to go on:\n  {options.this_command()}") from None


def work(spec: AgentSpec, watch: Watch) -> None:
    """One worker's share."""
    run_agent(spec, open_llm(spec.llm, spec.model), watch)


def _tell(
    spec: AgentSpec, script: Testbed, export: Path | None, patches: Path | None, as_json: bool
) -> None:
    study = optuna.load_study(study_name=spec.name, storage=open_storage(spec.storage))
    history = read_history(study.get_trials(deepcopy=False), spec.min_gain, Metric.of(study))
    facts = agent_facts(history)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        Console(markup=False).print(agent_table(facts))
    if export is not None:
        write_results(history, export)
        print(f"wrote {export}", file=sys.stderr)
    if patches is not None:
        sources = Sources(open_artifacts(spec.storage, spec.artifacts), script.source)
        written = write_patches(history, sources, patches)
        print(f"wrote {len(written)} patches to {patches}", file=sys.stderr)
