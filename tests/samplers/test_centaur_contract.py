"""Optuna's own conformance suite for a single-objective relative sampler: all of its cases.

Of the defaults, tests/studies/publish/test_environment.py runs it, in the published copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.testing.pytest_samplers import SingleOnlySamplerTestCase
import pytest

from samplers._llm.schema_chat import SchemaChat
from samplers.centaur import CentaurSampler


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.samplers import BaseSampler


class TestEveryTrialIsTheModels(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: CentaurSampler(chat=SchemaChat(), llm_ratio=1.0, n_startup_trials=1, seed=0)


class TestWithoutCritic(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: CentaurSampler(chat=SchemaChat(), critic=None)
