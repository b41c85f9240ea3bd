"""What other workers are told of a running trial."""

from __future__ import annotations

import optuna
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from samplers._trials.announced import announce
from samplers._trials.announced import announced


def test_what_is_announced_is_read() -> None:
    study = optuna.create_study()
    study.add_trial(create_trial(state=TrialState.RUNNING))
    assert announced(study.trials[0]) == {}
    announce(study, study.trials[0], {"x": 0.5, "kind": "a"})
    assert announced(study.trials[0]) == {"x": 0.5, "kind": "a"}


@pytest.mark.parametrize("odd", ["[", "5", "[1]", 5, None, {"x": 1}])
def test_what_another_program_wrote_there_announces_nothing(odd: object) -> None:
    attributes = {"llm:relative_params": odd}
    assert announced(create_trial(state=TrialState.RUNNING, system_attrs=attributes)) == {}
