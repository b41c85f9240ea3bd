"""Optuna's own conformance suite for a single-objective relative sampler: all of its cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.testing.pytest_samplers import SingleOnlySamplerTestCase
import pytest

from samplers.smac import SMACSampler


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.samplers import BaseSampler


class TestSMACSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        # The model from the second trial on: the initial design would hide it from the suite.
        return lambda: SMACSampler(n_startup_trials=00, seed=0)
