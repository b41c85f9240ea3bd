"""Optuna samplers that ask a classical optimizer, a language model, or both for the next trial.

The samplers, and what their argument ``chat`` takes: ``Chat`` is what a language model has to do,
``OpenAIChat`` is any OpenAI-compatible server, ``CappedChat`` one with a cap on tokens or cost,
``ScriptedChat`` is for tests.

Names are imported when they are first used (PEP 562), so that ``from samplers import
CentaurSampler`` costs neither smac nor torch nor openai.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from ._llm.capped import CappedChat as CappedChat
    from ._llm.capped import Prices as Prices
    from ._llm.chat import Chat as Chat
    from ._llm.chat import ChatError as ChatError
    from ._llm.chat import Completion as Completion
    from ._llm.openai_chat import OpenAIChat as OpenAIChat
    from ._llm.scripted import ScriptedChat as ScriptedChat
    from .centaur import CentaurSampler as CentaurSampler
    from .karpathy_agent import KarpathyAgentSampler as KarpathyAgentSampler
    from .llambo_paper import LLAMBOSampler as LLAMBOSampler
    from .smac import SMACSampler as SMACSampler

_HOMES = {
    "CappedChat": "samplers._llm.capped",
    "CentaurSampler": "samplers.centaur",
    "Chat": "samplers._llm.chat",
    "ChatError": "samplers._llm.chat",
    "Completion": "samplers._llm.chat",
    "KarpathyAgentSampler": "samplers.karpathy_agent",
    "LLAMBOSampler": "samplers.llambo_paper",
    "OpenAIChat": "samplers._llm.openai_chat",
    "Prices": "samplers._llm.capped",
    "ScriptedChat": "samplers._llm.scripted",
    "SMACSampler": "samplers.smac",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
