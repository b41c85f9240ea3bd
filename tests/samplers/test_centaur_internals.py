"""What CmaEsSampler keeps private and Centaur relies on, checked on the installed Optuna."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
import pytest

from samplers._trials.stored_cma import CheckedCmaEsSampler
from samplers.centaur.internals import _SearchSpaceTransform
from samplers.centaur.internals import CmaStore
from samplers.centaur.population import current_generation
from samplers.centaur.population import LATE_KEY


@pytest.mark.parametrize("options", [{}, {"with_margin": True}, {"use_separable_cma": True}])
def test_what_cmaessampler_stores_is_found(options: dict[str, Any]) -> None:
    sampler = CheckedCmaEsSampler(seed=0, popsize=4, **options)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_float("y", 0, 1), n_trials=12)
    store = CmaStore(sampler)
    generations = [store.generation(t) for t in study.trials]
    assert generations[0] is None and generations[-1] == 2
    carrier = next(t for t in reversed(study.trials) if store.has_optimizer(t))
    transform = _SearchSpaceTransform(
        {name: FloatDistribution(0, 1) for name in "xy"}, transform_0_1=True
    )
    direction = study.direction
    assert store.optimizer(carrier, transform, direction).generation == 2
    assert store.optimizer(store.optimizer_alone(carrier), transform, direction).generation == 2
    assert store.optimizer(None, transform, direction).generation == 0
    assert store.generation(store.optimizer_alone(carrier)) is None
    assert store.generation(store.with_generation(carrier, 7)) == 7


@pytest.mark.parametrize("odd", ["1", ["1"], [[1]], None, {"a": 1}])
def test_what_another_program_wrote_of_generations_is_left_out(odd: Any) -> None:
    sampler = CheckedCmaEsSampler(seed=0, popsize=4)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_float("y", 0, 1), n_trials=6)
    store = CmaStore(sampler)
    trials = study.trials
    sound = current_generation(trials, store)
    assert sound.carrier is not None
    sound.carrier.system_attrs[LATE_KEY] = odd
    trials[0].system_attrs["cma:generation"] = odd
    assert current_generation(trials, store).members == sound.members


def test_what_ctrl_c_ended_is_no_member_of_a_generation() -> None:
    sampler = CheckedCmaEsSampler(seed=0, popsize=4)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_float("y", 0, 1), n_trials=7)
    trials = study.trials
    members = current_generation(trials, CmaStore(sampler)).members
    assert trials[-1] in members
    trials[-1].state, trials[-1].values = TrialState.FAIL, None
    trials[-1].user_attrs["status"] = "interrupted"
    assert current_generation(trials, CmaStore(sampler)).members == members[:-1]
