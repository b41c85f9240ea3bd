"""Notes on trials' pages, as optuna-dashboard reads them."""

from __future__ import annotations

from datetime import datetime
from datetime import timedelta
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import create_trial
from optuna.trial import TrialState
from optuna_dashboard import get_note
from optuna_dashboard import save_note
import pytest
from sqlalchemy.exc import OperationalError

from objective import TrialFailed
from samplers._trials.internals import repeating
import studies.notes
from studies.notes import MOST_TRIALS
from studies.notes import Notes
from tests.conftest import StorageFactory
from tests.studies.test_loop import loop
from tests.studies.test_loop import objective
from tests.studies.test_loop import record


SPACE = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "width": FloatDistribution(0, 100),
    "kind": CategoricalDistribution(["a", "b"]),
}
FIRST = {"lr": 0.01, "width": 50.0, "kind": "a"}


def a_study(storage: Any = None, **attributes: Any) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    for name, value in {"testbed_hash": "0", "method": "centaur", **attributes}.items():
        study.set_user_attr(name, value)
    return study


def add(
    study: optuna.Study,
    value: float | None,
    params: dict[str, Any] | None = None,
    state: TrialState = TrialState.COMPLETE,
    system_attrs: dict[str, Any] | None = None,
    **attrs: Any,
) -> None:
    params = {**FIRST, **(params or {})}
    trial = create_trial(
        state=state,
        value=value,
        params=params,
        distributions={name: SPACE[name] for name in params},
        user_attrs={"status": "ok", **attrs},
        system_attrs=system_attrs,
    )
    trial.datetime_complete = datetime(2026, 1, 1) + timedelta(seconds=len(study.trials))
    study.add_trial(trial)


def notes(study: optuna.Study) -> list[str]:
    Notes(study).write(study.get_trials(deepcopy=False))
    return written(study)


def written(study: optuna.Study) -> list[str]:
    return [get_note(optuna.Trial(study, t._trial_id)) for t in study.trials]


def last_note(study: optuna.Study) -> list[str]:
    return notes(study)[-1].split("  \n")


def test_a_note_says_who_why_what_and_what_came_of_it_in_two_lines(
    storage: StorageFactory,
) -> None:
    study = a_study(storage())
    add(study, 1.5, source="enqueued")
    add(
        study,
        1.25,
        {"lr": 0.02, "kind": "b"},
        source="llm",
        llm_model="big-400b",
        llm_reason="kind b trains faster.",
        proposer="llm",
        chosen_by="llm",
    )
    add(study, 1.75, {"width": 60.0}, source="base", proposer="steps", chosen_by="critic")
    assert [note.split("  \n") for note in notes(study)] == [
        ["Given: the script's own values.", "Came to val\\_bpb 1.5, the first value."],
        [
            "Proposed by the language model (big\\-400b): kind b trains faster.",
            "Changed from trial 0, the best then: kind a to b, lr 0\\.01 to 0\\.02. "
            "Came to val\\_bpb 1.25: the best so far, by 0.25.",
        ],
        [
            "Proposed: a step from the best trials, chosen by the critic.",
            "Changed from trial 1, the best then: kind b to a, width 50 to 60, lr 0\\.02 to 0\\.01. "
            "Came to val\\_bpb 1.75, 0.5 behind trial 1.",
        ],
    ]


def test_a_baseline_that_was_interrupted_is_one_when_it_is_repeated() -> None:
    study = a_study()
    add(study, None, state=TrialState.FAIL, source="enqueued", status="interrupted")
    (first,) = study.trials
    add(study, 1.5, source="enqueued", system_attrs=repeating(first.number))
    assert notes(study)[1].startswith("Given: the script's own values.")


@pytest.mark.parametrize(
    ("attrs", "first"),
    [
        ({"source": "startup", "proposer": "random", "chosen_by": "random"}, "a random configura"),
        ({"source": "base", "proposer": "cma-es", "chosen_by": "critic"}, "of CMA-ES, chosen by"),
        ({"source": "llm-screened", "proposer": "steps", "llm_model": "m"}, "preferred to that"),
        ({"source": "llm-error", "llm_reason": "HTTP 500"}, "that could be used: HTTP 500."),
        ({"source": "llm-duplicate", "proposer": "cma-es"}, "a sample of CMA-ES, since the lang"),
        ({"source": "enqueued"}, "Given by a user"),
        ({"source": "tuner", "parent": 0}, "by the tuner of constants"),
        ({"source": "startup", "source_sha256": "ab"}, "the script as it is"),
        ({}, "Proposed by centaur."),
    ],
)
def test_who_proposed_it(attrs: dict[str, Any], first: str) -> None:
    study = a_study()
    add(study, 1.0)
    add(study, 2.0, {"lr": 0.5}, **attrs)
    assert first in last_note(study)[0]


def test_what_came_of_failures_of_pruned_and_of_interrupted_trials() -> None:
    study = a_study()
    add(study, 1.0)
    add(study, 100.0, {"lr": 1.0}, status="oom", reason="CUDA out of memory.")
    assert last_note(study)[1].endswith("Failed: oom: CUDA out of memory.")
    add(study, None, {"lr": 0.1}, state=TrialState.FAIL, status="crash")
    assert last_note(study)[1].endswith("Failed: crash.")
    add(study, 1.2, {"lr": 0.1}, state=TrialState.PRUNED, status="pruned")
    assert last_note(study)[1].endswith("Stopped early, as hopeless.")
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            intermediate_values={25: 1.2},
            user_attrs={"status": "pruned"},
        )
    )
    said = "Stopped early at 25 (percent, or step if its end is unknown), as hopeless."
    assert last_note(study)[1].endswith(said)
    add(study, None, state=TrialState.FAIL)
    number = len(study.trials) - 1
    study.add_trial(
        create_trial(state=TrialState.WAITING, system_attrs={"retry_history": [number]})
    )
    assert notes(study)[number].endswith(f"Interrupted; trial {number + 1} repeats it.")


def test_a_change_that_was_mended_says_what_is_run_in_its_place() -> None:
    study = a_study(method="karpathy-code")
    add(study, None, {}, TrialState.FAIL, status="crash", reason="NameError: x", source="llm")
    study.add_trial(
        create_trial(
            state=TrialState.WAITING, system_attrs={"failed_trial": 0, "retry_history": [0]}
        )
    )
    assert notes(study)[0].endswith("x. Trial 1 is run in its place.")
    assert notes(study)[-1] == ""  # not finished yet


def test_each_trial_of_a_run_has_a_note_when_it_ends(storage: StorageFactory) -> None:
    study = optuna.create_study(storage=storage())

    def evaluate(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number == 1:
            record(trial, "oom")
            raise TrialFailed("oom", "no memory left")
        if trial.number == 2:
            record(trial, "pruned")
            raise optuna.TrialPruned
        return value

    loop(study, evaluate, trials=4).run()
    came = [get_note(optuna.Trial(study, t._trial_id)).split("  \n")[1] for t in study.trials]
    ends = ("the first value.", "Failed: oom.", "Stopped early, as hopeless.", "trial 0.")
    assert [line.endswith(end) for line, end in zip(came[:3], ends)] == [True] * 3
    assert "Came to" in came[3]


def test_an_edit_of_the_script() -> None:
    study = a_study(method="karpathy-code")
    attrs: dict[str, Any] = {"parent": 3, "lines_added": 4, "lines_removed": 2}
    attrs["description"] = "Wider MLP"
    add(study, 2.0, source="llm", llm_model="m", **attrs)
    assert last_note(study) == [
        "Proposed by the language model (m).",
        "Changed from trial 3 (+4 -2 lines): Wider MLP. Came to val\\_bpb 2, the first value.",
    ]


def test_a_baseline_with_another_seed_is_not_the_best_by_its_luck() -> None:
    study = a_study(method="karpathy-code")
    add(study, 2.0, source="startup", source_sha256="0")
    add(study, 1.5, source="startup", source_sha256="0", train_seed=999)
    add(study, 1.9, source="llm", parent=0)
    seeded, edit = (note.split("  \n") for note in notes(study)[1:])
    assert seeded[0] == "Given: the script as it is, with another seed, to see how much is noise."
    assert seeded[1].endswith("Came to val\\_bpb 1.5.")
    assert edit[1].endswith("Came to val\\_bpb 1.9: the best so far, by 0.1.")


def test_a_trial_with_a_seed_of_its_own_may_be_the_best() -> None:
    study = a_study()
    add(study, 2.0, train_seed=100_000)
    add(study, 1.5, {"width": 60.0}, train_seed=100_001)
    assert "the best so far, by 0.5" in notes(study)[1]


def test_what_was_doubted_and_held_is_the_best_with_its_second_value() -> None:
    study = a_study(method="karpathy-code")
    add(study, 2.0, source="startup")
    add(study, 0.3, source="llm")
    add(study, 0.4, source="again", repeats_trial=1)
    add(study, 0.5, source="llm", parent=1)
    assert last_note(study)[1].endswith("Came to val\\_bpb 0.5, 0.1 behind trial 1.")
    assert "Doubted: came to 0" in written(study)[1]


def test_repetitions_of_the_best() -> None:
    study = a_study()
    for value in (2.0, 1.0):
        add(study, value, source="enqueued", repeats_trial=7)
    said = "Runs trial 7 again, with another seed, to see how much was luck.  \nCame to val\\_bpb "
    assert notes(study) == [f"{said}2.", f"{said}1."]


def test_imported_trials_say_where_from() -> None:
    study = a_study(imported_from="runs.json")
    for value in (3.0, 2.0):
        add(study, value, {"lr": value / 10}, source="llm" if value < 3 else "")
    assert notes(study)[0].startswith("Imported from runs\\.json.")
    assert "the best so far, by 1." in notes(study)[1]


def test_what_a_user_wrote_stays(storage: StorageFactory) -> None:
    study = a_study(storage())
    add(study, 1.0)
    add(study, 2.0)
    save_note(optuna.Trial(study, study.trials[1]._trial_id), "mine")
    assert notes(study)[1] == "mine"
    save_note(optuna.Trial(study, study.trials[0]._trial_id), "mine too")
    assert notes(study) == ["mine too", "mine"]


def test_words_of_others_are_no_markup() -> None:
    study = a_study()
    reason = "<img src=x onerror=alert(1)> **$x$** [a](b)\n# `c`" + "z" * 300
    add(study, 1.0, source="llm", llm_reason=reason)
    first, _ = last_note(study)
    assert r"\<img src\=x onerror\=alert\(1\)\> \*\*\$x\$\*\* \[a\]\(b\) \# \`c\`z" in first
    assert len(first) < 500


def test_values_as_they_were_run_are_shown() -> None:
    study = a_study()
    add(study, 1.0)
    add(study, 2.0, {"width": 51.0}, effective='{"width": 64}')
    assert "width 50 to 64." in last_note(study)[1]
    add(study, 2.0, {"width": 49.0}, effective='{"width": 50.0}')
    assert "The same values as trial 0, the best then." in last_note(study)[1]


def test_the_storage_is_asked_only_when_a_trial_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = a_study()
    add(study, 1.0)
    asked: list[object] = []
    monkeypatch.setattr("studies.notes.add_study_attrs", lambda *groups: asked.append(groups))
    writer = Notes(study)
    for _ in range(2):
        writer.write(study.trials)
        assert len(asked) == 1
    add(study, 2.0)
    writer.write(study.trials)
    assert len(asked) == 2


def test_a_long_study_has_notes_of_its_first_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.notes.MOST_TRIALS", 2)
    study = a_study()
    for value in (1.0, 2.0, 3.0):
        add(study, value)
    assert [bool(note) for note in notes(study)] == [True, True, False]
    assert MOST_TRIALS == 1000  # as docs/samplers.md says


@pytest.mark.parametrize(
    "error", [StorageInternalError("away"), OperationalError("INSERT", {}, Exception("away"))]
)
def test_a_database_that_is_away_costs_a_later_note_and_no_worker(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    study = a_study()
    add(study, 1.0)
    writer = Notes(study)
    with monkeypatch.context() as away:
        away.setattr(studies.notes, "add_study_attrs", fail)
        writer.write(study.trials)
    assert written(study) == [""]
    writer.write(study.trials)
    assert written(study) != [""]
