"""Ask a trial for the values of a search space, and apply the objective's own rule to them."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import Any
from typing import Protocol
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.testbed.source import TestbedError
from objective.worker import claim


if TYPE_CHECKING:
    from objective.testbed.metric import Metric
    from objective.testbed.rule import Rule


class Configurable(Protocol):
    """A search space and its rule: a :class:`Testbed`, or a surrogate of one."""

    @property
    def space(self) -> Mapping[str, BaseDistribution]: ...

    @property
    def rule(self) -> Rule: ...

    @property
    def metric(self) -> Metric: ...


def suggest_effective(trial: optuna.Trial, testbed: Configurable) -> dict[str, Any]:
    """Suggest the search space in its order, and apply the rule: the values to run.

    Values that the rule changed are recorded as the trial's user attribute ``effective``.

    Raises:
        TestbedError: If the study's direction isn't the metric's.
    """
    if isinstance(trial, optuna.Trial):
        metric, directions = testbed.metric, trial.study.directions
        if [d.name.lower() for d in directions] != [metric.direction]:
            raise TestbedError(
                f"The study must {metric.direction} the testbed's metric {metric.name}, as"
                f' create_study(direction="{metric.direction}") has it, but got'
                f" {', '.join(d.name for d in directions)}."
            )
        claim(trial)  # before suggestions, which may take a language model a while
    params = {name: suggest(trial, name, d) for name, d in testbed.space.items()}
    if isinstance(trial, optuna.Trial):
        _tag_enqueued(trial, params)
    effective = testbed.rule(params)
    changed = {name: value for name, value in effective.items() if value != params[name]}
    if changed:
        trial.set_user_attr("effective", json.dumps(changed))
    return effective


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    """Suggest a parameter from its distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _tag_enqueued(trial: optuna.Trial, params: Mapping[str, Any]) -> None:
    """Set ``source`` to enqueued if ``enqueue_trial`` fixed all parameters and it isn't set."""
    frozen = trial.storage.get_trial(trial._trial_id)
    fixed = frozen.system_attrs.get("fixed_params", {})
    if params.keys() <= fixed.keys() and "source" not in frozen.user_attrs:
        trial.set_user_attr("source", "enqueued")
