"""A study of 15 trials with each server that people use, every turn answered."""

from __future__ import annotations

import pytest

from .providers import PROVIDERS
from .providers import run_study


N_TRIALS = 15  # each server has met its mishaps by then


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("name", PROVIDERS)
def test_every_turn_of_a_study_is_answered(name: str) -> None:
    outcome = run_study(PROVIDERS[name], N_TRIALS)
    assert outcome.turns == N_TRIALS - 1
    assert outcome.answered == outcome.turns, outcome.others
    assert outcome.requests < 2 * N_TRIALS
    assert outcome.tokens >= 30 * (outcome.turns - 2)  # three trials are asked for in one request
