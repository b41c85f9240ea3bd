"""What ``agent`` does when it is called, beside what ``run`` does."""

from __future__ import annotations

import json
from pathlib import Path
import sys

import optuna
from rich.console import Console

from objective import Testbed
from objective.testbed.metric import Metric
from studies.code_agent.export import agent_facts
from studies.code_agent.export import agent_table
from studies.code_agent.export import write_patches
from studies.code_agent.export import write_results
from studies.code_agent.history import read_history
from studies.code_agent.sources import Sources
from studies.spec import Spec


def tell(
    spec: Spec,
    study: optuna.Study,
    script: Testbed,
    export: Path | None,
    patches: Path | None,
    as_json: bool,
) -> None:
    """Print what the study came to, and write what was asked for."""
    trials = study.get_trials(deepcopy=False)
    history = read_history(trials, spec.editing.min_gain, Metric.of(study))
    facts = agent_facts(history)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        Console(markup=False).print(agent_table(facts))
    if export is not None:
        write_results(history, export)
        print(f"wrote {export}", file=sys.stderr)
    if patches is not None:
        sources = Sources(spec.where.open_artifacts(), script.source)
        written = write_patches(history, sources, patches)
        print(f"wrote {len(written)} patches to {patches}", file=sys.stderr)
