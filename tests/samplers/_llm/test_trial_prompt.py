"""The parts of a prompt that fit the moment, and that say nothing where nothing is known."""

from __future__ import annotations

from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from samplers import ScriptedChat
from samplers._llm.prompt import count_tokens
from samplers._llm.prompt import default_prompt_tokens
from samplers._llm.prompt import DETAILED
from samplers._llm.prompt import EXTENTS
from samplers._llm.prompt import fit
from samplers._llm.trial_prompt import Knowledge
from samplers._llm.trial_prompt import TrialPrompt

from .test_prompt import anew
from .test_prompt import grow
from .test_prompt import SPACE
from .test_prompt import wide


SMALL: dict[str, BaseDistribution] = {
    "depth": IntDistribution(1, 12),
    "lr": FloatDistribution(1e-4, 1, log=True),
}


def add(study: optuna.Study, value: float, source: str = "base", **params: Any) -> None:
    study.add_trial(
        create_trial(
            params={"depth": 6, "lr": 0.01, **params},
            distributions=SMALL,
            value=value,
            user_attrs={"source": source},
        )
    )


def prompt(
    study: optuna.Study, details: bool = True, space: Any = SMALL, **known: Any
) -> TrialPrompt:
    trial = create_trial(state=TrialState.RUNNING)
    trial.number = len(study.trials)
    return TrialPrompt(
        study,
        trial,
        space,
        Knowledge(**known),
        intro="Help.",
        is_mine=lambda number: number % 2 == 0,
        details=details,
    )


def text(of: TrialPrompt, **options: Any) -> str:
    return of.build(of.extents[0], False, **{"ask": of.moment(), **options})[0]["content"]


def test_nothing_is_said_where_nothing_is_known() -> None:
    shown = text(prompt(optuna.create_study()), ask="Go.")
    assert [line for line in shown.splitlines() if line.startswith("#")] == [
        "# Task",
        "# Parameters",
        "# Your turn",
    ]
    assert "none" not in shown


def test_a_small_model_gets_the_table_and_the_question_alone() -> None:
    study = optuna.create_study()
    for i in range(8):
        add(study, 1.0 + i, depth=1)
    shown = text(prompt(study, details=False), ask="Go.")
    assert "# What else is known" not in shown and "note" not in shown
    assert prompt(study, details=False).moment() == ""
    assert prompt(study, details=False).extents == EXTENTS
    assert default_prompt_tokens(False) == 2600 and default_prompt_tokens(True) == 12_000


def test_the_question_fits_the_moment() -> None:
    study = optuna.create_study()
    assert "Little is known" in prompt(study, n_trials=100).moment()
    for i in range(8):
        add(study, 9.0 - i, "llm" if i % 2 else "base", lr=0.01 * (i + 1))
    study = anew(study)
    assert "structure and sizes" in prompt(study, n_trials=100).moment()
    assert "The end is near" in prompt(study, n_trials=9).moment()
    assert "The end is near" in prompt(study, n_trials=12).moment()  # two of four are the model's
    for i in range(15):
        add(study, 20.0 + i, lr=0.2 + 0.01 * i)
    stuck = prompt(anew(study), n_trials=100)
    assert "stuck" in stuck.moment() and stuck.trials_since_best() == 15
    assert "No trial of the last 15 was better than the best before." in text(stuck)


def test_a_gain_within_the_noise_is_no_way_out() -> None:
    study = optuna.create_study()
    for i in range(16):
        add(study, 1.0 - 0.001 * i, "llm", lr=0.01 * (i + 1))
    assert prompt(study).trials_since_best() == 0
    assert prompt(study, noise=0.1).trials_since_best() == 15


def test_trials_left_are_told_and_how_many_are_the_models() -> None:
    study = optuna.create_study()
    add(study, 1.0)
    assert prompt(study, n_trials=8).left() == " (7 are left, 3 of them yours, this one included)"
    assert prompt(study, details=False, n_trials=8).left() == " (7 are left)"
    assert prompt(study, n_trials=2).left() == " (the last one)"
    assert prompt(study, n_trials=1).left() == prompt(study).left() == ""


def test_bounds_that_the_best_press_against_are_named() -> None:
    study = optuna.create_study()
    for i in range(5):
        add(study, 1.0 + i, depth=12 if i < 4 else 6, lr=10.0 ** -(i / 2))
    assert "Of the 5 best, depth at its highest 12 in 4." in text(prompt(study))


def test_what_is_only_near_a_bound_is_not_said_to_be_at_it() -> None:
    space: dict[str, BaseDistribution] = {**SMALL, "decay": FloatDistribution(0, 0.5)}
    study = optuna.create_study()
    for depth, decay in enumerate((0.0001, 0.001, 0.01, 0.01, 0.49), start=2):
        params = {"depth": depth, "lr": 0.01, "decay": decay}
        study.add_trial(create_trial(params=params, distributions=space, value=decay))
    assert "Of the 5 best" not in text(prompt(study, space=space))


def test_repetitions_tell_the_noise_and_the_best_may_be_run_once_more() -> None:
    study = optuna.create_study()
    for i in range(6):
        add(study, 1.0 + i, lr=0.01 * (i + 1))
    known = prompt(study, noise=0.5)
    assert known.repeatable() == {0} and "have #0 run once more" in text(known)
    assert prompt(study).repeatable() == frozenset()
    add(study, 2.0, lr=0.01)
    assert prompt(anew(study), noise=0.5).repeatable() == frozenset()
    assert "Repetitions (2 runs of 1) have a standard deviation of 0.71." in text(
        prompt(anew(study))
    )
    add(study, 0.5, lr=0.5)
    assert prompt(anew(study)).repeatable() == {7}  # by the noise that was measured


@pytest.mark.parametrize("beside", [{"width": IntDistribution(1, 9)}, None])
def test_the_best_is_not_repeated_if_the_model_can_not_give_all_its_values(beside: Any) -> None:
    study = optuna.create_study()
    for i in range(6):
        add(study, 1.0 + i, lr=0.01 * (i + 1))
    params: dict[str, Any] = {} if beside is None else {"depth": 6, "lr": 0.5, "width": 3}
    distributions = {} if beside is None else SMALL | beside
    study.add_trial(create_trial(params=params, distributions=distributions, value=0.1))
    assert prompt(study, noise=0.5).repeatable() == frozenset()


def test_gains_are_told_by_whose_they_are() -> None:
    study = optuna.create_study()
    for value, source in ((5.0, "enqueued"), (4.0, "llm"), (3.0, "base"), (3.5, "llm")):
        add(study, value, source, lr=value / 10)
    assert "The note says who proposed a trial" in text(prompt(study))
    assert "Of your trials so far (2) 1 gave a new best, of the others (2) 1." in text(
        prompt(study)
    )


def test_a_model_is_told_its_latest_reasons_and_what_was_repaired() -> None:
    study = optuna.create_study()
    for i in range(5):
        trial = study.ask(SMALL)
        trial.set_user_attr("source", "llm" if i else "base")
        trial.set_user_attr("llm_reason", f"idea {i}; lr: {i} is above 1, clipped")
        study.tell(trial, 1.0 + i)
    shown = text(prompt(anew(study)))
    assert "You proposed #4 because: idea 4; lr: 4 is above 1, clipped\n" in shown + "\n"
    assert "idea 2" in shown and "idea 1" not in shown


def test_what_other_workers_run_is_told() -> None:
    study = optuna.create_study()
    other = study.ask(SMALL)
    assert f'Being run by others now: {{"depth": {other.params["depth"]}' in text(prompt(study))


@pytest.mark.parametrize("n_params", [14, 60])
def test_in_steady_state_most_of_a_prompt_is_the_one_before(n_params: int) -> None:
    study = optuna.create_study()
    space = wide(n_params)
    grow(study, space, 50)
    chat, kept, total, before = ScriptedChat(), 0, 0, ""
    for _ in range(21):
        of = prompt(anew(study), space=space, task="Tune it. " * 40, n_trials=200)
        messages = fit(partial(of.build, ask="Go."), chat, 12_000, of.extents)
        assert count_tokens(chat, messages) <= 12_000
        now = messages[0]["content"]
        same = next(
            (i for i, pair in enumerate(zip(before, now)) if len({*pair}) > 1), len(before)
        )
        kept, total, before = kept + same * bool(before), total + len(now) * bool(before), now
        grow(study, space, 1)
    assert kept / total > 0.8


def test_a_failed_trials_row_needs_no_value() -> None:
    study = optuna.create_study()
    study.add_trial(
        create_trial(
            state=TrialState.FAIL, params={"depth": 1}, distributions={"depth": SMALL["depth"]}
        )
    )
    add(study, 1.0)
    trial: FrozenTrial = study.trials[0]
    assert f"{trial.number},1,,failed" in text(prompt(study))
    assert DETAILED[0].details


def test_the_first_extent_that_fits_is_taken_though_tables_without_details_are_larger() -> None:
    study = optuna.create_study()
    grow(study, SPACE, 60)
    of = prompt(study, space=SPACE)
    build, chat = partial(of.build, ask="Go."), ScriptedChat()
    sizes = [count_tokens(chat, build(extent, True)) for extent in of.extents]
    assert max(sizes[len(DETAILED) :]) > sizes[len(DETAILED) - 1]
    for budget in range(min(sizes), max(sizes) + 100, 50):
        first = next(e for e, size in zip(of.extents, sizes) if size <= budget)
        assert fit(build, chat, budget, of.extents) == build(first, False)
