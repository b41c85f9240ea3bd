"""The best trial of a study with the values that were really run, for scripts of one's own.

``study.best_params`` are the values that were suggested. Where the objective's rule changed one,
such as to a power of two, a script with the suggested value may not even run.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import suppress
import json
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.failure import CLASSES
from objective.failure import is_measured
from objective.testbed.testbed import Testbed


def has_succeeded(trial: FrozenTrial) -> bool:
    """Return whether a trial of any study has a value that counts, and is feasible."""
    return (
        trial.state == TrialState.COMPLETE
        and trial.user_attrs.get("status") not in CLASSES
        and all(map(is_measured, trial.values))
        and is_feasible(trial)
    )


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether a trial violates no constraint; what is no number is one that it violates."""
    try:
        return all(float(c) <= 0 for c in trial.constraints.values())
    except (TypeError, ValueError, OverflowError):
        return False


def values_run(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values that a trial was really run with, in the order of its parameters."""
    changed: Any = {}
    with suppress(
        TypeError, ValueError, RecursionError
    ):  # of another program, to which it means something else
        changed = json.loads(trial.user_attrs.get("effective", "{}"))
    if not isinstance(changed, dict):
        changed = {}
    # Anybody may have stored anything for it; a number stands for a number.
    sound = {
        name: value
        for name, value in changed.items()
        if name in trial.params and _is_number(value) == _is_number(trial.params[name])
    }
    return {**trial.params, **sound}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def by_value(trials: Iterable[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """Return the trials that succeeded, the best first; of equal ones the older."""
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    return sorted(filter(has_succeeded, trials), key=lambda t: (sign * t.values[0], t.number))


def best_configuration(study: optuna.Study) -> dict[str, Any]:
    """Return the values of a study's best trial as they were run.

    ::

        study.optimize(TrainScriptObjective("path/to/testbed"), n_trials=50)
        print(best_configuration(study))

    Raises:
        ValueError: If no trial has succeeded.
    """
    return values_run(_best(study))


def best_script(study: optuna.Study, testbed: Testbed | str | Path | None = None) -> str:
    """Return a testbed's script, or configuration file, with the values of a study's best trial.

    Args:
        study: A study of :class:`TrainScriptObjective`.
        testbed: The testbed, or its folder; None is the embedded one.

    Raises:
        ValueError: If no trial has succeeded.
        TestbedError: If it has no place for one of the values, or takes them by its command.
    """
    loaded = testbed if isinstance(testbed, Testbed) else Testbed.load(testbed)
    return loaded.delivery.written(loaded.source, values_run(_best(study)))[1]


def _best(study: optuna.Study) -> FrozenTrial:
    found: Sequence[FrozenTrial] = by_value(study.get_trials(deepcopy=False), study.direction)
    if not found:
        raise ValueError(f"Study {study.study_name!r} must have a successful trial, but has none.")
    return found[0]
