"""Studies that were made with Optuna alone, read as if a command of this project had made them.

Their objective says neither whether a trial succeeded nor what it took: that follows from the
trial's state, values and times.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import copy
from numbers import Real
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.best import has_succeeded
from objective.failure import CLASSES
from objective.failure import INFEASIBLE
from objective.failure import INTERRUPTED
from objective.testbed.metric import Metric
from samplers._llm.record import SOURCES
from studies.printable import shortened


def is_library_study(attrs: Mapping[str, Any]) -> bool:
    """Return whether no command of this project made the study with these user attributes."""
    # The first that our commands write, which may be killed, or read, before they write the others.
    # A method is what studies of other programs may have, too.
    return not any(key in attrs for key in ("testbed_hash", "imported_from", "revalidates"))


def evaluated_trials(study: optuna.Study) -> Sequence[FrozenTrial]:
    """Return the trials of any study, each that ended with its status and its seconds.

    Those of a study with several objectives are returned as they are.
    """
    trials = study.get_trials(deepcopy=False)
    if not is_library_study(study.user_attrs) or len(study.directions) > 1:
        return trials
    return [_with_status(trial) if trial.state.is_finished() else trial for trial in trials]


def metric_of(study: optuna.Study) -> Metric:
    """Return the metric of any study; it is called ``value`` where nobody named it."""
    if not is_library_study(study.user_attrs) or study.metric_names is not None:
        return Metric.of(study)
    is_higher = study.directions[0] == StudyDirection.MAXIMIZE
    return Metric("value", "maximize" if is_higher else "minimize")


def _with_status(trial: FrozenTrial) -> FrozenTrial:
    attrs = dict(trial.user_attrs)
    # Attributes of these names may be the user's own, and mean something else.
    if attrs.get("source") not in SOURCES:
        attrs.pop("source", None)
    if attrs.pop("status", None) in (*CLASSES, INTERRUPTED):
        attrs["status"] = trial.user_attrs["status"]
    elif trial.state == TrialState.FAIL:
        attrs["status"] = "crash"
    elif has_succeeded(trial):
        attrs["status"] = "ok"
    elif trial.state == TrialState.COMPLETE:
        constraints = trial.constraints.items()
        broken = {n: c for n, c in constraints if not (isinstance(c, Real) and c <= 0)}
        attrs["status"] = INFEASIBLE if broken else "nan"
        if broken:
            # Optuna takes any object; cut, a float would lose its exponent.
            listed = ", ".join(
                f"{n} is {f'{c:.6g}' if isinstance(c, float) else shortened(str(c), 20)}"
                for n, c in broken.items()
            )
            attrs.setdefault("reason", f"constraints must be at most 0, but {listed}")
    if trial.duration is not None:
        seconds = max(0.0, trial.duration.total_seconds())  # a clock may have been set back
        attrs = {"training_seconds": seconds, "total_seconds": seconds, **attrs}
    read = copy.copy(trial)
    read.user_attrs = attrs
    return read
