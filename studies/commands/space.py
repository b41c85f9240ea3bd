"""``space``: show the search space of a training script."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from studies.commands import options
from studies.commands.as_json import print_json


def space(
    testbed: options.TestbedFolder = None,
    script_command: options.Command = None,
    config: options.Config = None,
    metric: options.MetricName = None,
    direction: options.DirectionName = None,
    metric_file: options.MetricFile = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Print a search_space.toml that says the same, these options included, to be edited "
            "and put beside train.py. A constant without a table in it keeps the range that is shown here; "
            "`tune = false` in a table leaves its constant alone.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show which constants of a training script are tuned in which ranges; nothing is run.

    Below them are the others, each with the reason why it isn't tuned (which only they have in
    the JSON), and what the script is judged by.
    """
    from objective import Testbed
    from objective.preflight import missing_metric
    from objective.preflight import unread_variables
    from objective.testbed.interface import Interface
    from objective.testbed.search_space import to_toml
    from studies.commands.console import console
    from studies.commands.tables import left_out_table
    from studies.commands.tables import space_rows
    from studies.commands.tables import space_table
    from studies.printable import printable

    read = options.config_path(config, testbed)
    interface = Interface(script_command, read, metric, direction, metric_file)
    loaded = Testbed.load(testbed, interface=interface)
    rows, others = space_rows(loaded), loaded.left_out
    if write:
        said = replace(loaded.file, interface=loaded.interface)
        print(to_toml(loaded.space, loaded.baseline, loaded.rule, said))
        for name, why in others.items():
            print(f"# {name} is not tuned: {why}.")
    elif as_json:
        nothing = dict.fromkeys(rows[0])
        left_out = [{**nothing, "name": name, "reason": why} for name, why in others.items()]
        print_json([*rows, *left_out])
    else:
        out = console()
        out.print(space_table(rows))
        if others:
            out.print(left_out_table(others))
        judged = f"Judged by {loaded.metric}: {loaded.metric.better} is better."
        for line in filter(None, (judged, missing_metric(loaded), *unread_variables(loaded))):
            out.print(printable(line), markup=False, highlight=False)
