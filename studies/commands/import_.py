"""``import``: other people's trials into a storage, as studies like our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import TYPE_CHECKING

import typer

from studies.commands import options
from studies.commands.as_json import print_json
from studies.errors import Failed
from studies.errors import Misuse


if TYPE_CHECKING:
    from studies.importing.foreign import ForeignTrial

_CHUNK = 1000  # trials in one transaction
_LONGEST_PREFIX = 50  # characters, which leave room for a method's in a name of 250


_MOST_REASONS = 20  # of one kind that are printed; --json has all of them


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON {method: {seed: [{tid, val_bpb, success, wt, DEPTH, ...}]}}, or JSON lines "
            "with backend, seed, trial_id, config, val_bpb, success, error, wall_time_seconds, "
            "timestamp; or the results.tsv of karpathy/autoresearch. Where they say status, error, "
            "source (who proposed it), llm_ratio or model, these are kept.",
        ),
    ],
    storage: options.Storage = options.DEFAULT_STORAGE,
    testbed: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The testbed that the trials ran on, for the ranges of its hyperparameters. "
            "[default: the paper's 14]",
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Put before every method's name, to tell the file's tpe from one of your own.",
        ),
    ] = "",
    direction: Annotated[
        str | None,
        typer.Option(
            metavar="minimize|maximize",
            help="(results.tsv) Whether lower or higher values of its metric are better. "
            "[default: minimize]",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Import trials that another program ran, for report and dashboard.

    A study for each method and seed, named METHOD-seedSEED. What can't be imported is counted by
    reason. The same command again imports only what is new in the file.
    """
    from rich.progress import Progress

    from objective import Testbed
    from objective.testbed.inference import PAPER_SPACE
    from objective.testbed.interface import Interface
    from objective.testbed.metric import METRIC
    from studies.commands.console import console
    from studies.importing.foreign import read_file
    from studies.importing.space import infer_space
    from studies.importing.space import stored_space
    from studies.importing.store import frozen_trial
    from studies.importing.store import KEY
    from studies.importing.store import moments_of
    from studies.importing.store import open_study
    from studies.notes import Notes
    from studies.printable import printable
    from studies.storage.bulk import add_trials
    from studies.storage.open import opened

    if len(prefix) > _LONGEST_PREFIX or printable(prefix) != prefix:
        raise Misuse(
            f"--prefix must be a text of at most {_LONGEST_PREFIX} characters that can be printed,"
            f" but got {printable(prefix[:80])!r}"
        )
    foreign = read_file(file)
    if not foreign.trials:
        counts = ", ".join(f"{count} x {reason}" for reason, count in foreign.skipped.items())
        raise Failed(f"no trial of {file} can be imported: {counts or 'it has none'}")
    judged = Interface(metric=foreign.metric, direction=direction)
    if problems := [*judged.problems(), *judged.left_open()]:
        raise Misuse(" ".join(problems))
    metric = judged.to_metric()
    if foreign.metric == METRIC.name and metric.direction != METRIC.direction:
        raise Misuse(
            f"{METRIC.name} is minimized: --direction is for a results.tsv of another metric"
        )
    known = Testbed.load(testbed).space if testbed is not None else PAPER_SPACE
    runs: dict[tuple[str, int], list[ForeignTrial]] = {}
    for trial in foreign.trials:
        runs.setdefault((f"{prefix}{trial.method}", trial.seed), []).append(trial)
    with opened(storage) as there:
        studies = {
            run: open_study(there, *run, file.name, trials, metric, options.this_command())
            for run, trials in runs.items()
        }
        stored = {run: study.get_trials(deepcopy=False) for run, study in studies.items()}
        space = infer_space(foreign.trials, known, stored_space(stored.values()), foreign.notes)

        imported: dict[str, int] = {}
        known_before = 0
        out = console(stderr=True)
        with Progress(console=out, transient=True, disable=not out.is_terminal) as progress:
            bar = progress.add_task("importing", total=len(foreign.trials))
            for run, trials in runs.items():
                study = studies[run]
                keys = {trial.system_attrs.get(KEY) for trial in stored[run]}
                moments = moments_of(trials, foreign.notes)
                new = [
                    frozen_trial(trial, space, ended, foreign.notes, metric)
                    for trial, ended in sorted(zip(trials, moments), key=lambda pair: pair[1])
                    if trial.key not in keys
                ]
                known_before += len(trials) - len(new)
                progress.advance(bar, len(trials) - len(new))
                for start in range(0, len(new), _CHUNK):
                    add_trials(study, there, new[start : start + _CHUNK])
                    progress.advance(bar, len(new[start : start + _CHUNK]))
                Notes(study, there).write(study.get_trials(deepcopy=False))
                imported[study.study_name] = len(new)
    facts = {
        "file": str(file),
        "imported": sum(imported.values()),
        "already_there": known_before,
        "skipped": dict(foreign.skipped),
        "notes": dict(foreign.notes),
        "studies": imported,
    }
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _print(facts: Mapping[str, Any]) -> None:
    there = f", {facts['already_there']} were there before" if facts["already_there"] else ""
    print(f"{facts['imported']} trials imported into {len(facts['studies'])} studies{there}")
    for heading, counts in (
        ("not imported", facts["skipped"]),
        ("imported otherwise than written", facts["notes"]),
    ):
        if counts:
            print(f"{heading}:")
            reasons = sorted(counts.items(), key=lambda item: -item[1])
            for reason, count in reasons[:_MOST_REASONS]:
                print(f"  {count:>6}  {' '.join(reason.split())}")
            if others := reasons[_MOST_REASONS:]:
                print(f"  {sum(count for _, count in others):>6}  for {len(others)} more reasons")
