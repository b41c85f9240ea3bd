"""``import``: other people's trials into a storage, as studies like our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from importlib.metadata import version
import json
from pathlib import Path
from typing import Annotated
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import Progress
import typer

from objective import Testbed
from objective.testbed.metric import METRIC
from objective.testbed.search_space import PAPER_SPACE
from studies.commands import options
from studies.errors import Failed
from studies.errors import Misuse
from studies.importing.foreign import FAILURE_VALUE
from studies.importing.foreign import ForeignTrial
from studies.importing.foreign import read_file
from studies.importing.space import fits
from studies.importing.space import infer_space
from studies.importing.space import stored_space
from studies.storage.bulk import add_trials
from studies.storage.open import open_storage


KEY = "import:key"  # system attribute: which of a file's trials it is
_CHUNK = 1000  # trials in one transaction
# Trials without a time of their own end one after the other, from here on.
_EPOCH = datetime(2000, 1, 1)


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON {method: {seed: [{tid, val_bpb, success, wt, DEPTH, ...}]}}, or JSON lines "
            "with backend, seed, trial_id, config, val_bpb, success, error, wall_time_seconds, "
            "timestamp.",
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
    as_json: options.Json = False,
) -> None:
    """Import trials that another program ran, for report and dashboard.

    A study for each method and seed, named METHOD-seedSEED. What can't be imported is counted by
    reason. The same command again imports only what is new in the file.
    """
    foreign = read_file(file)
    if not foreign.trials:
        raise Failed(f"no trial of {file} can be imported: {_counts(foreign.skipped)}")
    opened = open_storage(storage)
    known = Testbed.load(testbed).space if testbed is not None else PAPER_SPACE
    runs: dict[tuple[str, int], list[ForeignTrial]] = {}
    for trial in foreign.trials:
        runs.setdefault((f"{prefix}{trial.method}", trial.seed), []).append(trial)
    studies = {run: _open_study(opened, *run, file.name) for run in runs}
    stored = {run: study.get_trials(deepcopy=False) for run, study in studies.items()}
    space = infer_space(foreign.trials, known, stored_space(stored.values()), foreign.notes)

    imported: dict[str, int] = {}
    there = 0
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("importing", total=len(foreign.trials))
        for run, trials in runs.items():
            study = studies[run]
            keys = {trial.system_attrs.get(KEY) for trial in stored[run]}
            moments = _moments(trials, foreign.notes)
            new = [
                _frozen(trial, space, ended, foreign.notes)
                for trial, ended in sorted(zip(trials, moments), key=lambda pair: pair[1])
                if trial.key not in keys
            ]
            there += len(trials) - len(new)
            progress.advance(bar, len(trials) - len(new))
            for start in range(0, len(new), _CHUNK):
                add_trials(study, opened, new[start : start + _CHUNK])
                progress.advance(bar, len(new[start : start + _CHUNK]))
            imported[study.study_name] = len(new)
    facts = {
        "file": str(file),
        "imported": sum(imported.values()),
        "already_there": there,
        "skipped": dict(foreign.skipped),
        "notes": dict(foreign.notes),
        "studies": imported,
    }
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)


def _open_study(storage: BaseStorage, method: str, seed: int, file: str) -> optuna.Study:
    study = optuna.create_study(
        storage=storage,
        study_name=f"{method}-seed{seed}",
        direction="minimize",
        load_if_exists=True,
    )
    attrs = study.user_attrs
    if "imported_from" not in attrs and (attrs or study.get_trials(deepcopy=False)):
        raise Misuse(
            f"study {study.study_name!r} of --storage is no import, and trials of other programs"
            " don't belong among its own; choose another --storage or a --prefix"
        )
    METRIC.name_in(study)
    facts = {
        "imported_from": file,
        "method": method,
        "seed": seed,
        "version": version("optuna-autoresearch"),
    }
    for name, value in facts.items():
        if name not in attrs:
            study.set_user_attr(name, value)
    return study


def _moments(trials: Sequence[ForeignTrial], notes: Counter[str]) -> list[datetime]:
    """When the trials of a study ended, by the file if it says so of every one.

    Else they end one after the other, in the file's order: the order is what best-so-far curves
    need. Trials of one moment keep the file's order too.
    """
    moments = [trial.ended for trial in trials if trial.ended is not None]
    if len(moments) == len(trials):
        return moments
    if moments:
        notes["a study with times for some trials only: dates are made up"] += 1
    end, made_up = _EPOCH, []
    for trial in trials:
        end += timedelta(seconds=max(trial.seconds, 0.001))
        made_up.append(end)
    return made_up


def _frozen(
    trial: ForeignTrial,
    space: Mapping[str, BaseDistribution],
    ended: datetime,
    notes: Counter[str],
) -> FrozenTrial:
    """A trial with the attributes that our own objective would have given it."""
    params: dict[str, Any] = {}
    for name, value in trial.params.items():
        if name not in space:
            continue
        distribution = space[name]
        if not fits(value, distribution):
            notes[f"{name}: a value left out that isn't in its range"] += 1
        elif isinstance(distribution, CategoricalDistribution):
            params[name] = value
        else:
            params[name] = (
                int(value) if isinstance(distribution, IntDistribution) else float(value)
            )
    attrs: dict[str, Any] = {
        "training_seconds": trial.seconds,
        "total_seconds": trial.seconds,
        "status": trial.status,
        "tid": trial.tid,
    }
    if trial.reason:
        attrs["reason"] = trial.reason
    if trial.val_bpb is not None:
        attrs[METRIC.name] = trial.val_bpb
    frozen = create_trial(
        state=TrialState.COMPLETE,
        value=FAILURE_VALUE if trial.val_bpb is None else trial.val_bpb,
        params=params,
        distributions={name: space[name] for name in params},
        user_attrs=attrs,
        system_attrs={KEY: trial.key},
    )
    frozen.datetime_start = ended - timedelta(seconds=trial.seconds)
    frozen.datetime_complete = ended
    return frozen


def _print(facts: Mapping[str, Any]) -> None:
    there = f", {facts['already_there']} were there before" if facts["already_there"] else ""
    print(f"{facts['imported']} trials imported into {len(facts['studies'])} studies{there}")
    for heading, counts in (
        ("not imported", facts["skipped"]),
        ("imported otherwise than written", facts["notes"]),
    ):
        if counts:
            print(f"{heading}:")
            for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
                print(f"  {count:>6}  {reason}")


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.items()) or "it has none"
