from __future__ import annotations

from pathlib import Path
import time

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import TrialState
import pytest

from objective.worker import WORKER
from studies.storage.heartbeat import AttributeHeartbeat
from studies.storage.heartbeat import BEAT
from studies.storage.open import open_storage
from studies.storage.recovery import abandoned


pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
GRACE = 0.3


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """On a journal."""
    storage = open_storage(f"journal:{tmp_path}/j.log", grace_period=GRACE)  # type: ignore[arg-type]
    return optuna.create_study(storage=storage, study_name="s")


@pytest.fixture
def storage(study: optuna.Study) -> AttributeHeartbeat:
    assert isinstance(study._storage, AttributeHeartbeat)
    return study._storage


def ask(study: optuna.Study, beat: float) -> optuna.Trial:
    """A trial of a worker on another machine."""
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    study._storage.set_trial_system_attr(
        trial._trial_id, WORKER, ["elsewhere", 1, 1.0, trial.number]
    )
    study._storage.set_trial_system_attr(trial._trial_id, BEAT, beat)
    return trial


@pytest.mark.parametrize("clock", [-600, 600])
def test_a_worker_whose_beats_stop_is_noticed_whatever_its_clock_says(
    study: optuna.Study, storage: AttributeHeartbeat, clock: float
) -> None:
    now = time.time() + clock
    dead, alive = ask(study, now), ask(study, now)
    fail_stale_trials(study)
    time.sleep(2 * GRACE)
    storage.set_trial_system_attr(alive._trial_id, BEAT, now + 1)
    assert list(abandoned(study)) == [dead.number]
    fail_stale_trials(study)
    states = [t.state for t in study.trials]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert study.trials[2].params == dead.params


def test_nobody_is_declared_dead_at_first_sight_unless_hours_have_passed(
    study: optuna.Study, storage: AttributeHeartbeat
) -> None:
    ask(study, time.time() - 100)
    long_dead = ask(study, time.time() - 2 * 3600)
    assert storage._get_stale_trial_ids(study._study_id) == [long_dead._trial_id]
    assert abandoned(study) == {long_dead.number: "its heartbeat has stopped"}


def test_after_an_outage_everybody_has_time_to_say_a_word(
    study: optuna.Study, storage: AttributeHeartbeat
) -> None:
    ask(study, time.time())
    storage._get_stale_trial_ids(study._study_id)
    time.sleep(2 * GRACE)
    storage.forget_beats()
    assert storage._get_stale_trial_ids(study._study_id) == []


def test_a_beat_that_comes_late_changes_nothing(
    study: optuna.Study, storage: AttributeHeartbeat
) -> None:
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    study.tell(trial, 1.0)
    before = study.trials[0]
    storage.record_heartbeat(trial._trial_id)
    assert study.trials[0] == before and BEAT in before.system_attrs
