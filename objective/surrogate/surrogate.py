"""A testbed in a millisecond: a model of its stored trials, and an objective that asks it.

Predictions from a configuration's effective values (after the testbed's rule):

======== ==========================================================================================
value    log of the metric of the successes: a Gaussian process, or quadratic ridge regression
status   ``ok`` and the classes of failure: logistic regression, linear or quadratic
seconds  log seconds of the successes, of training and in total: quadratic ridge regression. A
         failure takes the median of its class
======== ==========================================================================================

Of two models the one with the better cross-validated score is taken (R2 of the log value; log
loss), with whole studies left out, and what other studies have of their configurations: a method's
trials crowd around its own best, so that a trial is predicted too easily from its neighbours of the
same study. Forests and boosted trees are less good
and take 3 to 40 ms for a single configuration (tests/benchmarks/surrogate_models.py).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.failure import FailureValue
from objective.failure import score
from objective.failure import store_constraint
from objective.failure import violation
from objective.failure import WORST
from objective.suggesting import suggest_effective
from objective.surrogate.data_set import DataSet
from objective.surrogate.data_set import DataSetError
from objective.surrogate.data_set import no_data_set
from objective.surrogate.models import Logistic
from objective.surrogate.models import QuadraticRidge
from objective.surrogate.models import Score
from objective.surrogate.models import Table
from objective.surrogate.models import VALUE_MODELS
from objective.testbed.derived import Derived


_MIN_SECONDS = 1e-3  # imported trials may lack a time, and zero has no logarithm

SHIPPED = Path(__file__).parent / "data" / "embedded.json.xz"


@dataclass(frozen=True)
class Evaluation:
    """The predicted result of a training.

    Attributes:
        status: ``ok`` or the class of a failure.
        value: Of the metric; None if it failed.
        training_seconds: Charged to the budget: training if ok, else the whole run.
        total_seconds: Of the whole run.
    """

    status: str
    value: float | None
    training_seconds: float
    total_seconds: float


class Surrogate:
    """A model of a testbed's trials; immutable.

    Args:
        data: Trials with what was learned from them: of `fit_surrogate` or :meth:`load`.

    Attributes:
        data: The same.
        space, baseline, task, rule, metric, derived: As in :class:`Testbed`.
        scores: Cross-validated, a row per target and model.
        noise_sd: Standard deviation of the metric's logarithm between runs of one configuration, pooled
            over those of the better half that ran repeatedly; 0.0 if none did.
    """

    def __init__(self, data: DataSet) -> None:
        if not data.fit:
            raise DataSetError("A surrogate needs a data set with a fit: use fit_surrogate.")
        self.data = data
        self.space: dict[str, BaseDistribution] = data.space
        self.baseline: dict[str, Any] = data.baseline
        self.task = data.task
        self.rule = data.rule
        self.derived = Derived.of(None, data.baseline, data.rule.constants)
        self.metric = data.metric
        self.scores = tuple(Score(**row) for row in data.fit["scores"])
        self.noise_sd = float(data.fit["noise_sd"])
        table = table_of(data)
        self._encode = _Encoder(data.space)
        self._value = VALUE_MODELS[data.fit["value"]["model"]](
            table.x[table.ok], np.log(table.values), data.fit["value"]
        )
        self._seconds = [
            QuadraticRidge(table.x[table.ok], np.log(seconds), fit)
            for seconds, fit in zip(table.seconds.T, data.fit["seconds"])
        ]
        self._status = Logistic(table.x, table.status, data.fit["status"])
        self._failure_seconds = {
            status: float(data.fit["failure_seconds"][status])
            for status in self._status.classes
            if status != "ok"
        }

    @classmethod
    def load(cls, path: Path | None = None) -> Surrogate:
        """Load a file that ``optuna-autoresearch surrogate`` wrote; None is the project's own.

        Raises:
            DataSetError: If there is no such file or it is something else.
        """
        if path is None:
            path = SHIPPED
            if not path.exists():
                raise DataSetError(
                    "No surrogate of the embedded testbed is installed; make one of your own"
                    " trials by `optuna-autoresearch surrogate --storage URL --out FILE`."
                )
        data = DataSet.read(path)
        try:
            surrogate = cls(data)
            surrogate(data.baseline)  # whatever is not as it should be is found now
        except DataSetError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            raise no_data_set(path) from None
        return surrogate

    def probabilities(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return the probability of ``ok`` and of each class of failure."""
        x = self._encode(self.rule(params))
        return dict(zip(self._status.classes, self._status.probabilities(x[None])[0].tolist()))

    def __call__(
        self, params: Mapping[str, Any], rng: np.random.Generator | None = None
    ) -> Evaluation:
        """Evaluate a configuration.

        Args:
            params: A value for each name of the search space.
            rng: Draws the status by its probabilities and adds noise to the value. None gives
                the most probable status and the value without noise.
        """
        x = self._encode(self.rule(params))[None]
        classes, p = self._status.classes, self._status.probabilities(x)[0]
        # Both are drawn whatever comes of it, so that the noise of a trial is the same anywhere.
        u, noise = (0.0, 0.0) if rng is None else (rng.random(), rng.normal())
        at = int(np.argmax(p)) if rng is None else int(np.searchsorted(np.cumsum(p), u * p.sum()))
        status = classes[min(at, len(classes) - 1)]
        if status != "ok":
            seconds = self._failure_seconds[status]
            return Evaluation(status, None, seconds, seconds)
        value = math.exp(self._value.predict(x)[0] + self.noise_sd * noise)
        training, total = (math.exp(model.predict(x)[0]) for model in self._seconds)
        return Evaluation("ok", value, round(training, 3), round(max(training, total), 3))


class SurrogateObjective:
    """Asks a surrogate for what :class:`TrainScriptObjective` would train for.

    ::

        study.optimize(SurrogateObjective(), n_trials=300)

    Every trial gets the user attributes ``status``, ``reason``, the metric by its name,
    ``training_seconds``, ``total_seconds`` and ``effective`` that a training gives it, each where
    there is something to say. The same trial number has the same noise in every run with the same ``train_seed``.

    Args:
        surrogate: The model, its file, or None for the project's own.
        noise: Whether the status is drawn by its probabilities, and the value with the noise
            that there is between two trainings with one configuration. If not, a configuration
            always has its most probable status and the same value.
        failure_value: As in :class:`TrainScriptObjective`.
        train_seed: Of the noise; fresh ones for trials that repeat others.

    Raises:
        DataSetError: If the surrogate can't be loaded.
    """

    def __init__(
        self,
        surrogate: Surrogate | str | Path | None = None,
        *,
        noise: bool = True,
        failure_value: FailureValue = WORST,
        train_seed: int = 0,
    ) -> None:
        if not isinstance(surrogate, Surrogate):
            surrogate = Surrogate.load(None if surrogate is None else Path(surrogate))
        self.testbed = surrogate
        self.failure_value = failure_value
        self._noise = noise
        self._train_seed = train_seed

    def __call__(self, trial: optuna.Trial) -> float:
        """Suggest the search space in its order, and return the predicted loss.

        Raises:
            TrialFailed: If it fails and there is no failure value.
            TestbedError: If the study's direction isn't the metric's.
        """
        effective = suggest_effective(trial, self.testbed)
        rng = np.random.default_rng([self._train_seed, trial.number]) if self._noise else None
        result = self.testbed(effective, rng)
        reason = "" if result.status == "ok" else "predicted by the surrogate"
        attributes = {
            "training_seconds": result.training_seconds,
            "total_seconds": result.total_seconds,
            "status": result.status,
            **({"reason": reason} if reason else {}),
            **({self.testbed.metric.name: result.value} if result.status == "ok" else {}),
        }
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        if isinstance(trial, optuna.Trial):
            store_constraint(
                trial.storage, trial._trial_id, violation(result.status, self.failure_value)
            )
        return score(trial, result.status, reason, result.value, self.failure_value)


class _Encoder:
    """Encode values as x, (d,)."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._parts: list[Callable[[Mapping[str, Any]], list[float]]] = [
            _coordinates(name, distribution) for name, distribution in space.items()
        ]

    def __call__(self, values: Mapping[str, Any]) -> np.ndarray:
        return np.array([coordinate for part in self._parts for coordinate in part(values)])


def _coordinates(
    name: str, distribution: BaseDistribution
) -> Callable[[Mapping[str, Any]], list[float]]:
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return lambda values: [float(values[name] == choice) for choice in choices]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    scale = math.log if distribution.log else float
    low, high = scale(distribution.low), scale(distribution.high)
    return lambda values: [(scale(values[name]) - low) / ((high - low) or 1.0)]


def table_of(data: DataSet) -> Table:
    """Return the trials as arrays, parameters after the testbed's rule."""
    encode = _Encoder(data.space)
    # A study's best again, by other seeds, would give away what is in it.
    studies = [row.study.removesuffix("-revalidated") for row in data.rows]
    index = {name: i for i, name in enumerate(dict.fromkeys(studies))}
    successes = [row for row in data.rows if row.status == "ok"]
    return Table(
        x=np.array([encode(data.rule(row.params)) for row in data.rows]),
        status=np.array([row.status for row in data.rows]),
        study=np.array([index[name] for name in studies]),
        total_seconds=np.array([row.total_seconds for row in data.rows]),
        values=np.array([row.value for row in successes], dtype=float),
        seconds=np.maximum(
            [(row.training_seconds, row.total_seconds) for row in successes], _MIN_SECONDS
        ),
    )
