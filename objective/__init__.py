"""From parameters to a measured value: run one training script under limits.

Names are imported when they are first used (PEP 562): reading a testbed costs no Optuna storage,
and nothing here costs torch, which only the script's own process needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from objective.best import best_configuration as best_configuration
    from objective.best import best_script as best_script
    from objective.failure import TrialFailed as TrialFailed
    from objective.objective import TrainScriptObjective as TrainScriptObjective
    from objective.run.script import RunError as RunError
    from objective.surrogate.data_set import DataSet as DataSet
    from objective.surrogate.data_set import DataSetError as DataSetError
    from objective.surrogate.learning import fit_surrogate as fit_surrogate
    from objective.surrogate.surrogate import Surrogate as Surrogate
    from objective.surrogate.surrogate import SurrogateObjective as SurrogateObjective
    from objective.testbed.interface import Interface as Interface
    from objective.testbed.testbed import Testbed as Testbed
    from objective.testbed.testbed import TestbedError as TestbedError


_HOMES = {
    "best_configuration": "objective.best",
    "best_script": "objective.best",
    "DataSet": "objective.surrogate.data_set",
    "DataSetError": "objective.surrogate.data_set",
    "fit_surrogate": "objective.surrogate.learning",
    "Interface": "objective.testbed.interface",
    "RunError": "objective.run.script",
    "Surrogate": "objective.surrogate.surrogate",
    "SurrogateObjective": "objective.surrogate.surrogate",
    "Testbed": "objective.testbed.testbed",
    "TestbedError": "objective.testbed.testbed",
    "TrainScriptObjective": "objective.objective",
    "TrialFailed": "objective.failure",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
