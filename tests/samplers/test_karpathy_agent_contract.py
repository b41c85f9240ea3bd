"""Optuna's own conformance suite, with a model that gives every schema random valid values."""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.testing.pytest_samplers import SingleOnlySamplerTestCase
import pytest

from samplers._llm.schema_chat import SchemaChat
from samplers.karpathy_agent import KarpathyAgentSampler


class _AllCases(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    pass


class TestKarpathyAgent(_AllCases):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: KarpathyAgentSampler(chat=SchemaChat(), seed=0)
