"""What ``agent`` does when it is called."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import sys

import optuna
from rich.console import Console

from objective import Testbed
from objective.run.sandbox import find_sandbox
from objective.testbed.metric import Metric
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
from studies.stopping import stop_by_signal
from studies.storage.kinds import check_sharing
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage
from studies.study import open_code_study
from studies.workers.share import share_work


def say_isolation(unsafe: bool) -> None:
    """Say on stderr how code that a model writes is isolated.

    Raises:
        Misuse: If it can't be, and ``--unsafe`` doesn't say that it need not be.
    """
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


def run(spec: AgentSpec, script: Testbed, workers: int) -> None:
    """Do the study's trials, showing how far it is."""
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


def tell(
    spec: AgentSpec, script: Testbed, export: Path | None, patches: Path | None, as_json: bool
) -> None:
    """Print what the study came to, and write what was asked for."""
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
