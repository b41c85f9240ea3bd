"""The note on a study's page, as optuna-dashboard reads it."""

from __future__ import annotations

from pathlib import Path
import shlex
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
from optuna_dashboard import get_note
from optuna_dashboard import save_note
import pytest

from studies.notes import Notes
from studies.study_note import COMMAND
from tests.conftest import StorageFactory
from tests.studies.conftest import Cli
from tests.studies.test_notes import a_study
from tests.studies.test_notes import add


def note(study: optuna.Study) -> list[str]:
    """Return the paragraphs of the note, as it is after the trials so far."""
    Notes(study).write(study.get_trials(deepcopy=False))
    return get_note(study).split("\n\n")


def test_a_study_says_how_it_stands_after_each_trial(storage: StorageFactory) -> None:
    study = a_study(storage())
    writer = Notes(study)

    def standing() -> str:
        writer.write(study.get_trials(deepcopy=False))
        return get_note(study)

    assert standing() == ""
    add(study, None, state=TrialState.FAIL, status="oom")
    assert standing() == "No trial has succeeded yet."
    add(study, 1.5, source="llm")
    best = r"**Best so far: val\_bpb 1.5 in trial 1**"
    assert standing() == f"{best}. The baseline, trial 0, failed."
    add(study, 1.25)
    add(study, 1.75)
    assert standing().startswith(r"**Best so far: val\_bpb 1.25 in trial 2**")


@pytest.mark.parametrize(
    ("direction", "values", "standing"),
    [
        ("minimize", [1.5], "value 1.5 in trial 0**, the baseline: nothing has been better yet."),
        ("minimize", [1.5, 1.25], "value 1.25 in trial 1**, 0.25 better than 1.5 of the baseline"),
        ("maximize", [1.5, 1.25], "value 1.5 in trial 0**, the baseline: nothing has been better"),
        ("maximize", [1.5, 1.75], "value 1.75 in trial 1**, 0.25 better than 1.5 of the baseline"),
    ],
)
def test_the_best_is_beside_the_baseline(
    direction: str, values: list[float], standing: str
) -> None:
    study = optuna.create_study(direction=StudyDirection[direction.upper()])
    study.set_metric_names(["value"])
    study.set_user_attr("testbed_hash", "0")
    for value in values:
        add(study, value)
    assert standing in note(study)[0]


def test_an_imported_study_has_a_baseline_only_if_it_was_given() -> None:
    imported = a_study(
        imported_from="trials.json", command_line="optuna-autoresearch import trials.json"
    )
    add(imported, 1.5)
    add(imported, 1.25)
    standing, _, best, by, command = note(imported)
    assert standing == r"**Best so far: val\_bpb 1.25 in trial 1**."
    assert best == "    optuna-autoresearch best --study s"
    assert (by, command) == ("Imported by:", "    optuna-autoresearch import trials.json")


def test_repetitions_have_no_best() -> None:
    study = a_study()
    add(study, 1.5, repeats_trial=3)
    assert note(study) == [""]


@pytest.mark.parametrize("storage_option", ["--storage 'journal:my trials.log'", "--storage=URL"])
def test_the_commands_that_come_next_are_for_the_same_storage(storage_option: str) -> None:
    run = f"optuna-autoresearch run --trials 20 {storage_option} --artifacts files --seed 1"
    study = a_study(command_line=run)
    add(study, 1.5)
    _, _, best, label, again = note(study)
    words = shlex.split(best)
    assert words[:4] == ["optuna-autoresearch", "best", "--study", "s"]
    assert words[4:] == [*shlex.split(storage_option), "--artifacts", "files"]
    assert (label, again) == ("To go on where it stopped:", f"    {run}")


@pytest.mark.parametrize("command", ["a 'quote that never ends", "", "run " + 1000 * "x", None])
def test_a_command_that_nobody_could_type_is_left_out(command: Any) -> None:
    study = a_study(command_line=command)
    add(study, 1.5)
    assert len(note(study)) == (3 if command and "x" in command else 1)  # the standing, and `best`


def test_a_command_of_others_can_not_leave_its_block() -> None:
    study = a_study(command_line="optuna-autoresearch run\n\n<script>\x1b[2J")
    add(study, 1.5)
    assert note(study)[-1] == "    optuna-autoresearch run <script>\ufffd[2J"


def test_a_note_that_somebody_edited_stays(storage: StorageFactory) -> None:
    study = a_study(storage())
    add(study, 1.5)
    assert note(study)[0].startswith("**Best so far")
    save_note(study, "My own words.")
    add(study, 1.25)
    assert note(study) == ["My own words."]


def test_a_run_leaves_commands_that_work_as_they_stand_in_the_note(
    cli: Cli, testbed: Path
) -> None:
    done = cli("run", "--testbed", testbed, "--method", "random", "--trials", 2, "--confirm", 0)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name=None, storage=cli.storage)
    _, _, best, _, again = get_note(study).split("\n\n")
    assert cli(*shlex.split(best)[1:]).stdout.count("val_bpb") > 0
    assert again.strip() == study.user_attrs[COMMAND]
    assert cli(*shlex.split(again)[1:]).returncode == 0
