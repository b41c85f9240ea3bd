"""Optuna samplers that ask a classical optimizer, a language model, or both for the next trial.

Names are imported when they are first used (PEP 562), so that ``from samplers import
CentaurSampler`` costs neither smac nor torch nor openai.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


_HOMES = {
    "CentaurSampler": "samplers.centaur",
    "KarpathyAgentSampler": "samplers.karpathy_agent",
    "LLAMBOSampler": "samplers.llambo_paper",
    "SMACSampler": "samplers.smac",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
