"""The command that fits a surrogate to a storage's studies and says how good it is."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from objective import Surrogate
from objective import Testbed
from studies.storage.bulk import add_trials
from studies.storage.open import opened
from tests.studies.conftest import Cli


def fill(cli: Cli, bed: Path, n_studies: int = 2) -> None:
    """Random trials of the testbed with the values that its formula gives."""
    space = Testbed.load(bed).space
    for seed in range(n_studies):
        study = optuna.create_study(
            study_name=f"random-seed{seed}",
            storage=optuna.storages.InMemoryStorage(),
            sampler=optuna.samplers.RandomSampler(seed=seed),
        )
        for _ in range(25):
            trial = study.ask(space)
            failed = trial.params["DEPTH"] == 8
            value = 1 + (trial.params["DEPTH"] - 5) ** 2 / 10
            attrs = {"status": "oom" if failed else "ok", "training_seconds": 0.05}
            attrs |= {"total_seconds": 0.2} if failed else {"total_seconds": 0.2, "val_bpb": value}
            for key, attr in attrs.items():
                trial.set_user_attr(key, attr)
            study.tell(trial, 100.0 if failed else value)
        with opened(cli.storage) as storage:
            copy = optuna.create_study(storage=storage, study_name=study.study_name)
            copy.set_user_attr("method", "random")
            add_trials(copy, storage, study.trials)


def test_scores_are_printed_with_their_baselines_and_the_file_loads(
    cli: Cli, testbed: Path
) -> None:
    fill(cli, testbed)
    file = cli.folder / "bed.json.xz"
    arguments = ("surrogate", "--testbed", testbed, "--out", file, "--made-by", "run twice")
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    (header,) = (words for words in lines if words[-3:] == ["R2", "Spearman", "MAE"])
    assert header[:2] == ["target", "model"]
    assert any(words[:3] == ["value", "mean", "baseline"] for words in lines)
    assert any("chosen" in words and float(words[-3]) > 0.9 for words in lines if len(words) > 4)
    assert any(words[-3:] == ["AUC", "log", "loss"] for words in lines)

    facts = json.loads(cli(*arguments, "--json").stdout)
    fitted = Surrogate.load(file)
    assert [row["model"] for row in facts["scores"] if row["chosen"]] == [
        row.model for row in fitted.scores if row.chosen
    ]
    assert (facts["trials"], facts["studies"]) == (50, 2)
    assert facts["bytes"] == file.stat().st_size
    assert fitted.data.made["trials"] == "run twice"
    assert "scikit-learn" in fitted.data.made["versions"]
    assert fitted.data.made["command"].startswith("optuna-autoresearch surrogate --testbed")
    assert fitted.data.made["machine"]


def test_what_it_cannot_fit_is_one_line(cli: Cli, testbed: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "none" / "x.json.xz"
    assert "a folder that exists" in cli.fails(2, "surrogate", "--out", nowhere)
    assert "must exist" in cli.fails(2, "surrogate", "--out", tmp_path / "x.json.xz")
    fill(cli, testbed, n_studies=1)
    message = cli.fails(2, "surrogate", "--testbed", testbed, "--out", tmp_path / "x.json.xz")
    assert "20 successful trials of 2 studies" in message
    assert not (tmp_path / "x.json.xz").exists()


@pytest.mark.parametrize("content", [b"", b"something else"])
def test_a_broken_file_is_one_line_for_those_who_use_it(
    cli: Cli, tmp_path: Path, content: bytes
) -> None:
    from studies.errors import explain

    (tmp_path / "x.json.xz").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        Surrogate.load(tmp_path / "x.json.xz")
    message, status = explain(caught.value)
    assert status == 2 and "must be a data set" in message
