"""What Optuna keeps private and the samplers rely on, checked on the installed Optuna."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import create_trial
import pytest

from samplers._trials.internals import cached_trials
from samplers._trials.internals import fixed_params
from samplers._trials.internals import interrupted_before
from samplers._trials.internals import interrupted_trials
from samplers._trials.internals import is_enqueued
from samplers._trials.internals import set_system_attr
from samplers._trials.internals import set_user_attr
from samplers._trials.internals import storage_of
from samplers._trials.internals import stored_trial


def test_what_enqueue_trial_decided_is_read() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    study.enqueue_trial({})
    enqueued, empty, plain = (study.ask(), study.ask(), study.ask())
    trials = cached_trials(study)
    assert fixed_params(trials[enqueued.number]) == {"x": 0.5}
    assert fixed_params(trials[empty.number]) == fixed_params(trials[plain.number]) == {}
    assert [is_enqueued(t) for t in trials] == [True, True, False]


def test_a_trial_that_optuna_repeats_names_those_before_it() -> None:
    study = optuna.create_study()
    for _ in range(2):
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
        RetryHeartbeatStaleTrialCallback()(study, study.trials[-1])
    first, second, third = study.trials
    assert [interrupted_before(t) for t in (first, second, third)] == [[], [0], [0, 1]]
    assert interrupted_trials([first, third]) == {0, 1}


@pytest.mark.parametrize("odd", [5, None, "01", {"0": 1}, ["0", [1], None]])
def test_what_another_program_wrote_as_the_trials_before_is_left_out(odd: Any) -> None:
    trial = create_trial(value=1.0, system_attrs={"retry_history": odd})
    assert interrupted_before(trial) == [] and interrupted_trials([trial]) == set()


def test_attributes_are_written_to_the_storage() -> None:
    study = optuna.create_study()
    study.ask()
    (running,) = study.trials
    set_user_attr(study, running, "source", "llm")
    set_system_attr(study, running, "key", [1])
    stored = stored_trial(study, running)
    assert stored.user_attrs == {"source": "llm"} and stored.system_attrs["key"] == [1]
    assert storage_of(study).get_n_trials(study._study_id) == 1
