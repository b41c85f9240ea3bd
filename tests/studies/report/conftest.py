"""A storage for studies with known answers."""

from __future__ import annotations

import optuna
from optuna.trial import create_trial
import pytest

from studies.facts import REPEATS
from studies.methods import CODE_AGENT
from studies.report.runs import load_contents
from studies.report.runs import Run


@pytest.fixture
def memory() -> optuna.storages.InMemoryStorage:
    return optuna.storages.InMemoryStorage()


@pytest.fixture
def code_run(memory: optuna.storages.InMemoryStorage) -> Run:
    """Of a code agent: trial 1 was doubted, 2 kept meanwhile, 1 confirmed by 3, 4 nothing."""
    study = optuna.create_study(storage=memory, study_name="code")
    study.set_user_attr("testbed_hash", "0")
    study.set_user_attr("method", CODE_AGENT)
    for value, source in (
        (2.0, "startup"),
        (0.3, "llm"),
        (1.7, "llm"),
        (0.4, "again"),
        (0.5, "llm"),
    ):
        attrs = {"status": "ok", "source": source, "training_seconds": 10.0}
        if source == "again":
            attrs[REPEATS] = 1
        study.add_trial(create_trial(value=value, user_attrs=attrs))
    (contents,) = load_contents(memory, print).values()
    return contents.runs[0]
