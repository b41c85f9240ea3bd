"""Optuna's own conformance suite, with a model that gives every schema random valid values."""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.testing.pytest_samplers import SingleOnlySamplerTestCase
import pytest

from samplers._llm.schema_chat import SchemaChat
from samplers.llambo_paper import LLAMBOSampler


class _AllCases(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    pass


class TestLLAMBO(_AllCases):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LLAMBOSampler(chat=SchemaChat(), n_startup_trials=1, seed=0)


class TestLLAMBOAsOnOptunaHub(_AllCases):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LLAMBOSampler(
            chat=SchemaChat(),
            labels="binary",
            warm_start="random",
            categoricals="random",
            failures="hidden",
            n_startup_trials=1,
            seed=0,
        )
