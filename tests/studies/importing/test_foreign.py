"""Reading of other programs' files, and the counting of rows that are no trials."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState
import pytest

from studies.errors import Misuse
from studies.importing import foreign
from studies.importing.foreign import read_file
from studies.storage.open import opened
from tests.studies.conftest import Cli
from tests.studies.importing.conftest import a_row
from tests.studies.importing.conftest import facts_of
from tests.studies.importing.conftest import LONG
from tests.studies.importing.conftest import Write


if TYPE_CHECKING:
    pass


def test_what_is_no_trial_is_counted_by_reason(cli: Cli, write: Write) -> None:
    broken = [
        a_row(),
        a_row(backend=None),
        a_row(seed=None),
        a_row(seed=1.5),
        a_row(trial_id=None),
        a_row(success=None),
        a_row(success="yes"),
        a_row(val_bpb="0.9"),
        a_row(config=[1, 2]),
        [1, 2],
    ]
    deep = json.dumps(a_row(config={"x": 0})).replace("0", "[" * 700 + "]" * 700, 1)
    text = "\n".join([*map(json.dumps, broken), deep]) + '\n\n{"trial_id": 3, "backe'
    facts = facts_of(cli, write("runs.jsonl", text))
    assert facts["imported"] == 1
    assert facts["skipped"] == {
        "no method": 1,
        "no seed (an integer)": 2,
        "no identifier (an integer)": 1,
        "success is neither true nor false": 2,
        "val_bpb is not a number": 1,
        "config is not an object": 1,
        "not an object": 1,
        "nested too deep": 1,
        "a line that is no JSON (cut off, perhaps)": 1,
    }


def test_a_pipe_is_read_and_a_device_without_end_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", newline="") as file:
        file.write("\ufeff" + json.dumps(a_row()) + "\r\n")
    assert len(read_file(Path(f"/dev/fd/{reader}")).trials) == 1
    os.close(reader)
    monkeypatch.setattr(foreign, "_LARGEST_FILE", 2**21)
    with pytest.raises(Misuse, match="/dev/zero must have at most 2097152 bytes, but has more"):
        read_file(Path("/dev/zero"))


@pytest.mark.parametrize("digits", [401, 5001])  # Python's json reads no integer of 5,001 digits
@pytest.mark.parametrize("form", ["nested", "lines"])
def test_a_number_that_no_float_can_hold_spoils_its_trial_only(
    cli: Cli, write: Write, form: str, digits: int
) -> None:
    good = {"tid": 0, "val_bpb": 0.99, "success": True, "wt": 300.0, "DEPTH": 8}
    rows = [
        good,
        {**good, "tid": 1, "val_bpb": LONG},
        {**good, "tid": 2, "DEPTH": -LONG},
        {**good, "tid": 3, "wt": LONG},
        {**good, "tid": 4, "wt": 1e12},  # later than any date
        {**good, "tid": LONG},
    ]
    content = {"tpe": {"0": rows}}
    lines = [
        a_row(
            trial_id=r["tid"],
            config={"DEPTH": r["DEPTH"]},
            val_bpb=r["val_bpb"],
            wall_time_seconds=r["wt"],
        )
        for r in rows
    ]
    text = json.dumps(content) if form == "nested" else "\n".join(map(json.dumps, lines))
    facts = facts_of(cli, write("runs", text.replace(str(LONG), "9" * digits)))
    assert facts["imported"] == 5
    assert facts["skipped"] == {"no identifier (an integer)": 1}
    assert facts["notes"] == {
        "a success whose value isn't finite: taken as a failure, nan": 1,
        "DEPTH: a value left out that isn't in its range": 1,
        "no time: charged nothing": 2,
    }
    trials = {t.user_attrs["tid"]: t for t in cli.trials("tpe-seed0")}
    assert [trials[i].user_attrs["status"] for i in range(5)] == ["ok", "nan", "ok", "ok", "ok"]
    assert [trials[i].params for i in range(5)] == [
        {"DEPTH": 8} if i != 2 else {} for i in range(5)
    ]
    assert [trials[i].user_attrs["total_seconds"] for i in range(2, 5)] == [300.0, 0.0, 0.0]


def test_a_seed_in_words_may_have_any_number_of_digits(write: Write) -> None:
    foreign = read_file(
        write("runs.jsonl", [a_row(seed="seed" + "9" * 5001), a_row(seed="seed3")])
    )
    assert [trial.seed for trial in foreign.trials] == [3]
    assert foreign.skipped == {"no seed (an integer)": 1}


@pytest.mark.parametrize("form", ["nested", "lines"])
def test_half_a_character_becomes_a_question_mark(cli: Cli, write: Write, form: str) -> None:
    half = "\ud83d"  # of a pair, as where a text was cut off
    config = {f"ACTIVATION{half}": f"relu{half}"}
    trial = {"tid": 0, "val_bpb": 0.99, "success": True, "wt": 300.0, **config}
    lost = {**trial, "tid": 1, "val_bpb": 100.0, "success": False}
    lines = [
        a_row(backend=f"tpe{half}", config=config),
        a_row(backend=f"tpe{half}", trial_id=1, config=config, success=False, error=half),
    ]
    content = {f"tpe{half}": {"0": [trial, lost]}} if form == "nested" else lines
    assert facts_of(cli, write("runs", content))["imported"] == 2
    assert cli.trials("tpe?-seed0")[0].params == {"ACTIVATION?": "relu?"}
    assert cli("report", "--out", cli.folder / "report").returncode == 0


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_at_line_feeds_only(write: Write, end: str) -> None:
    rows = [
        a_row(trial_id=i, success=False, error=f"a{mark}b")
        for i, mark in enumerate("\u2028\u2029\u0085")
    ]
    text = end.join(json.dumps(r, ensure_ascii=False) for r in rows) + end
    foreign = read_file(write("runs.jsonl", text))
    assert len(foreign.trials) == 3 and not foreign.skipped


def test_the_same_trial_counts_once_and_a_shared_identifier_twice(cli: Cli, write: Write) -> None:
    """Two processes that wrote one file gave other trials the same identifier."""
    path = write(
        "runs.jsonl",
        [
            a_row(trial_id=5),
            a_row(trial_id=5),
            a_row(trial_id=5, val_bpb=0.98, timestamp="2026-03-01T13:00:00"),
            a_row(trial_id=9, val_bpb=0.97, timestamp="2026-03-01T14:00:00"),
        ],
    )
    facts = facts_of(cli, path)
    assert facts["imported"] == 3
    assert facts["skipped"] == {"the same trial again": 1}
    assert facts["notes"] == {"another trial with the identifier of an earlier one": 1}
    trials = cli.trials("tpe-seed0")
    assert [(t.number, t.user_attrs["tid"]) for t in trials] == [(0, 5), (1, 5), (2, 9)]
    assert facts_of(cli, path)["imported"] == 0


@pytest.mark.parametrize(
    ("changes", "status", "note"),
    [
        ({"error": "CUDA out of memory. Tried to"}, "oom", None),
        ({"error": "GPU out-of-memory"}, "oom", None),
        ({"error": "Timed out after 900 s"}, "timeout", None),
        ({"error": "loss is NaN"}, "nan", None),
        ({"error": "AssertionError\n  at line 3"}, "crash", None),
        ({"error": None}, "unknown", "a failure without a reason: its class is unknown"),
        ({"val_bpb": 0.95, "error": "FAIL"}, "crash", None),
        (
            {"success": True, "val_bpb": None},
            "no-metric",
            "a success without a value: taken as a failure, no-metric",
        ),
        (
            {"success": True, "val_bpb": math.nan},
            "nan",
            "a success whose value isn't finite: taken as a failure, nan",
        ),
        (
            {"success": True, "val_bpb": 100.0},
            "crash",
            "a success of 100, the failure value: taken as a failure",
        ),
    ],
)
def test_failures_have_their_class_and_no_value(
    cli: Cli, write: Write, changes: dict[str, Any], status: str, note: str | None
) -> None:
    failed = a_row(**{"success": False, "val_bpb": 100.0, "wall_time_seconds": 30.0, **changes})
    facts = facts_of(cli, write("runs.jsonl", [failed]))
    assert facts["notes"] == ({} if note is None else {note: 1})
    (trial,) = cli.trials("tpe-seed0")
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 100.0)
    assert trial.user_attrs["status"] == status
    assert "val_bpb" not in trial.user_attrs
    assert trial.user_attrs["total_seconds"] == 30.0
    assert "\n" not in trial.user_attrs.get("reason", "")


def test_what_is_no_hyperparameter_in_the_first_form_is_said(cli: Cli, write: Write) -> None:
    trial = {"tid": 1, "val_bpb": 0.99, "success": True, "wt": None, "DEPTH": 8, "desc": "wider"}
    facts = facts_of(cli, write("runs.json", {"agent": {"seed3": [trial, 7], "x": None}}))
    assert facts["skipped"] == {
        "not an object": 1,
        "a method or seed without a list of trials": 1,
    }
    assert facts["notes"] == {
        "desc: left out, since a hyperparameter is upper-case": 1,
        "no time: charged nothing": 1,
    }
    (stored,) = cli.trials("agent-seed3")
    assert stored.params == {"DEPTH": 8}
    assert stored.user_attrs["total_seconds"] == 0.0


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "no JSON"),
        ("tid,val_bpb\n0,0.99\n", "no JSON"),
        ("[1, 2]", "a JSON array"),
        ("{}", "a JSON object without a method"),
        ("3", "a JSON number"),
        ('{"a": 1}', "a JSON object of something else"),
        ('{"a": {"b": 1}}', "a JSON object of something else"),
        ('{"a": 1, "\\u001b[2J": 3}\n{"b": 2}\n', "JSON lines with 'a, \ufffd[2J'."),
        (b"\xff\xfe\x00", "no UTF-8"),
        ("[" * 100_000, "nobody would write"),
    ],
)
def test_a_file_of_neither_form_is_one_line_that_says_what_was_expected(
    cli: Cli, write: Write, content: str | bytes, what: str
) -> None:
    message = cli.fails(2, "import", write("file", content))
    assert what in message
    assert "{method: {seed: [{tid, val_bpb, success, wt, ...}]}}" in message
    assert not (cli.folder / "autoresearch.db").exists(), "nothing is made of it"


@pytest.mark.parametrize("url", ["sqlite:///own.db", "journal:own.db"])
def test_a_database_of_optuna_is_said_to_need_no_import(cli: Cli, url: str) -> None:
    scheme, path = url[: -len("own.db")], cli.folder / "own.db"
    with opened(scheme + str(path)) as storage:
        optuna.create_study(storage=storage).optimize(lambda t: t.suggest_float("x", 0, 1), 2)
    message = cli.fails(2, "import", path)
    assert "need no import" in message and f"--storage {scheme}{path}" in message
    assert not (cli.folder / "autoresearch.db").exists(), "nothing is made of it"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"tpe": {"0": []}, "tpe": {"0": []}}', "tpe"),
        ('{"tpe": {"0": [], "0": []}}', "0"),
        ('{"tpe": {"0": [{"tid": 0, "DEPTH": 1, "DEPTH": 2}]}}', "DEPTH"),
        (json.dumps(a_row()) + '\n{"backend": "a", "val_bpb": 1, "val_bpb": 2}\n', "val_bpb"),
        ('{"\\u001b[2J": 1, "\\u001b[2J": 2}', "�[2J"),
    ],
)
def test_a_name_twice_is_refused_since_json_would_keep_the_last(
    write: Write, content: str, name: str
) -> None:
    with pytest.raises(Misuse, match="each name once in an object") as raised:
        read_file(write("f", content))
    assert f"but {name!r} is in one twice" in str(raised.value)


def test_keys_do_not_depend_on_the_order_of_a_rows_values(write: Write) -> None:
    a = a_row()
    b = dict(reversed(a.items()))
    keys = [read_file(write("f", [content])).trials[0].key for content in (a, b)]
    assert keys[0] == keys[1]
