"""The runs of a comparison, read from a storage: one study is one run of a method with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
import json
import math
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from studies.budget import charge
from studies.budget import is_evaluated
from studies.budget import is_ok


@dataclass(frozen=True)
class Row:
    """One evaluated trial.

    Attributes:
        number: The trial's number.
        value: Bits per byte; NaN if it failed.
        status: ``ok`` or the failure's class.
        source: Who decided the parameters, ``""`` if nobody said.
        params: The values that were really run.
        hours: Charged training time of the run up to this trial's end.
        attrs: The trial's user attributes.
    """

    number: int
    value: float
    status: str
    source: str
    params: dict[str, Any]
    hours: float
    attrs: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class Run:
    """One study.

    Attributes:
        study: Its name.
        method: Its method, with what else sets it apart (an LLM ratio, a model).
        seed: Its seed; runs of two methods with one seed are a pair.
        rows: The evaluated trials in the order in which they ended.
        facts: The study's user attributes.
    """

    study: str
    method: str
    seed: int
    rows: tuple[Row, ...]
    facts: dict[str, Any]

    @cached_property
    def incumbents(self) -> list[Row]:
        """The trials that were the best so far when they ended, in order."""
        found: list[Row] = []
        for row in self.rows:
            if row.ok and (not found or row.value < found[-1].value):
                found.append(row)
        return found

    @property
    def hours(self) -> float:
        return self.rows[-1].hours if self.rows else 0.0

    def best(self, hours: float = math.inf) -> float:
        """Best value within a training time; NaN if nothing succeeded by then."""
        values = [row.value for row in self.incumbents if row.hours <= hours]
        return values[-1] if values else math.nan

    def distinct(self) -> int:
        """How many different configurations were run."""
        return len({json.dumps(row.params, sort_keys=True) for row in self.rows})


def load_runs(storage: optuna.storages.BaseStorage) -> list[Run]:
    """Every study of a storage that has a method and an evaluated trial, by method and seed."""
    runs = []
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        facts = study.user_attrs
        rows = _rows(study.get_trials(deepcopy=False))
        if rows and "method" in facts:
            runs.append(Run(name, _label(facts), int(facts.get("seed", 0)), rows, facts))
    return sorted(runs, key=lambda run: (run.method, run.seed, run.study))


def _label(facts: dict[str, Any]) -> str:
    """The method's name, and what a study of the same method may vary."""
    extras = [str(facts[key]) for key in ("model", "variant") if facts.get(key)]
    if facts.get("llm_ratio", 0.3) != 0.3:
        extras.append(f"r={facts['llm_ratio']:g}")
    return " ".join([str(facts["method"]), *(f"[{extra}]" for extra in extras)])


def _rows(trials: Sequence[FrozenTrial]) -> tuple[Row, ...]:
    evaluated = [t for t in trials if is_evaluated(t)]
    evaluated.sort(key=lambda t: (t.datetime_complete or datetime.max, t.number))
    rows, seconds = [], 0.0
    for trial in evaluated:
        seconds += charge(trial)
        attrs = trial.user_attrs
        rows.append(
            Row(
                number=trial.number,
                value=float(attrs["val_bpb"]) if is_ok(trial) else math.nan,
                status=str(attrs.get("status", trial.state.name.lower())),
                source=str(attrs.get("source", "")),
                params={**trial.params, **json.loads(attrs.get("effective", "{}"))},
                hours=seconds / 3600,
                attrs=attrs,
            )
        )
    return tuple(rows)
