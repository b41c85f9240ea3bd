"""A running trial's values, before the objective asks for them.

Optuna stores a value when the objective suggests it. Until then other workers would not know what
this one is about to run.
"""

from __future__ import annotations

import json
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution

from .history import json_object
from .internals import fixed_params
from .internals import set_system_attr


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_KEY = "llm:relative_params"


def announce(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Let other workers know a running trial's values before they are suggested."""
    set_system_attr(study, trial, _KEY, json.dumps(dict(params), default=str))


def values_so_far(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return what is known of an unfinished trial's values: announced, enqueued or suggested.

    What is no number, or no choice, is left out where ``space`` wants one: anybody may announce
    and enqueue.
    """
    known = {**announced(trial), **fixed_params(trial), **trial.params}
    return {n: value for n, value in known.items() if n not in space or _is_of(value, space[n])}


def _is_of(value: Any, distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return isinstance(value, (int, float))


def announced(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values that a worker announced for its running trial, ``{}`` if none."""
    return json_object(trial.system_attrs.get(_KEY))
