"""Which of the best values lie at an end of their range."""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
import pytest

from studies.best import find_winner
from studies.best import sentences
from studies.range_ends import range_ends


LR = FloatDistribution(1e-4, 0.1, log=True)
ENOUGH = 15


def ranked(
    values: Sequence[Any], distribution: BaseDistribution, trials: int = ENOUGH
) -> list[FrozenTrial]:
    """Trials with these values of x, the best first, and others with the last one."""
    filled = [*values, *[values[-1]] * (trials - len(values))]
    return [
        create_trial(value=float(i), params={"x": x}, distributions={"x": distribution})
        for i, x in enumerate(filled)
    ]


@pytest.mark.parametrize(
    ("values", "distribution", "end"),
    [
        ([0.1, 0.098, 0.1, 0.02, 0.1, 0.01], LR, 0.1),
        ([1e-4, 1.05e-4, 1e-4, 1e-4, 1e-4, 0.01], LR, 1e-4),
        ([0.1, 0.1, 0.1, 0.02, 0.02, 0.1], LR, None),  # three of the best five
        ([0.02, 0.1, 0.1, 0.1, 0.1, 0.02], LR, None),  # all but the best one
        ([0.1, 0.1, 1e-4, 1e-4, 1e-4, 0.02], LR, None),  # at either end: it hardly matters
        ([0.05] * 6, LR, None),
        ([32] * 6, IntDistribution(1, 32), 32),
        ([2048] * 6, IntDistribution(2, 2048, log=True), 2048),
        ([0.99] * 6, FloatDistribution(0.01, 1, log=True), 1.0),  # of a learning rate of 0.1
        ([1] * 6, IntDistribution(1, 32), None),  # fewer than one layer there are not
        ([0.0] * 6, FloatDistribution(0, 0.5), None),  # nor less dropout than none
        ([1.0] * 6, FloatDistribution(0.5, 1), None),  # nor a larger share than all
        ([8] * 6, IntDistribution(2, 8, step=2), None),  # one of four values
        ([10] * 6, IntDistribution(2, 10, step=2), 10),
        ([3.0] * 6, FloatDistribution(3, 3), None),
        (["a"] * 6, CategoricalDistribution(["a", "b"]), None),
    ],
)
def test_an_end_is_where_the_best_lie(
    values: Sequence[Any], distribution: BaseDistribution, end: float | None
) -> None:
    trials = ranked(values, distribution)
    assert range_ends(trials, trials[0]) == ({} if end is None else {"x": end})


@pytest.mark.parametrize(("run", "end"), [(0.02, None), (1e-4, 1e-4), (1e-5, None)])
def test_an_end_is_one_of_the_values_that_were_run(run: float, end: float | None) -> None:
    trials = ranked([0.1 if end else 1e-4], LR)
    for trial in trials:
        trial.user_attrs["effective"] = json.dumps({"x": run})
    assert range_ends(trials, trials[0]) == ({} if end is None else {"x": end})


def test_a_few_trials_say_nothing_of_their_ranges() -> None:
    trials = ranked([0.1], LR, ENOUGH - 1)
    assert range_ends(trials, trials[0]) == {}


def test_what_another_trial_does_not_have_is_at_no_end_there() -> None:
    trials = ranked([0.1], LR)
    others = [create_trial(value=0.5, params={}, distributions={}) for _ in range(2)]
    assert range_ends([trials[0], *others, *trials[1:]], trials[0]) == {}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (
            {"testbed": "somewhere", "testbed_hash": "0"},
            "tried; for that, widen it in search_space.toml and begin another study",
        ),
        ({"testbed": "embedded", "testbed_hash": "0"}, "tried"),
        ({}, "tried"),  # of another program
        ({"surrogate": "embedded", "testbed_hash": "0"}, ""),  # it knows nothing of what is beyond
    ],
)
def test_a_winner_tells_of_the_ends(attributes: dict[str, str], said: str) -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    study.add_trials(ranked([0.1], LR))
    found = find_winner(study, storage)
    assert found is not None
    assert found.ends == ({"x": 0.1} if said else {})
    last = [*sentences(found, "")][-1]
    told = f"the best trials lie at an end of a range (x at 0.1), beyond which nothing was {said}"
    assert last == told if said else "end of a range" not in last
