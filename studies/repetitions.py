"""Repetitions of a study's trials, and what they say of the noise between trainings.

They are the trials of a study of their own, which `studies.revalidation` makes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
import statistics
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.testbed.metric import Metric
from samplers._trials.internals import interrupted_trials
from studies.budget import charge
from studies.budget import is_evaluated
from studies.budget import is_ok
from studies.facts import REPEATS
from studies.methods import CODE_AGENT
from studies.storage.open import study_names
from studies.storage.recovery import is_given_up


SUFFIX = "-revalidated"  # of the study of the repetitions

Rank = tuple[float, float]  # of repeated trials, see `Repeated.rank`


def why_not(attrs: Mapping[str, Any]) -> str:
    """Say why a study of these attributes can't be repeated; "" if it can."""
    if "testbed_hash" not in attrs:
        return "doesn't say what it was trained with"
    file = attrs.get("metric_file")
    if attrs.get("method") == CODE_AGENT and file is not None:
        return (
            "can't be repeated: what a model wrote is trained again in a sandbox only, but writes"
            f" its metric to {file}, which is gone when that ends"
        )
    return ""


@dataclass(frozen=True)
class Repeated:
    """A trial's repetitions with fresh seeds.

    Attributes:
        values: What they came to.
        failed: How many of them failed.
        fixed: Whether all of the study came to exactly their own trials' values: the script takes
            no seed, or heeds it without effect, and repetitions say nothing about luck.
        seconds: Charged for them.
    """

    values: tuple[float, ...] = ()
    failed: int = 0
    fixed: bool = False
    seconds: float = 0.0

    @property
    def trainings(self) -> int:
        """How many there were, failures included."""
        return len(self.values) + self.failed

    @property
    def mean(self) -> float | None:
        # Not `fmean`, which differs in the last digit from values that are all alike.
        return statistics.mean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation; None where it would say nothing."""
        return statistics.stdev(self.values) if len(self.values) > 1 and not self.fixed else None

    def rank(self, metric: Metric) -> Rank:
        """Return the share that failed and the mean's cost; the least is the best configuration's.

        One that fails now and then is no winner, and one that always failed is the last.
        """
        mean = self.mean
        if mean is None:
            return math.inf, 0.0
        return self.failed / self.trainings, metric.cost(mean)


def repetitions(storage: optuna.storages.BaseStorage, study: optuna.Study) -> dict[int, Repeated]:
    """Return the repetitions of a study's trials by the trials' numbers."""
    name = study.study_name + SUFFIX
    if name not in study_names(storage):
        return {}
    again = optuna.load_study(study_name=name, storage=storage)
    value = {trial.number: trial.value for trial in study.get_trials(deepcopy=False)}
    return by_trial(again.get_trials(deepcopy=False), value)


def by_trial(
    trials: Sequence[FrozenTrial], value: Mapping[int, float | None]
) -> dict[int, Repeated]:
    """Return repetitions by the numbers of the trials that they repeat.

    Args:
        trials: The repetitions.
        value: The values of the trials by their numbers; what repeats none of them is left out.
    """
    of: defaultdict[int, list[FrozenTrial]] = defaultdict(list)
    again = interrupted_trials(trials)
    for t in trials:
        number = t.user_attrs.get(REPEATS)
        # One that was given up has failed, too: it took its process down each time.
        has_ended = is_evaluated(t) or (
            t.state == TrialState.FAIL and is_given_up(t) and t.number not in again
        )
        if isinstance(number, int) and number in value and has_ended:
            of[number].append(t)
    values = {n: tuple(t.values[0] for t in repeated if is_ok(t)) for n, repeated in of.items()}
    # One alone may come to the same by chance, where a metric has few values.
    same = [v == value[number] for number, came in values.items() for v in came]
    fixed = len(same) > 1 and all(same)
    return {
        n: Repeated(values[n], len(repeated) - len(values[n]), fixed, sum(map(charge, repeated)))
        for n, repeated in of.items()
    }


def pooled_sd(repeated: Iterable[Repeated]) -> float | None:
    """Return the standard deviation between trainings of one configuration, pooled over several."""
    known = [(len(r.values) - 1, r.sd) for r in repeated if r.sd is not None]
    weights = sum(n for n, _ in known)
    # Not by squares of its own: that of a penalty may be too large for a float.
    return math.hypot(*(math.sqrt(n / weights) * sd for n, sd in known)) if weights else None
