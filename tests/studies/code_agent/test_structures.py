"""The tree of a code study: who was made from whom, and what editing and tuning gained."""

from __future__ import annotations

from optuna.trial import FrozenTrial
import pytest

from studies.code_agent.history import CodeHistory
from studies.code_agent.history import read_history
from studies.code_agent.structures import structures
from tests.studies.code_agent.conftest import finished


def study(*told: tuple[str, float, int | None]) -> CodeHistory:
    """Trials with their source, value and parent."""
    trials: list[FrozenTrial] = []
    for number, (source, value, parent) in enumerate(told):
        trial = finished(number, source, value)
        if parent is not None:
            trial.user_attrs |= {"parent": parent, "description": f"edit {number}"}
        trials.append(trial)
    return read_history(trials, min_gain=0.01)


def test_tuning_counts_for_the_structure_that_it_tuned() -> None:
    history = study(
        ("startup", 1.0, None),
        ("startup", 1.2, None),
        ("tuner", 1.0, 0),
        ("llm", 0.8, 2),
        ("llm", 0.9, 3),
        ("tuner", 0.7, 3),
        ("tuner", 0.75, 5),
        ("llm", 0.6, 5),
    )
    tree = structures(history)
    assert [(s.trial, s.parent, s.depth, s.outcome) for s in tree] == [
        (0, None, 0, "baseline"),
        (3, 0, 1, "kept"),
        (4, 3, 2, "reverted"),
        (7, 3, 2, "kept"),
    ]
    assert [(s.tuned, s.tuned_kept) for s in tree] == [(1, 1), (2, 1), (0, 0), (0, 0)]
    assert [s.tuning_gain for s in tree] == pytest.approx([0.1, 0.1, 0, 0])
    assert [s.gain for s in tree] == pytest.approx([0, 0.2, -0.1, 0.1])
    assert [s.is_in_best for s in tree] == [True, True, False, True]
    assert tree[0].value == pytest.approx(1.1)


def test_a_study_without_a_baseline_has_no_tree() -> None:
    assert structures(study()) == []
