"""``status``: how the studies of a storage stand."""

from __future__ import annotations

import json

import optuna
from rich.console import Console

from objective.storage import open_storage
from studies import options
from studies.facts import study_facts
from studies.tables import comparison_lines
from studies.tables import status_table


def status(
    storage: options.Storage = options.DEFAULT_STORAGE, as_json: options.Json = False
) -> None:
    """Show every study of a storage: trials by state, failures by class, best, budget, LLM turns.

    Of comparisons also what is done, failed and missing.
    """
    opened = open_storage(storage, must_exist=True)
    facts = [
        study_facts(optuna.load_study(study_name=name, storage=opened))
        for name in optuna.get_all_study_names(opened)
    ]
    if as_json:
        print(json.dumps(facts, indent=2))
    elif facts:
        Console().print(status_table(facts))
        for line in comparison_lines(facts):
            print(line)
    else:
        print(
            f"There is no study in {storage} yet: python -m studies run --method tpe --trials 20"
        )
