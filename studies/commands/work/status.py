"""The screen of ``status --watch``: the studies' states, running trials and rates."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
import time

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from rich.console import Group
from rich.live import Live

from objective.worker import WORKER
from studies.budget import is_evaluated
from studies.code_agent.history import best_of
from studies.commands.console import console
from studies.commands.progress import clock
from studies.commands.tables import status_lines
from studies.commands.tables import status_table
from studies.errors import explain
from studies.facts import LLM_SOURCES
from studies.facts import study_facts
from studies.storage.open import is_snapshot
from studies.storage.open import opened
from studies.storage.open import read_each
from studies.storage.recovery import abandoned
from studies.storage.recovery import age_of


WATCH_SECONDS = 2.0
_RECENT = 20  # trials that a rate is computed from


def watch(url: str, doctor: str) -> None:
    """Show the studies of a storage anew every `WATCH_SECONDS` until Ctrl-C.

    Args:
        url: The storage's.
        doctor: The command that looks for faults in it.
    """
    with Live(console=console(), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            with opened(url, read_only=True, patience=0) as storage:
                while True:
                    try:
                        live.update(screen(storage, doctor), refresh=True)
                    except optuna.exceptions.StorageInternalError as error:
                        live.console.print(explain(error)[0])
                    time.sleep(WATCH_SECONDS)
                    if is_snapshot(storage):
                        break


def screen(storage: BaseStorage, doctor: str) -> Group:
    """Build the screen of ``--watch``."""
    unreadable: list[str] = []
    read = read_each(
        storage, lambda s: (study_facts(s, best_of), live_lines(s, doctor)), unreadable.append
    )
    facts = [of_study for of_study, _ in read]
    lines = [line for _, lines in read for line in lines] + unreadable
    return Group(status_table(facts), *status_lines(facts), *lines)


def live_lines(study: optuna.Study, doctor: str) -> list[str]:
    """Write a line for each running trial of a study, and one for the rates."""
    trials = study.get_trials(deepcopy=False)
    running = [t for t in trials if t.state == TrialState.RUNNING]
    lost = abandoned(study)
    lines = []
    for trial in running:
        mark = trial.system_attrs.get(WORKER)
        worker = f"process {mark[1]} on {mark[0].partition('/')[0]}" if mark else "another program"
        age = clock(age_of(trial).total_seconds())
        lines.append(f"{study.study_name}: trial {trial.number} runs for {age}, {worker}")
        if trial.number in lost:
            lines[-1] += f"; abandoned: {lost[trial.number]} ({doctor})"
    if running:
        parts = [f"{trials_an_hour(trials):.0f} trials an hour"]
        turns = [t for t in trials if t.user_attrs.get("source") in LLM_SOURCES][-_RECENT:]
        if turns:
            errors = sum(t.user_attrs["source"] == "llm-error" for t in turns)
            parts.append(f"the language model failed in {errors} of its last {len(turns)} turns")
        lines.append(f"{study.study_name}: {', '.join(parts)}")
    return lines


def trials_an_hour(trials: Sequence[FrozenTrial]) -> float:
    """Return the rate at which the last `_RECENT` trials ended."""
    done = (t.datetime_complete for t in trials if is_evaluated(t))
    ends = sorted(end.timestamp() for end in done if end)[-_RECENT:]
    span = ends[-1] - ends[0] if ends else 0.0
    return (len(ends) - 1) / span * 3600 if span > 0 else 0.0
