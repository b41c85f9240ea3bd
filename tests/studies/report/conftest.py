"""A storage for studies with known answers."""

from __future__ import annotations

import optuna
import pytest


@pytest.fixture
def memory() -> optuna.storages.InMemoryStorage:
    return optuna.storages.InMemoryStorage()
