"""Attributes that anybody may have stored, and what the commands make of them."""

from __future__ import annotations

from dataclasses import fields
import json
import logging
import math
from pathlib import Path
import shutil
import sqlite3
import sys
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import create_trial
from optuna.trial import TrialState
import psutil
import pytest

from objective import Interface
from objective.worker import WORKER
from studies import cli
from studies.facts import study_facts
from studies.storage.heartbeat import BEAT
from studies.storage.open import opened
from studies.storage.open import StorageError
from studies.storage.recovery import abandoned
from studies.storage.recovery import recover
from tests.studies.conftest import Cli


DEEP: Any = json.loads("[" * 900 + "]" * 900)
ODD: list[Any] = [[], {}, "", "x\x1b[2J", -1, 1e308, float("inf"), float("nan"), True, None, [1]]
ODD += ["[1]", '{"x": [1]}', '{"x": "text"}', "9" * 5000, {"a": {"b": []}}, ["a", 1], 10**30]
TRIAL_ATTRIBUTES = ["status", "reason", "source", "effective", "training_seconds"]
TRIAL_ATTRIBUTES += ["total_seconds", "llm_seconds", "llm_attempts", "llm_model", "peak_memory_mb"]
TRIAL_ATTRIBUTES += ["measured_seconds"]
SYSTEM_ATTRIBUTES = [WORKER, BEAT, "failed_trial", "retry_history", "constraints"]
SYSTEM_ATTRIBUTES += ["autoresearch:kills", "artifacts:x", "fixed_params"]
SYSTEM_ATTRIBUTES += ["llm:relative_params", "smac:proposal", "x_for_tell"]
STUDY_ATTRIBUTES = ["method", "seed", "budget_trials", "budget_seconds", "llm_ratio", "comparison"]
STUDY_ATTRIBUTES += ["train_seconds", "model", "variant", "run_error"]
STUDY_ATTRIBUTES += [
    "metric_unit",
    "charge_llm",
    "vary_seed",
    "imported_from",
    "files",
    "min_gain",
]
STUDY_ATTRIBUTES += ["failure_value", "runtime", "budget_until", "budget_wall", "budget_confirm"]
STUDY_ATTRIBUTES += [field.name for field in fields(Interface)]


def _fill(storage: BaseStorage) -> None:
    """Three studies for each odd value: on a trial, on the system's part of one, on the study."""
    for i, odd in enumerate(ODD):
        for part in ("user", "system", "study"):
            study = optuna.create_study(storage=storage, study_name=f"{part}{i}")
            study.set_user_attr("method", ("random", "tpe")[i % 2])
            good = {"status": "ok", "training_seconds": 1.0}
            user = dict.fromkeys(TRIAL_ATTRIBUTES, odd) if part == "user" else {}
            system = dict.fromkeys(SYSTEM_ATTRIBUTES, odd) if part == "system" else {}
            for state in (TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL):
                study.add_trial(
                    create_trial(
                        state=state,
                        value=0.5 if state == TrialState.COMPLETE else None,
                        params={"x": 0.5},
                        distributions={"x": FloatDistribution(0, 1)},
                        user_attrs=good | user,
                        system_attrs=system,
                    )
                )
            if part == "study":
                for name in STUDY_ATTRIBUTES:
                    study.set_user_attr(name, odd)


URLS = ["sqlite:///{}/s.db", "journal:{}/s.log"]


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    address: str = request.param.format(tmp_path)
    return address


@pytest.fixture(scope="module", params=URLS)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A storage of odd values, for `odd` to copy: one of URLS, and the folder."""
    folder = tmp_path_factory.mktemp("odd")
    with opened(request.param.format(folder)) as storage:
        _fill(storage)
    return request.param, folder


@pytest.fixture
def odd(filled: tuple[str, Path], tmp_path: Path) -> str:
    """A storage of odd values of the test's own."""
    url, folder = filled
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return url.format(tmp_path)


def _run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Give a command in this process; return its status and what it printed."""
    monkeypatch.setattr(sys, "argv", ["optuna-autoresearch", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(str(ended.value.code)), out, err


def test_what_is_no_attribute_of_ours_is_left_out_and_all_else_is_shown(
    odd: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING), opened(odd, read_only=True) as storage:
        for name in optuna.get_all_study_names(storage):
            study = optuna.load_study(study_name=name, storage=storage)
            facts = study_facts(study)
            json.dumps(facts)
            assert facts["trials"]["complete"] == 1
            abandoned(study)
    assert "is not as it should be" in caplog.text and "\x1b" not in caplog.text
    status, out, err = _run(monkeypatch, capsys, "status", "--storage", odd)
    assert status == 0 and all(f"study{i}" in out for i in range(len(ODD)))
    assert "\x1b" not in out + err


@pytest.mark.parametrize("filled", URLS[:1], indirect=True)
def test_what_is_no_attribute_of_ours_keeps_nobody_from_a_report(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = _run(
        monkeypatch, capsys, "report", "--storage", odd, "--out", tmp_path / "r", "--json"
    )
    assert status == 0, err
    status, out, _ = _run(monkeypatch, capsys, "doctor", "--storage", odd, "--json")
    assert status == 0 and isinstance(json.loads(out), list)


def test_of_what_samplers_and_studies_keep_the_odd_is_left_out(url: str) -> None:
    with opened(url) as storage:
        study = optuna.create_study(storage=storage, study_name="s")
        for name, odd in {
            "files": {"prepare.py": 5},
            "failure_value": float("inf"),
            "runtime": {"env": "A=1"},
            "budget_until": "tomorrow",
            **{field.name: {"a": [1]} for field in fields(Interface)},
        }.items():
            study.set_user_attr(name, odd)
        for name, odd in (("study:metric_names", []), ("smac:seed", "[")):
            storage.set_study_system_attr(study._study_id, name, odd)
        odds = {"llm:relative_params": '["x"]', "smac:proposal": {"x": [1]}, "x_for_tell": {}}
        study.add_trial(create_trial(value=0.5, system_attrs={"kept": [], **odds}))
    with opened(url) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        assert study.user_attrs == {} and study.metric_names is None
        assert storage.get_study_system_attrs(study._study_id) == {}
        assert study.trials[0].system_attrs == {"kept": []}


def test_a_worker_takes_no_harm_from_them(odd: str) -> None:
    with opened(odd) as storage:
        for name in optuna.get_all_study_names(storage):
            recover(optuna.load_study(study_name=name, storage=storage))


def test_a_study_of_ours_has_none_but_sound_ones(
    cli: Cli, testbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No limit of memory, of cost or of tokens is a sound one."""
    run: list[object] = ["run", "--method", "random", "--testbed", testbed]
    with caplog.at_level(logging.WARNING):
        for command in ([*run, "--trials", 2, "--confirm", 1], ["status"], ["report"], ["doctor"]):
            assert cli(*command).returncode == 0
    assert "not as it should be" not in caplog.text


def _break(file: Path, sql: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(sql)
    connection.close()


def _range(high: float) -> str:
    return json.dumps(
        {
            "name": "FloatDistribution",
            "attributes": {"low": 0.0, "high": high, "log": False, "step": None},
        }
    )


DEEP_JSON = "[" * 100_000
BROKEN = {
    "no JSON": "UPDATE trial_user_attributes SET value_json='{'",
    "deep JSON": f"UPDATE trial_user_attributes SET value_json='{DEEP_JSON}'",
    "a deep attribute of the study": f"UPDATE study_user_attributes SET value_json='{DEEP_JSON}'",
    "a date past 9999": "UPDATE trials SET datetime_complete='99999-01-01 00:00:00.000000'",
    "a state that is none": "UPDATE trials SET state='GONE'",
    "a distribution that is none": "UPDATE trial_params SET distribution_json='{}'",
    "no value": "DELETE FROM trial_values",
    "a direction that is none": "UPDATE study_directions SET direction='UP'",
    "a value of text": "UPDATE trial_values SET value='text'",
    "a parameter of text": "UPDATE trial_params SET param_value='text'",
    "a number twice": "UPDATE trials SET number=1",
    "a name of bytes": "UPDATE trial_params SET param_name=x'ff00'",
    "a range of nothing": f"UPDATE trial_params SET distribution_json='{_range(math.nan)}'",
    "a range past all floats": f"UPDATE trial_params SET distribution_json='{_range(10**400)}'",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage of a study for each way to break one, and of a sound one."""
    folder = tmp_path_factory.mktemp("broken")
    url = f"sqlite:///{folder}/s.db"
    with opened(url) as storage:
        for name in (*BROKEN, "sound"):
            study = optuna.create_study(storage=storage, study_name=name)
            study.set_user_attr("method", "random")
            trial = create_trial(
                value=0.5,
                params={"x": 0.5},
                distributions={"x": FloatDistribution(0, 1)},
                user_attrs={"status": "ok"},
            )
            study.add_trials([trial, trial])
    for number, change in enumerate(BROKEN.values(), start=1):
        key = f"study_id={number}" if "study_" in change else f"trial_id={2 * number - 1}"
        _break(folder / "s.db", f"{change} WHERE {key}")
    return url


def test_studies_that_cannot_be_read_are_a_line_each_and_the_others_are_shown(
    broken: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = _run(monkeypatch, capsys, "status", "--storage", broken)
    assert status == 0 and "sound" in out
    lines = [f"study '{what}' can't be read" for what in BROKEN]
    assert sorted(line.partition(": ")[0] for line in err.splitlines()) == sorted(lines)
    arguments = ["report", "--storage", broken, "--out", tmp_path / "r"]
    status, out, err = _run(monkeypatch, capsys, *arguments)
    assert status == 0 and "1 run, 2 trial" in out
    assert [line for line in lines if line not in err] == []
    status, _, err = _run(monkeypatch, capsys, "doctor", "--storage", broken, "--yes")
    assert status == 0
    needed = [line for line in lines if "attribute of the study" not in line]
    assert [line for line in needed if line not in err] == []
    status, out, _ = _run(monkeypatch, capsys, "revalidate", "--storage", broken)
    assert [line for line in lines if line not in out] == []


@pytest.mark.parametrize("what", BROKEN)
def test_a_study_that_cannot_be_read_is_neither_run_nor_has_a_best(
    what: str, broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--method", "random", "--study", what, "--storage", broken]
    status, _, err = _run(monkeypatch, capsys, *arguments, "--trials", 3, "--no-check")
    assert status == 2 and f"study '{what}' can't be read: " in err.splitlines()[-1]
    status, _, err = _run(monkeypatch, capsys, "best", "--study", what, "--storage", broken)
    assert status == 2 and err.startswith(f"error: study '{what}' can't be read: ")


def test_a_study_that_lacks_a_number_is_shown_and_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with opened(url) as storage:
        study = optuna.create_study(storage=storage, study_name="s")
        for _ in range(2):
            study.add_trial(create_trial(value=0.5, user_attrs={"status": "ok"}))
    _break(tmp_path / "s.db", "UPDATE trials SET number=7 WHERE trial_id=2")
    for command in ("status", "best"):
        assert _run(monkeypatch, capsys, command, "--storage", url)[0] == 0
    arguments = ["run", "--method", "random", "--study", "s", "--storage", url, "--trials", 3]
    status, _, err = _run(monkeypatch, capsys, *arguments, "--no-check")
    assert status == 2 and "its trials must be numbered 0 to 1, but aren't" in err


def test_of_a_learning_curve_only_numbers_are_kept(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQLite and journals keep whatever they were given, in the place of a step and of a value."""
    with opened(url) as storage:
        study = optuna.create_study(storage=storage, study_name="s")
        study.set_user_attr("method", "random")
        trial = study.ask({"x": FloatDistribution(0, 1)})
        for step in (111, 222, 333):
            trial.report(step / 1000, step)
        study.tell(trial, 0.5)
    if url.startswith("sqlite"):
        change = "UPDATE trial_intermediate_values SET "
        _break(tmp_path / "s.db", change + "intermediate_value = 'odd' WHERE step = 222")
        _break(tmp_path / "s.db", change + "step = 'odd' WHERE step = 333")
    else:
        journal = tmp_path / "s.log"
        text = journal.read_text()
        changed = text.replace('value":0.222', 'value":"odd"').replace('step":333', 'step":"odd"')
        assert changed.count('"odd"') == 2
        journal.write_text(changed)
    with opened(url, read_only=True) as storage:
        (trial_read,) = optuna.load_study(study_name="s", storage=storage).trials
    assert trial_read.intermediate_values == {111: 0.111}
    command = ("report", "--storage", url, "--out", tmp_path / "r", "--json")
    assert _run(monkeypatch, capsys, *command)[0] == 0


def test_a_damaged_page_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with opened(url) as storage:
        optuna.create_study(storage=storage, study_name="s").optimize(
            lambda trial: trial.suggest_float("x", 0, 1), n_trials=5
        )
    file = tmp_path / "s.db"
    data = bytearray(file.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 200] = b"\xa5" * 200
    file.write_bytes(data)
    for command in ("status", "report", "doctor", "revalidate"):
        status, _, err = _run(monkeypatch, capsys, command, "--storage", url)
        assert status in (0, 1, 2) and len(err.splitlines()) == 1, (command, err)
        assert "malformed" in err or "can't be read" in err or "SQLite" in err


def test_a_storage_that_is_only_read_is_not_written(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(url) as storage:
        study = optuna.create_study(storage=storage, study_name="s")
        study.set_user_attr("method", "random")
        study.add_trial(create_trial(value=0.5, user_attrs={"status": "ok"}))
    folder = tmp_path
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with opened(url, read_only=True) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        with pytest.raises((StorageError, StorageInternalError)):
            study.set_user_attr("k", 1)
    for command in ("status", "doctor"):
        assert _run(monkeypatch, capsys, command, "--storage", url)[0] == 0
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: after[name] for name in before} == before
    assert not {name for name in after if "claim" in name or "artifacts" in name}


@pytest.mark.parametrize(
    "name",
    ["train_seconds", "memory_limit_mb", "wall_seconds", "runtime", "budget_trials", "run_error"],
)
def test_none_says_that_there_is_no_limit(url: str, name: str) -> None:
    with opened(url) as storage:
        optuna.create_study(storage=storage, study_name="s").set_user_attr(name, None)
        assert optuna.load_study(study_name="s", storage=storage).user_attrs == {name: None}


def test_whoever_opens_a_storage_for_a_while_gives_its_connections_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with opened(url) as storage:
        optuna.create_study(storage=storage)
        assert _connections(tmp_path) > 0
    assert _connections(tmp_path) == 0


def _connections(folder: Path) -> int:
    """Count this process's open files in a folder."""
    return sum(Path(file.path).is_relative_to(folder) for file in psutil.Process().open_files())
