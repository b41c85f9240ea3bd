"""Repetitions of trials, and where the noise that they measure is of use."""

from __future__ import annotations

from pathlib import Path
import re
import statistics
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
import pytest

from objective.testbed.metric import METRIC
from samplers import ScriptedChat
from samplers._trials.internals import repeating
from studies.budget import Budget
from studies.facts import REPEATS
from studies.repetitions import pooled_sd
from studies.repetitions import Repeated
from studies.repetitions import repetitions
from studies.repetitions import SUFFIX
from studies.revalidation import queue_repetitions
from studies.revalidation import run_repetitions
from studies.revalidation import Work
from studies.spec import Spec
from studies.spec import Where
from studies.storage.open import open_storage
from studies.storage.recovery import MAX_RETRY
from studies.study import run_study


def test_the_noise_is_pooled_over_what_was_repeated_and_not_the_same_each_time() -> None:
    assert pooled_sd([]) is None
    assert pooled_sd([Repeated((1.0,)), Repeated((2.0, 2.0), fixed=True)]) is None
    known = [Repeated((1.0, 1e300)), Repeated((2.0, 4.0, 6.0))]
    assert pooled_sd(known) == pytest.approx(1e300 / 6**0.5)
    both = [Repeated((1.0, 3.0)), Repeated((10.0, 10.0, 13.0))]
    assert pooled_sd(both) == pytest.approx(((2.0 + 6.0) / 3) ** 0.5)


def test_the_mean_of_values_that_are_alike_is_that_value() -> None:
    assert Repeated((0.3699,) * 3, fixed=True).mean == 0.3699


def test_the_share_that_failed_comes_before_the_mean() -> None:
    often, seldom = Repeated((1.0,), failed=1), Repeated((2.0, 2.0, 2.0), failed=1)
    never = Repeated((3.0, 5.0))
    assert [r.rank(METRIC) for r in (never, seldom, often)] == [(0, 4.0), (0.25, 2.0), (0.5, 1.0)]


@pytest.mark.parametrize(("number", "found"), [(0, [0]), (5, []), (-3, [])])
def test_a_repetition_of_no_trial_is_none(number: int, found: list[int]) -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s")
    study.add_trial(optuna.create_trial(value=1.0))
    again = optuna.create_study(storage=storage, study_name="s" + SUFFIX)
    attributes = {"status": "ok", REPEATS: number}
    again.add_trial(optuna.create_trial(value=1.0, user_attrs=attributes))
    assert list(repetitions(storage, study)) == found


def test_a_repetition_that_was_given_up_has_failed_unless_another_took_its_place() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s")
    study.add_trial(optuna.create_trial(value=1.0))
    again = optuna.create_study(storage=storage, study_name="s" + SUFFIX)
    x: dict[str, Any] = {"params": {"x": 0.5}, "distributions": {"x": FloatDistribution(0, 1)}}
    killed = {"autoresearch:kills": MAX_RETRY}
    given_up = optuna.create_trial(
        state=TrialState.FAIL, user_attrs={REPEATS: 0}, system_attrs=killed, **x
    )
    again.add_trial(given_up)
    assert repetitions(storage, study)[0].failed == 1
    ok = {"status": "ok", REPEATS: 0}
    again.add_trial(optuna.create_trial(value=1.0, user_attrs=ok, system_attrs=repeating(0), **x))
    found = repetitions(storage, study)[0]
    assert (found.values, found.failed) == ((1.0,), 0)


def test_the_noise_that_repetitions_measured_reaches_the_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Where(f"sqlite:///{tmp_path}/s.db", surrogate="embedded")
    chat = ScriptedChat(lambda request: {"DEPTH": 3}, model="big-400b")
    monkeypatch.setattr("studies.study.open_llm", lambda model: chat)

    def tune(trials: int) -> str:
        run_study(Spec(where, "s", "centaur", 0, Budget(trials=trials)))
        return chat.requests[-1].text

    assert "standard deviation on repetition" not in tune(12)
    storage = open_storage(where.storage)
    queue_repetitions(Work(where, "s"), storage, repeats=3)
    run_repetitions(Work(where, "s"), lambda told: None)
    [again] = repetitions(storage, optuna.load_study(study_name="s", storage=storage)).values()
    measured = re.search(r"standard deviation on repetition is (\S+)\.\n", tune(20))
    assert measured is not None
    assert float(measured[1]) == pytest.approx(statistics.stdev(again.values), rel=0.01)
