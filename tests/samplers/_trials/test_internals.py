"""What Optuna keeps private and the samplers rely on, checked on the installed Optuna."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import _filter_study
from optuna.pruners import HyperbandPruner
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
import pytest

from samplers._llm.schema_chat import SchemaChat
from samplers._trials.internals import cached_trials
from samplers._trials.internals import drop_older_cache
from samplers._trials.internals import first_number
from samplers._trials.internals import fixed_params
from samplers._trials.internals import fresh_trials
from samplers._trials.internals import interrupted_before
from samplers._trials.internals import interrupted_trials
from samplers._trials.internals import is_enqueued
from samplers._trials.internals import number_without_repeats
from samplers._trials.internals import set_system_attr
from samplers._trials.internals import set_user_attr
from samplers._trials.internals import storage_of
from samplers._trials.internals import stored_trial
from samplers.centaur import CentaurSampler
from samplers.karpathy_agent import KarpathyAgentSampler
from samplers.llambo_paper import LLAMBOSampler
from samplers.smac import SMACSampler


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
    assert [first_number(t) for t in (first, second, third)] == [0, 0, 0]
    assert interrupted_trials([first, third]) == {0, 1}
    study.enqueue_trial({})
    assert [number_without_repeats(t, study.trials) for t in study.trials] == [0, 0, 0, 1]


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


def in_two_threads(study: optuna.Study, n: int, ahead: int = 1) -> None:
    """Run n trials whose values another thread than that of ask and tell suggests."""

    def evaluate(trial: optuna.Trial) -> float:
        trial.suggest_float("x", -5, 5)
        trial.suggest_categorical("c", "ab")
        return 1000.0 + trial.number

    with ThreadPoolExecutor(1) as pool:
        for _ in range(n // ahead):
            for trial in [study.ask() for _ in range(ahead)]:
                study.tell(trial, pool.submit(evaluate, trial).result())


class Counting(RandomSampler):
    """Keeps how many trials had finished when each was sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[int] = []

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        drop_older_cache(study, trial)
        self.finished.append(sum(t.state.is_finished() for t in cached_trials(study)))
        return {}


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_thread_that_only_suggests_sees_what_has_finished(ahead: int) -> None:
    sampler = Counting()
    in_two_threads(optuna.create_study(sampler=sampler), 12, ahead)
    assert sampler.finished == list(range(12))


def test_the_trials_are_read_once_for_each_that_is_sampled() -> None:
    study = optuna.create_study()
    study.ask()
    (trial,) = study.trials
    drop_older_cache(study, trial)
    read = cached_trials(study)
    drop_older_cache(study, trial)
    assert cached_trials(study) is read


@pytest.mark.parametrize(
    "sampler",
    [
        lambda chat: CentaurSampler(chat=chat, n_startup_trials=2, seed=0),
        lambda chat: CentaurSampler(chat=chat, n_startup_trials=2, critic=None, seed=0),
        lambda chat: KarpathyAgentSampler(chat=chat, seed=0),
        lambda chat: LLAMBOSampler(chat=chat, n_startup_trials=2, seed=0),
        lambda chat: SMACSampler(n_startup_trials=3, n_challengers=100, seed=0),
    ],
    ids=["centaur", "centaur without critic", "karpathy agent", "llambo", "smac"],
)
def test_a_sampler_learns_when_another_thread_asks_and_tells(
    sampler: Callable[[SchemaChat], BaseSampler],
) -> None:
    chat = SchemaChat()
    study = optuna.create_study(sampler=sampler(chat))
    in_two_threads(study, 12)
    assert len({str(t.params) for t in study.trials}) == 12
    told = [request.text for request in chat.requests]
    told += [str(t.system_attrs) for t in study.trials if "smac:proposal" in t.system_attrs]
    assert "1007" in told[-1] or isinstance(study.sampler, SMACSampler)


def test_the_trials_of_every_bracket_of_hyperband_are_read() -> None:
    study = optuna.create_study(pruner=HyperbandPruner(min_resource=1, max_resource=9))
    for _ in range(12):
        trial = study.ask()
        trial.report(1.0, 1)
        trial.should_prune()  # the first one makes the brackets
        study.tell(trial, 1.0)
    of_bracket = _filter_study(study, study.trials[-1])
    assert len(of_bracket.get_trials(deepcopy=False)) < 12
    assert [t.number for t in fresh_trials(of_bracket)] == list(range(12))
