"""Which trial wins, by repetitions where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import json
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna.trial import TrialState
import pytest

from objective import best_configuration
from objective import TestbedError
from objective.testbed.metric import Direction
from studies.best import find_winner
from studies.best import Winner
from studies.commands.work.best import lines_of
from studies.errors import Misuse
from studies.facts import REPEATS
from studies.facts import study_facts
from studies.methods import CODE_AGENT
from studies.repetitions import SUFFIX
from studies.report.best import best_sentences


SPACE = {"WIDTH": IntDistribution(1, 1000)}


def add(study: optuna.Study, width: int, value: float | None, **attrs: Any) -> None:
    study.add_trial(
        create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            value=value,
            params={"WIDTH": width},
            distributions={"WIDTH": SPACE["WIDTH"]},
            user_attrs=attrs,
        )
    )


def make(
    values: Sequence[float],
    repeated: dict[int, Sequence[float | None]],
    direction: Direction = "minimize",
    ours_by: str = "testbed_hash",
) -> tuple[optuna.Study, optuna.storages.BaseStorage]:
    """A study with these values, and repetitions of some of its trials."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", direction=direction)
    study.set_user_attr(ours_by, "0")
    for i, value in enumerate(values):
        add(
            study,
            10 + i,
            value,
            status="ok",
            effective=json.dumps({"WIDTH": 15 + i}) if i else "{}",
        )
    if repeated:
        again = optuna.create_study(storage=storage, study_name=f"s{SUFFIX}", direction=direction)
        for number, found in repeated.items():
            for result in found:
                status = "crash" if result is None else "ok"
                add(again, 10 + number, result, status=status, **{REPEATS: number})
    return study, storage


def winner(*args: Any, **kwargs: Any) -> Winner:
    found = find_winner(*make(*args, **kwargs))
    assert found is not None
    return found


def test_the_luckiest_is_not_the_best() -> None:
    found = winner([5.0, 2.0, 1.0], {2: [2.5, 2.7], 1: [2.0, 2.2]})
    assert (found.trial.number, found.by_value.number) == (1, 2)
    assert found.value == pytest.approx(2.1)
    assert found.gain == pytest.approx(2.9)
    assert found.noise == pytest.approx(0.1414, abs=1e-4)
    said = "\n".join(lines_of(found, "sqlite:///x.db"))
    assert "trial 2 had the best value, 1; when it was trained again, it came to 2.6" in said
    assert "trial 1 was trained 2 times more, with other seeds: val_bpb 2.1000 on average" in said


def test_a_baseline_that_nobody_beat_is_said_to_be_that() -> None:
    said = "\n".join(lines_of(winner([1.0, 2.0], {}), "sqlite:///x.db"))
    assert "no trial was better than the baseline" in said and "by 0" not in said


def test_the_baseline_once_more_is_not_better_than_the_baseline() -> None:
    study, storage = make([1.0], {})
    add(study, 10, 0.9, status="ok")
    found = find_winner(study, storage)
    assert found is not None and found.trial.number == 1
    lines = lines_of(found, "sqlite:///x.db")
    assert "no trial was better than the baseline" in lines and "by 0" not in "".join(lines)
    add(study, 11, 0.8, status="ok")
    found = find_winner(study, storage)
    assert found is not None
    assert "better than the baseline (1.0000) by 0.2000" in lines_of(found, "sqlite:///x.db")


def test_no_gain_at_all_is_not_called_better() -> None:
    again: list[dict[int, Sequence[float | None]]] = [{}, {0: [1.0, 1.2], 1: [1.0, 1.2]}]
    for repeated in again:
        found = winner([1.0, 0.9] if repeated else [1.0, 1.0], repeated)
        other = found.study.trials[1]
        found = replace(found, trial=other, by_value=other)
        lines = lines_of(found, "sqlite:///x.db")
        assert f"as good as the baseline ({'1.1000' if repeated else '1.0000'})" in lines
        assert not any("better" in line for line in lines)


def test_a_gain_is_that_of_the_means_and_its_error_that_of_both() -> None:
    found = winner([1.5, 1.0], {1: [1.1, 1.3], 0: [1.3, 1.3]})
    assert found.trial.number == 1 and found.gain == pytest.approx(0.1)
    assert found.gain_error == pytest.approx(0.1)  # pooled sd 0.1, two trainings of each
    said = "ot to be told from the baseline (1.3000): better by 0.1000, within the noise between"
    assert f"N{said} trainings: sd 0.1" in " ".join(best_sentences([], found))
    assert f"n{said} trainings: sd 0.1" in "\n".join(lines_of(found, "sqlite:///x.db"))
    once = winner([1.5, 1.0], {1: [1.1, 1.3]})
    assert once.noise is not None and once.gain == pytest.approx(0.3)
    assert once.gain_error == pytest.approx(once.noise * 1.5**0.5)


def test_a_report_calls_no_baseline_a_gain_over_itself() -> None:
    said = " ".join(best_sentences([], winner([1.0, 2.0], {0: [1.1]})))
    assert "No trial was better than the baseline." in said and " by " not in said


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (
            [1.010, 1.012],
            "on repetition worse than the baseline (1.0000) by 0.0110;"
            " noise between trainings: sd 0.001414",
        ),
        (
            [1.001, 1.021],
            "not to be told from the baseline (1.0000): on repetition worse by 0.0110,"
            " within the noise between trainings: sd 0.0141",
        ),
    ],
)
def test_a_loss_on_repetition_is_no_gain(again: Sequence[float], said: str) -> None:
    found = winner([1.0, 0.995], {1: again})
    assert found.gain == pytest.approx(-0.011)
    assert said in "\n".join(lines_of(found, "sqlite:///x.db"))
    assert f" {said[0].upper()}{said[1:]}" in " ".join(best_sentences([], found))


def test_a_baseline_that_wins_by_less_than_the_noise_is_not_said_to_be_better() -> None:
    repeated = {0: [1.06], 1: [1.05, 1.11], 2: [1.3]}
    lines = lines_of(winner([1.1, 0.98, 1.07], repeated), "sqlite:///x.db")
    assert lines[1:3] == [
        "no trial was better than the baseline on repetition",
        "within the noise between trainings trial 0 is not to be told from trial 1",
    ]
    far = lines_of(winner([1.1, 0.98], {0: [1.06, 1.07], 1: [1.1, 1.11]}), "sqlite:///x.db")
    assert not any("not to be told" in line for line in far)


@pytest.mark.parametrize(
    ("rivals", "named"),
    [
        (1, "trial 2"),
        (2, "trials 2 and 3"),
        (3, "trials 2, 3 and 4"),
        (4, "trials 2, 3, 4 and 1 other"),
        (38, "trials 2, 3, 4 and 35 others"),
    ],
)
def test_of_many_rivals_the_first_are_named(rivals: int, named: str) -> None:
    again = {2 + i: [1.01, 1.11] for i in range(rivals)}
    found = winner([1.5, 0.9, *[0.95] * rivals], {1: [1.0, 1.1], **again})
    assert (
        f"within the noise between trainings trial 1 is not to be told from {named}"
        in lines_of(found, "sqlite:///x.db")
    )


def test_a_rival_is_another_configuration() -> None:
    study, storage = make([1.5, 0.9, 0.95], {2: [1.01, 1.11], 1: [1.0, 1.1]})
    again = optuna.load_study(study_name=f"s{SUFFIX}", storage=storage)
    for width, of in ((11, 1), (12, 2), (10, 0)):  # each was the best before, and is so once more
        number = len(study.trials)
        effective = study.trials[of].user_attrs["effective"]
        add(study, width, 0.97, status="ok", effective=effective)
        for value in (1.02, 1.12):
            add(again, width, value, status="ok", **{REPEATS: number})
    found = find_winner(study, storage)
    assert (
        found is not None and found.trial.number == 1 and found.repeated.keys() == {1, 2, 3, 4, 5}
    )
    assert found.rivals == [2]


def test_one_repetition_is_not_to_be_believed() -> None:
    said = "with another seed: val_bpb 1.0500; that may be luck, too"
    assert lines_of(winner([1.1, 0.98], {1: [1.05]}), "sqlite:///x.db")[0].endswith(
        f"{said}; to train it more often:"
        " optuna-autoresearch revalidate --study s --storage sqlite:///x.db"
    )
    imported = winner([1.1, 0.98], {1: [1.05]}, ours_by="imported_from")
    assert lines_of(imported, "sqlite:///x.db")[0].endswith(said)


def test_failed_repetitions_are_told_with_the_mean_of_the_others() -> None:
    found = winner([5.0, 2.0], {1: [2.5, None, None]})
    said = "rial 1 was trained 3 times more, with other seeds, and failed in 2 of them: val_bpb 2.5000"
    assert lines_of(found, "sqlite:///x.db")[0] == f"t{said}"
    assert f" T{said}. " in " ".join(best_sentences([], found))
    believed = winner([5.0, 2.0], {1: [2.5, 2.5]})
    said = "with other seeds: val_bpb 2.5000 on average (sd 0.0000); believe that"
    assert lines_of(believed, "sqlite:///x.db")[0].endswith(said)
    fixed = winner([5.0, 2.0], {1: [2.0, 2.0, None]})
    said = "and failed in 1 of them, and came to exactly the same val_bpb"
    assert said in lines_of(fixed, "sqlite:///x.db")[0]


def test_how_long_it_trained_is_said() -> None:
    study, storage = make([1.0, 0.5], {})
    study.set_user_attr("train_seconds", 4.0)
    found = find_winner(study, storage)
    assert found is not None
    assert any("each training took 4 s" in line for line in lines_of(found, "sqlite:///x.db"))


def test_higher_is_better_where_it_is() -> None:
    found = winner([0.5, 0.8, 0.9], {2: [0.7], 1: [0.79]}, "maximize")
    assert found.trial.number == 1 and found.gain == pytest.approx(0.29)


def test_repetitions_of_what_is_no_longer_the_best_say_nothing_of_the_best() -> None:
    found = winner([5.0, 2.0, 1.0], {1: [2.0, 2.2]})
    assert found.trial.number == 2 and found.value == 1.0
    (line, *_) = lines_of(found, "sqlite:///x.db")
    assert line.endswith("optuna-autoresearch revalidate --study s --storage sqlite:///x.db")
    imported = winner([5.0, 2.0, 1.0], {1: [2.0, 2.2]}, ours_by="imported_from")
    assert lines_of(imported, "sqlite:///x.db")[0].endswith("in part luck")
    found.study.set_user_attr("method", CODE_AGENT)
    found.study.set_user_attr("metric_file", "metrics.json")  # gone when a sandbox ends
    assert lines_of(found, "sqlite:///x.db")[0].endswith("in part luck")


def test_what_failed_when_it_was_trained_again_comes_last() -> None:
    found = winner([5.0, 2.0, 1.0], {2: [1.0, None], 1: [2.0, 2.2]})
    assert found.trial.number == 1
    assert any(
        line.endswith("; when it was trained again, it came to 1 and failed in 1 of 2")
        for line in lines_of(found, "sqlite:///x.db")
    )


def test_what_failed_each_time_it_was_trained_again_is_the_best_only_of_such() -> None:
    found = winner([5.0, 2.0, 1.0], {2: [None, None], 1: [2.0, None]})
    assert (found.trial.number, found.by_value.number) == (1, 2)
    said = "\n".join(lines_of(found, "sqlite:///x.db"))
    assert "trial 2 had the best value, 1; when it was trained again, it failed" in said
    found = winner([5.0, 2.0, 1.0], {2: [None, None], 1: [None]})
    assert (found.trial.number, found.value) == (2, 1.0)
    assert lines_of(found, "sqlite:///x.db")[0] == (
        "trial 2 was trained 2 times more, and failed each time: don't rely on its val_bpb"
    )
    said = " ".join(best_sentences([], found))
    assert (
        "Trial 2 was trained 2 times more, and failed each time: don't rely on its val_bpb."
        in said
    )


def test_a_script_without_a_seed_is_not_taken_for_certain() -> None:
    found = winner([5.0, 2.0], {1: [2.0, 2.0]})
    assert found.noise is None
    assert found.facts()["repeated"]["sd"] is None
    said = "\n".join(lines_of(found, "sqlite:///x.db"))
    assert "takes no seed" in said and "{SEED} in --command" in said and "without effect" in said
    assert "sd" not in said.replace("seed", "")


def test_a_script_takes_a_seed_if_any_repetition_of_the_study_says_so() -> None:
    assert not winner([0.5, 0.25], {1: [0.25]}).repeated[1].fixed
    found = winner([0.5, 0.25, 0.375], {1: [0.25, 0.25], 2: [0.375, 0.5]})
    assert not found.repeated[1].fixed and found.repeated[1].sd == 0.0
    assert found.noise == pytest.approx(0.0625)
    assert winner([0.5, 0.25, 0.375], {1: [0.25], 2: [0.375]}).repeated[2].fixed


def test_values_are_those_that_were_run() -> None:
    found = winner([5.0, 2.0], {})
    assert found.facts()["params"] == {"WIDTH": 16}
    assert found.facts()["stored"] == {"WIDTH": 11}
    assert "WIDTH: 16 was run where 11 is stored (the testbed's rule)" in lines_of(found, "x")


def test_the_testbed_is_loaded_once_for_the_command_and_only_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads = []

    def load(*arguments: Any) -> None:
        loads.append(arguments)
        raise TestbedError("It is gone.")

    monkeypatch.setattr("studies.spec.Testbed.load", load)
    study, storage = make([1.0, 0.5], {})
    study.set_user_attr("testbed", "bed")
    found = find_winner(study, storage)
    assert found is not None and found.facts()["command"] is None and not loads
    add(study, 12, 0.1, status="ok", command="python train.py --width=12")
    found = find_winner(study, storage)
    assert found is not None
    for _ in range(2):
        assert found.facts()["command"] == "python train.py --width=12"
        assert "to run it: python train.py --width=12" in lines_of(found, "sqlite:///x.db")
    assert len(loads) == 1


def test_a_study_of_another_program_has_a_winner_too() -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_int("x", 0, 9), n_trials=5)
    study.optimize(lambda trial: float("nan"), n_trials=1)
    found = find_winner(study, study._storage)
    assert found is not None and found.trial.values[0] == study.best_value
    assert found.baseline is None and found.gain is None
    assert best_configuration(study) == study.best_params


@pytest.mark.parametrize("source", ["", "startup", "enqueued"])
def test_an_imported_first_trial_is_the_script_only_where_the_file_says_so(source: str) -> None:
    study, storage = make([], {})
    study.set_user_attr("imported_from", "runs.json")
    for width, value in ((10, 1.0), (11, 0.5)):
        add(study, width, value, status="ok", source=source)
    found = find_winner(study, storage)
    assert found is not None and found.trial.number == 1
    assert (found.baseline is not None) == (source == "enqueued")
    assert (study_facts(study)["baseline"] is not None) == (source == "enqueued")


def test_what_is_infeasible_never_wins() -> None:
    study = optuna.create_study()

    def objective(trial: optuna.Trial) -> float:
        trial.set_constraint("memory", trial.number - 1)
        return 10.0 - trial.number

    study.optimize(objective, n_trials=4)
    found = find_winner(study, study._storage)
    assert found is not None and found.trial.number == 1


def test_several_objectives_have_no_winner() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(Misuse, match="must have one objective, but has 2"):
        find_winner(study, study._storage)
