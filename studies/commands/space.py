"""``space``: show the search space of a training script."""

from __future__ import annotations

import json

from studies.commands import options


def space(testbed: options.TestbedFolder = None, as_json: options.Json = False) -> None:
    """Print the search space of a training script: a row per tunable constant, nothing is run."""
    from rich.console import Console

    from objective import Testbed
    from studies.commands.tables import space_rows
    from studies.commands.tables import space_table

    rows = space_rows(Testbed.load(testbed))
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        Console(markup=False).print(space_table(rows))
