"""What a study's trials say to a model: configurations, values, and which failed.

Notation:

    n        trials
    values   (n,), lower is better whatever the study's direction; NaN where there is none
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import TrialState

from .._llm.record import announced
from .._trials.history import finished_trials
from .._trials.history import is_failure


if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials, in the order of their numbers.

    Attributes:
        configurations: Parameters of each trial.
        values: What they came to, (n,): lower is better; NaN of one that failed, was infeasible,
            was pruned before it reported anything, or is running.
        failed: Whether they failed or violate a constraint, (n,).
        running: Whether they have not finished, (n,).
        violations: Sum of the constraints that were violated, (n,); 0 where none was.
    """

    configurations: list[dict[str, Any]]
    values: np.ndarray
    failed: np.ndarray
    running: np.ndarray
    violations: np.ndarray


def read_trials(study: Study, trial: FrozenTrial) -> Trials:
    """The finished and the running trials of a study but ``trial``, the one that is sampled."""
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    finished = finished_trials(study)
    others = [
        t
        for t in study._get_trials(deepcopy=False, use_cache=True)
        if t.state == TrialState.RUNNING and t.number != trial.number
    ]
    configurations = [t.params for t in finished]
    for other in others:
        fixed = other.system_attrs.get("fixed_params", {})
        configurations.append({**announced(other), **fixed, **other.params})
    n, m = len(finished), len(others)
    values = np.full(n + m, math.nan)
    failed = np.zeros(n + m, dtype=bool)
    violations = np.zeros(n + m)
    for i, t in enumerate(finished):
        constraints = t.constraints.values()
        violations[i] = sum(max(c, 0.0) if math.isfinite(c) else 1e300 for c in constraints)
        failed[i] = is_failure(t) or violations[i] > 0
        if t.state == TrialState.COMPLETE and not failed[i]:
            values[i] = sign * t.values[0]
    running = np.arange(n + m) >= n
    return Trials(configurations, values, failed, running, violations)
