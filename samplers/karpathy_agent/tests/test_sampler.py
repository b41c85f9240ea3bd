"""Optuna's own conformance suite; in the registry, `pytest package/samplers/karpathy_agent`.

The language model answers with random values that the request's schema allows.
"""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.testing.pytest_samplers import SingleOnlySamplerTestCase
import pytest

from ..._llm.schema_chat import SchemaChat
from ..sampler import KarpathyAgentSampler


class TestKarpathyAgentSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: KarpathyAgentSampler(chat=SchemaChat(), seed=0)
