"""CentaurSampler with its critic: who proposes, who chooses, and that it goes on where it was."""

from __future__ import annotations

from collections import Counter
import logging
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
import pytest

from samplers import ChatError
from samplers import ScriptedChat
from samplers._llm.schema_chat import SchemaChat
from samplers._trials.announced import announced
from samplers.centaur import CentaurSampler
from samplers.centaur import screening
from samplers.centaur.screening import is_ahead
from samplers.centaur.screening import is_step_turn

from ..conftest import StorageFactory
from .test_centaur import distinct_replies
from .test_centaur import objective
from .test_centaur import REPLY
from .test_centaur import SPACE


PROPOSERS = {"steps", "cma-es", "random", "llm"}


def attributes(study: optuna.Study, name: str) -> list[str]:
    return [t.user_attrs.get(name, "") for t in study.trials]


def conditional(trial: optuna.Trial) -> float:
    """Two kinds of model, one of which has layers."""
    lr = trial.suggest_float("lr", 1e-4, 1, log=True)
    loss = math.log10(lr / 0.02) ** 2
    if trial.suggest_categorical("kind", ["linear", "net"]) == "linear":
        return loss + 1 + trial.suggest_float("penalty", 0, 1)
    for i in range(trial.suggest_int("layers", 1, 3)):
        loss += abs(trial.suggest_int(f"units_{i}", 1, 64, log=True) - 30) / 30
    return loss


# --- Candidates of a turn -------------------------------------------------------------------------


def test_steps_come_first_and_have_three_turns_of_ten_later() -> None:
    turns = [is_step_turn(number) for number in range(300)]

    assert all(turns[:100])
    assert sum(turns[100:]) == 60
    assert max(len(run) for run in "".join("s" if t else "c" for t in turns[100:]).split("s")) <= 3


@pytest.mark.parametrize(
    ("given", "others", "ahead"),
    [
        ([2.0], [2.1, 3.0, 3.6], False),
        ([1.0], [2.1, 3.0, 3.6], True),
        ([1.0], [2.1, 3.0], False),
        ([5.0], [2.1, 3.0, 3.6], False),
        ([5.0, 1.0], [2.1, 3.0, 3.6], True),
        ([], [1.0, 2.0, 3.0], False),
        ([1.0], [1.7e308] * 4, True),
    ],
)
def test_what_was_given_is_ahead_by_far(
    given: list[float], others: list[float], ahead: bool
) -> None:
    assert is_ahead(given, others) is ahead


def test_each_trial_says_who_proposed_it_and_who_chose_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screening, "STEPS_ALONE", 12)
    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))

    study.optimize(objective, n_trials=40)

    assert attributes(study, "source") == ["startup"] * 10 + ["base"] * 30
    proposers = attributes(study, "proposer")
    assert proposers[:8] == ["random"] * 8
    assert set(proposers[8:12]) <= {"steps", "random"}
    assert Counter(proposers[12:])["cma-es"] > 15
    assert attributes(study, "chosen_by") == ["random"] * 8 + ["critic"] * 32


@pytest.mark.parametrize("last, chosen_by", [(1.0, "critic"), (math.nan, "random")])
def test_pruned_trials_that_reported_a_value_end_the_random_start(
    last: float, chosen_by: str
) -> None:
    def pruned(trial: optuna.Trial) -> float:
        trial.report(objective(trial) * last, 1)
        raise optuna.TrialPruned

    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))

    study.optimize(pruned, n_trials=12)

    assert attributes(study, "chosen_by") == ["random"] * 8 + [chosen_by] * 4


def test_categories_are_not_random_on_cmaes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "STEPS_ALONE", 20)
    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))

    study.optimize(objective, n_trials=60)

    cma = [t for t in study.trials[30:] if t.user_attrs["proposer"] == "cma-es"]
    assert len(cma) > 15
    assert sum(t.params["schedule"] == "cosine" for t in cma) > 0.6 * len(cma)


def test_it_beats_cmaes_alone() -> None:
    def best(**options: Any) -> float:
        values = []
        for seed in range(3):
            study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=seed, **options))
            study.optimize(objective, n_trials=50)
            values.append(study.best_value)
        return float(np.median(values))

    assert best() < best(critic=None) / 3


# --- The same whoever goes on ---------------------------------------------------------------------


def test_a_resumed_study_is_an_uninterrupted_one(
    own_storage: StorageFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening, "STEPS_ALONE", 15)

    def run(name: str, *n_trials: int) -> list[dict[str, Any]]:
        store = own_storage()
        for total in n_trials:
            study = optuna.create_study(
                storage=store,
                study_name=name,
                load_if_exists=True,
                sampler=CentaurSampler(llm_ratio=0, seed=3),
            )
            study.optimize(objective, n_trials=total - len(study.trials))
        return [t.params for t in study.trials]

    assert run("resumed", 1, 7, 20, 33) == run("in one go", 33)


def test_threads_choose_different_configurations() -> None:
    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))

    study.optimize(objective, n_trials=40, n_jobs=4)

    assert len({str(sorted(t.params.items())) for t in study.trials}) == 40
    assert study.best_value < 1


def test_running_trials_are_kept_away_from() -> None:
    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))
    study.optimize(objective, n_trials=25)

    asked = [study.ask(SPACE).params for _ in range(8)]

    assert len({str(sorted(params.items())) for params in asked}) == 8
    assert np.std([math.log(params["lr"]) for params in asked]) > 0.01


# --- The language model's turns -------------------------------------------------------------------


@pytest.mark.parametrize("reply", ["full", "changes"])
def test_a_large_models_proposal_is_run_as_it_is_and_it_is_told_so(reply: Any) -> None:
    chat = ScriptedChat(distinct_replies())
    study = optuna.create_study(
        sampler=CentaurSampler(chat=chat, reply=reply, seed=0, warm_start=0)
    )

    study.optimize(objective, n_trials=30)

    assert all("Your proposal is run as it is" in r.text for r in chat.requests)
    llm = [t for t in study.trials if t.user_attrs["source"] == "llm"]
    assert len(llm) == 6
    assert [t.params for t in llm] == [r for r, _ in zip(distinct_replies(), llm)]
    assert {(t.user_attrs["proposer"], t.user_attrs["chosen_by"]) for t in llm} == {("llm", "llm")}


def test_a_small_models_proposal_is_a_candidate() -> None:
    study = optuna.create_study(
        sampler=CentaurSampler(chat=SchemaChat(), reply="menu", llm_ratio=0.5, seed=0)
    )

    study.optimize(objective, n_trials=50)

    turns = [t for t in study.trials if t.user_attrs["source"].startswith("llm")]
    assert len(turns) == 20
    for t in turns:
        screened = t.user_attrs["source"] == "llm-screened"
        assert screened == (t.user_attrs["proposer"] != "llm")
        assert t.user_attrs["chosen_by"] == "critic"
    assert Counter(t.user_attrs["source"] for t in turns)["llm-screened"] > 5


def test_without_an_answer_the_critics_choice_is_run() -> None:
    study = optuna.create_study(
        sampler=CentaurSampler(
            chat=ScriptedChat(["no", "no"] * 9), llm_ratio=0.1, warm_start=0, seed=0
        )
    )

    study.optimize(objective, n_trials=30)

    lost = [t for t in study.trials if t.user_attrs["source"] == "llm-error"]
    assert len(lost) == 2
    assert {t.user_attrs["chosen_by"] for t in lost} == {"critic"}
    without = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))
    without.optimize(objective, n_trials=30)
    assert [t.params for t in study.trials] == [t.params for t in without.trials]


# --- What else there is -----------------------------------------------------------------------------


def test_what_another_ran_while_the_model_was_asked_is_not_run_again() -> None:
    study = optuna.create_study(sampler=CentaurSampler(chat=SchemaChat(), seed=0, llm_ratio=0))
    study.optimize(objective, n_trials=12)
    ran = []

    def too_late(request: Any) -> ChatError:
        [running] = study.get_trials(states=(TrialState.RUNNING,))
        ran.append(announced(running))
        done = optuna.trial.create_trial(params=ran[-1], distributions=SPACE, value=1.0)
        study.add_trial(done)
        return ChatError("the model has nothing to say")

    study.sampler = CentaurSampler(
        chat=ScriptedChat(too_late, model="large-70b"), seed=0, llm_ratio=1.0, n_startup_trials=0
    )
    study.optimize(objective, n_trials=1)

    [own] = [t for t in study.trials if t.user_attrs.get("source") == "llm-error"]
    assert ran and own.params not in ran


@pytest.mark.parametrize("log", [False, True])
def test_a_number_that_decides_which_parameters_there_are_is_found_out(log: bool) -> None:
    def deep(trial: optuna.Trial) -> float:
        layers = trial.suggest_int("layers", 1, 4, log=log)
        weights = [trial.suggest_float(f"w{i}", -1, 1) for i in range(layers)]
        return abs(layers - 3) + sum((w - 0.3) ** 2 for w in weights)

    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))
    study.optimize(deep, n_trials=60)

    misjudged = [t.number for t in study.trials if announced(t).keys() != t.params.keys()]
    assert len(misjudged) <= 10


def test_a_conditional_space_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            study.optimize(conditional, n_trials=60)
    finally:
        optuna.logging.disable_propagation()

    assert not caplog.records
    late = study.trials[30:]
    assert sum(t.params["kind"] == "net" for t in late) > 24
    assert study.best_value < 0.3


def test_constraints_are_learned() -> None:
    def constrained(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", -1, 1), trial.suggest_float("y", -1, 1)
        trial.set_user_attr("c", x + y)
        return -x - y

    def constraints(trial: optuna.trial.FrozenTrial) -> list[float]:
        return [trial.user_attrs["c"]]

    study = optuna.create_study(
        sampler=CentaurSampler(llm_ratio=0, seed=0, constraints_func=constraints)
    )
    study.optimize(constrained, n_trials=40)

    assert [list(t.constraints.values()) for t in study.trials] == [
        [t.user_attrs["c"]] for t in study.trials
    ]
    assert 0 <= study.best_value < 0.1
    assert sum(t.user_attrs["c"] <= 0 for t in study.trials) > 5


def test_the_search_begins_at_a_baseline_that_is_far_ahead() -> None:
    def far_off(trial: optuna.Trial) -> float:
        return math.log(objective(trial) + 1e-3)

    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))
    study.enqueue_trial({**REPLY, "momentum": 0.9, "schedule": "cosine", "depth": 6})

    study.optimize(far_off, n_trials=8)

    assert attributes(study, "proposer")[:4] == ["", "random", "random", "random"]
    assert attributes(study, "chosen_by")[4:] == ["critic"] * 4
    values = [t.values[0] for t in study.trials]
    assert np.median(values[4:]) < np.median(values[1:4])


def test_failures_are_survived_and_avoided() -> None:
    def fails(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.params["depth"] > 8:
            raise MemoryError
        return value

    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))
    study.optimize(fails, n_trials=50, catch=MemoryError)

    assert sum(t.state == TrialState.FAIL for t in study.trials[20:]) < 5
    assert study.best_value < 0.1


def test_an_unknown_critic_is_refused() -> None:
    with pytest.raises(ValueError, match="`critic` must be one of"):
        CentaurSampler(critic="forest")  # type: ignore[arg-type]


def test_choices_of_any_type_are_proposed() -> None:
    choices = (None, 1, "1", 1.5, True)

    def mixed(trial: optuna.Trial) -> float:
        choice = trial.suggest_categorical("c", choices)
        return trial.suggest_float("x", 0, 1) + (choice != "1")

    study = optuna.create_study(sampler=CentaurSampler(llm_ratio=0, seed=0))
    study.optimize(mixed, n_trials=30)

    assert isinstance(study.trials[0].distributions["c"], CategoricalDistribution)
    assert study.best_params["c"] == "1"
