"""Optuna's own conformance suite; in the registry, `pytest package/samplers/smac`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.testing.pytest_samplers import SingleOnlySamplerTestCase
import optunahub
import pytest


# Not by a relative import: a package that is called smac would hide SMAC's own.
module = optunahub.load_local_module("samplers/smac", registry_root=str(Path(__file__).parents[3]))


class TestSMACSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        # The model from the second trial on, which the initial design would hide from the suite,
        # and a shorter search than the default's, so that it is quick.
        return lambda: module.SMACSampler(n_startup_trials=0, n_challengers=1000, seed=0)
