"""The table of a storage's studies, in terminals of any width."""

from __future__ import annotations

from contextlib import ExitStack
import os
from pathlib import Path
from types import SimpleNamespace

import optuna
from optuna.trial import TrialState
import pytest

from studies.commands.status import status
from studies.commands.work import status as work
from studies.storage.open import opened
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study


NAME = "a-study-of-a-long-name-seed0"


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/s.db"
    add_study(optuna.storages.get_storage(url), "centaur", 0, name=NAME)
    return url


@pytest.mark.parametrize("columns", [60, 80, 200, None])
def test_nothing_is_cut_however_narrow_it_is(
    url: str,
    columns: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    status(url)
    out = capsys.readouterr().out
    words = out.split()
    for heading in ("state", "trials", "baseline", "best", "charged", "LLM"):
        assert heading in words
    assert NAME in out and "(33%)" in out and "ok" in out
    assert max(map(len, out.splitlines())) <= (columns or 200)


def test_why_most_trials_fail_is_said(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.load_study(study_name=NAME, storage=url)
    there = len(study.trials)
    for n in range(there):
        attrs = {"status": "crash", "reason": f"ValueError: {n} [of] all"}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attrs))
        if n == 5:
            status(url)
            assert "ValueError" not in capsys.readouterr().out
    status(url)
    said = f": crash: ValueError: {there - 1} [of] all (trial {2 * there - 1})"
    (line,) = (line for line in capsys.readouterr().out.splitlines() if said in line)
    assert line.startswith(f"{NAME}: commonest failure ({there} of ")


def test_what_its_best_is_worth_is_said_of_a_study_that_was_repeated(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "the command `best --study NAME` goes by repetitions"
    status(url)
    assert said not in capsys.readouterr().out
    storage = optuna.storages.get_storage(url)
    study = optuna.load_study(study_name=NAME, storage=storage)
    add_repetitions(storage, study, [0.123])
    status(url)
    out = capsys.readouterr().out
    assert said in out and "0.123" not in out


def test_what_somebody_else_begins_to_write_to_his_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with opened(url) as his:
        add_study(his, "random", 0, trials=3, name="before")
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    with ExitStack() as writing:
        looks: list[float] = []

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) > 1:
                raise KeyboardInterrupt
            add_study(writing.enter_context(opened(url)), "random", 0, trials=3, name="later")

        monkeypatch.setattr(work, "time", SimpleNamespace(sleep=sleep))
        work.watch(url, "doctor")
    assert "later" in capsys.readouterr().out
