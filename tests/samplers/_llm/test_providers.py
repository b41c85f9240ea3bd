"""A study of 30 trials with each server that people use, every turn answered."""

from __future__ import annotations

import pytest

from .providers import N_TRIALS
from .providers import PROVIDERS
from .providers import run_study


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("name", PROVIDERS)
def test_every_turn_of_a_study_is_answered(name: str) -> None:
    outcome = run_study(PROVIDERS[name])
    assert outcome.turns == N_TRIALS - 1
    assert outcome.answered == outcome.turns, outcome.others
    assert outcome.requests < 2 * N_TRIALS
    assert outcome.tokens >= 30 * (outcome.turns - 2)  # three trials are asked for in one request
