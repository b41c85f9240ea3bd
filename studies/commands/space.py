"""``space``: what may be tuned in a training script."""

from __future__ import annotations

import json
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from rich.console import Console

from objective import Testbed
from studies.commands import options
from studies.commands.tables import space_table


def space(testbed: options.TestbedFolder = None, as_json: options.Json = False) -> None:
    """Print the search space of a training script: a row per tunable constant, nothing is run."""
    rows = space_rows(Testbed.load(testbed))
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        Console(markup=False).print(space_table(rows))


def space_rows(testbed: Testbed) -> list[dict[str, Any]]:
    """The search space as plain values; what a type doesn't have is ``None``."""
    rows = []
    for name, d in testbed.space.items():
        row: dict[str, Any] = dict.fromkeys(
            ("name", "type", "low", "high", "log", "step", "choices", "default")
        )
        row.update(name=name, default=testbed.baseline[name])
        if isinstance(d, CategoricalDistribution):
            row.update(type="categorical", choices=list(d.choices))
        elif isinstance(d, (FloatDistribution, IntDistribution)):
            kind = "int" if isinstance(d, IntDistribution) else "float"
            row.update(type=kind, low=d.low, high=d.high, log=d.log, step=d.step)
        rows.append(row)
    return rows
