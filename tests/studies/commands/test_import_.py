"""Other people's trials in our storage: files of both forms, with all that is wrong in real ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
import json
import math
from pathlib import Path
import random
import statistics
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
import pytest

from objective.testbed.search_space import PAPER_SPACE
from studies.importing.foreign import read_file
from tests.studies.conftest import Cli


if TYPE_CHECKING:
    from playwright.sync_api import Page


Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file: an object as JSON, a list as JSON lines, text and bytes as they are."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "\n".join(map(json.dumps, content)) + "\n"
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def config(rng: random.Random) -> dict[str, Any]:
    """Random values of the paper's hyperparameters."""
    return {
        name: rng.choice(d.choices)
        if isinstance(d, CategoricalDistribution)
        else rng.randint(d.low, d.high)
        if isinstance(d, IntDistribution)
        else rng.uniform(d.low, d.high)
        for name, d in PAPER_SPACE.items()
        if isinstance(d, (CategoricalDistribution, IntDistribution, FloatDistribution))
    }


def nested(n_trials: int = 20) -> dict[str, Any]:
    """The first form: three methods by three seeds, a fifth of the trials failed."""
    rng = random.Random(0)
    return {
        method: {
            str(seed): [
                {
                    "tid": i,
                    "val_bpb": (ok := rng.random() < 0.8) and rng.uniform(low, 1.1) or 100.0,
                    "success": ok,
                    "wt": 300.0 + rng.random() if ok else 30.0,
                    **config(rng),
                }
                for i in range(n_trials)
            ]
            for seed in range(3)
        }
        for method, low in (("TPE", 0.975), ("Centaur [Opus 4.6]", 0.973), ("Random", 0.985))
    }


def lines_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The same trials in the second form, methods and seeds interleaved."""
    rows = [
        {
            "trial_id": row["tid"],
            "backend": method,
            "seed": int(seed),
            "config": {name: row[name] for name in PAPER_SPACE},
            "val_bpb": row["val_bpb"],
            "success": row["success"],
            "error": None if row["success"] else "GPU out-of-memory",
            "wall_time_seconds": row["wt"],
            "timestamp": f"2026-03-01T{row['tid']:02}:00:0{seed}",
        }
        for method, seeds in content.items()
        for seed, trials in seeds.items()
        for row in trials
    ]
    return sorted(rows, key=lambda row: (row["trial_id"], row["seed"]))


def mean_of_best(content: dict[str, Any]) -> dict[str, float]:
    return {
        method: statistics.mean(
            min(row["val_bpb"] for row in trials if row["success"]) for trials in seeds.values()
        )
        for method, seeds in content.items()
    }


@pytest.mark.parametrize("form", ["nested", "lines"])
def test_the_report_gives_the_files_own_means(cli: Cli, write: Write, form: str) -> None:
    content = nested()
    path = write("trials", content if form == "nested" else lines_of(content))
    done = cli("import", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("180 trials imported into 9 studies\n")
    report = cli("report", "--out", cli.folder / "report", "--json")
    assert report.returncode == 0, report.stderr
    rows = {row["method"]: row for row in json.loads(report.stdout)["methods"]}
    expected = mean_of_best(content)
    assert rows.keys() == expected.keys()
    for method, mean in expected.items():
        assert f"{rows[method]['best_mean']:.4f}" == f"{mean:.4f}"
        trials = [row for seed in content[method].values() for row in seed]
        assert (rows[method]["trials"], rows[method]["n"]) == (60, 3)
        failed = statistics.mean(not row["success"] for row in trials)
        assert rows[method]["failed_share"] == pytest.approx(failed)
        assert rows[method]["hours"] == pytest.approx(sum(row["wt"] for row in trials) / 3600)


def test_an_imported_study_is_like_one_of_our_own(cli: Cli, write: Write) -> None:
    content = nested()
    assert cli("import", write("runs.json", content)).returncode == 0
    study = optuna.load_study(study_name="Centaur [Opus 4.6]-seed2", storage=cli.storage)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == ["val_bpb"]
    facts = study.user_attrs
    assert (facts["method"], facts["seed"]) == ("Centaur [Opus 4.6]", 2)
    assert facts["imported_from"] == "runs.json"
    rows = content["Centaur [Opus 4.6]"]["2"]
    assert len(study.trials) == len(rows)
    for number, (trial, row) in enumerate(zip(study.trials, rows)):
        assert (trial.number, trial.state, trial.value) == (
            number,
            TrialState.COMPLETE,
            row["val_bpb"],
        )
        assert trial.params == {name: row[name] for name in PAPER_SPACE}
        assert trial.distributions == PAPER_SPACE
        attrs = trial.user_attrs
        assert attrs["tid"] == row["tid"]
        assert attrs["training_seconds"] == attrs["total_seconds"] == row["wt"]
        if row["success"]:
            assert (attrs["status"], attrs["val_bpb"]) == ("ok", row["val_bpb"])
        else:
            assert (attrs["status"], trial.value) == ("crash", 100.0)
            assert "val_bpb" not in attrs and attrs["reason"]
        assert trial.datetime_start and trial.datetime_complete
        span = trial.datetime_complete - trial.datetime_start
        assert span.total_seconds() == pytest.approx(row["wt"], abs=1e-3)
    ends = [t.datetime_complete for t in study.trials if t.datetime_complete]
    assert ends == sorted(set(ends)), "best-so-far curves are drawn in this order"
    (status,) = (
        facts
        for facts in json.loads(cli("status", "--json").stdout)
        if facts["study"] == study.study_name
    )
    assert status["ok"] == sum(row["success"] for row in rows)
    # Optuna goes on with it: nothing of the study is incomplete.
    study.sampler = optuna.samplers.TPESampler(seed=0)
    assert study.ask(PAPER_SPACE).number == len(rows)


def test_nothing_is_imported_twice(cli: Cli, write: Write) -> None:
    content = nested(10)
    half = {m: {s: rows[:5] for s, rows in seeds.items()} for m, seeds in content.items()}
    path = write("runs.json", half)
    assert cli("import", path).stdout.startswith("45 trials imported")
    assert cli("import", path).stdout.startswith(
        "0 trials imported into 9 studies, 45 were there before"
    )
    write("runs.json", content)
    assert cli("import", path).stdout.startswith(
        "45 trials imported into 9 studies, 45 were there before"
    )
    for method, seeds in content.items():
        for seed, rows in seeds.items():
            study = optuna.load_study(study_name=f"{method}-seed{seed}", storage=cli.storage)
            assert [t.value for t in study.trials] == [row["val_bpb"] for row in rows]


def row(**changes: Any) -> dict[str, Any]:
    """A line of the second form."""
    return {
        "trial_id": 0,
        "backend": "tpe",
        "seed": 0,
        "config": {"DEPTH": 8},
        "val_bpb": 0.99,
        "success": True,
        "error": None,
        "wall_time_seconds": 300.0,
        "timestamp": "2026-03-01T12:00:00",
        **changes,
    }


def facts_of(cli: Cli, path: Path, *arguments: object) -> dict[str, Any]:
    done = cli("import", path, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert isinstance(facts, dict)
    return facts


def test_what_is_no_trial_is_counted_by_reason(cli: Cli, write: Write) -> None:
    broken = [
        row(),
        row(backend=None),
        row(seed=None),
        row(seed=1.5),
        row(trial_id=None),
        row(success=None),
        row(success="yes"),
        row(val_bpb="0.9"),
        row(config=[1, 2]),
        [1, 2],
    ]
    text = "\n".join(map(json.dumps, broken)) + '\n\n{"trial_id": 3, "backe'
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
        "a line that is no JSON (cut off, perhaps)": 1,
    }


LONG = int("9" * 401)  # no float is as large


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
        row(
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
    foreign = read_file(write("runs.jsonl", [row(seed="seed" + "9" * 5001), row(seed="seed3")]))
    assert [trial.seed for trial in foreign.trials] == [3]
    assert foreign.skipped == {"no seed (an integer)": 1}


@pytest.mark.parametrize("form", ["nested", "lines"])
def test_half_a_character_becomes_a_question_mark(cli: Cli, write: Write, form: str) -> None:
    half = "\ud83d"  # of a pair, as where a text was cut off
    config = {f"ACTIVATION{half}": f"relu{half}"}
    trial = {"tid": 0, "val_bpb": 0.99, "success": True, "wt": 300.0, **config}
    lost = {**trial, "tid": 1, "val_bpb": 100.0, "success": False}
    lines = [
        row(backend=f"tpe{half}", config=config),
        row(backend=f"tpe{half}", trial_id=1, config=config, success=False, error=half),
    ]
    content = {f"tpe{half}": {"0": [trial, lost]}} if form == "nested" else lines
    assert facts_of(cli, write("runs", content))["imported"] == 2
    assert cli.trials("tpe?-seed0")[0].params == {"ACTIVATION?": "relu?"}
    assert cli("report", "--out", cli.folder / "report").returncode == 0


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_at_line_feeds_only(write: Write, end: str) -> None:
    rows = [
        row(trial_id=i, success=False, error=f"a{mark}b")
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
            row(trial_id=5),
            row(trial_id=5),
            row(trial_id=5, val_bpb=0.98, timestamp="2026-03-01T13:00:00"),
            row(trial_id=9, val_bpb=0.97, timestamp="2026-03-01T14:00:00"),
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
        ({"error": None}, "crash", "a failure without a reason: taken as crash"),
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
    failed = row(**{"success": False, "val_bpb": 100.0, "wall_time_seconds": 30.0, **changes})
    facts = facts_of(cli, write("runs.jsonl", [failed]))
    assert facts["notes"] == ({} if note is None else {note: 1})
    (trial,) = cli.trials("tpe-seed0")
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 100.0)
    assert trial.user_attrs["status"] == status
    assert "val_bpb" not in trial.user_attrs
    assert trial.user_attrs["total_seconds"] == 30.0
    assert "\n" not in trial.user_attrs["reason"]


def test_hyperparameters_get_ranges_that_hold_their_values(cli: Cli, write: Write) -> None:
    configs = [
        {
            "DEPTH": 8,
            "MATRIX_LR": 0.04,
            "EXPERTS": 4,
            "DROPOUT": 0.1,
            "GATED": True,
            "ACT": "relu",
        },
        {"DEPTH": 2, "MATRIX_LR": 0, "EXPERTS": 16, "DROPOUT": 0, "GATED": False, "ACT": "gelu"},
        {"DEPTH": 8.0, "MATRIX_LR": math.nan, "EXPERTS": None, "WINDOW_PATTERN": "SLLL"},
        {"DEPTH": 8.5, "EXPERTS": "many", "SIZES": [1, 2]},
    ]
    rows = [row(trial_id=i, config=config) for i, config in enumerate(configs)]
    facts = facts_of(cli, write("runs.jsonl", rows))
    first, second, third, fourth = cli.trials("tpe-seed0")
    assert first.distributions == {
        "DEPTH": IntDistribution(2, 24),
        "MATRIX_LR": PAPER_SPACE["MATRIX_LR"],
        "DROPOUT": FloatDistribution(0.0, 0.1),
        "GATED": CategoricalDistribution([False, True]),
        "ACT": CategoricalDistribution(["gelu", "relu"]),
    }
    assert second.params == {"DEPTH": 2, "DROPOUT": 0.0, "GATED": False, "ACT": "gelu"}
    assert third.params == {"DEPTH": 8, "WINDOW_PATTERN": "SLLL"}
    assert isinstance(third.params["DEPTH"], int)
    assert fourth.params == {}
    assert facts["imported"] == 4
    assert facts["notes"] == {
        "DEPTH: the usual range was widened for": 2,  # 2, and 8.5, which is left out
        "DEPTH: a value left out that isn't in its range": 1,
        "MATRIX_LR: a value left out that isn't in its range": 2,
        "EXPERTS: left out, not of one type or a text": 3,
        "SIZES: left out, not of one type or a text": 1,
        "WINDOW_PATTERN: the usual range was widened for": 1,
    }


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


def test_a_later_file_can_widen_a_range_but_not_choices(cli: Cli, write: Write) -> None:
    first = [row(config={"DEPTH": 8, "ACT": "relu"})]
    later = [row(trial_id=1, config={"DEPTH": 30, "ACT": "gelu"})]
    facts_of(cli, write("a.jsonl", first))
    facts = facts_of(cli, write("b.jsonl", later))
    assert facts["notes"] == {"ACT: a value left out that isn't in its range": 1}
    old, new = cli.trials("tpe-seed0")
    assert (old.params, new.params) == ({"DEPTH": 8, "ACT": "relu"}, {"DEPTH": 30})


def test_times_are_the_files_own_whatever_their_form(cli: Cli, write: Write) -> None:
    stamps: list[Any] = [
        "2026-03-01T12:00:00.5",
        datetime(2026, 3, 1, 11).timestamp(),
        datetime(2026, 3, 1, 10).astimezone().isoformat(),
    ]
    facts_of(
        cli, write("a.jsonl", [row(trial_id=i, timestamp=stamp) for i, stamp in enumerate(stamps)])
    )
    trials = cli.trials("tpe-seed0")
    assert [t.datetime_complete for t in trials] == [
        datetime(2026, 3, 1, 10),
        datetime(2026, 3, 1, 11),
        datetime(2026, 3, 1, 12, 0, 0, 500_000),
    ]
    assert [t.user_attrs["tid"] for t in trials] == [2, 1, 0], "in the order in which they ended"
    some = [row(backend="b", trial_id=i, timestamp=s) for i, s in enumerate(["soon", stamps[0]])]
    facts = facts_of(cli, write("b.jsonl", some))
    assert facts["notes"] == {"a study with times for some trials only: dates are made up": 1}
    assert [t.user_attrs["tid"] for t in cli.trials("b-seed0")] == [0, 1]


def test_trials_of_others_do_not_get_into_our_own_studies(
    cli: Cli, write: Write, testbed: Path
) -> None:
    arguments = ("--method", "random", "--testbed", testbed, "--trials", 1)
    assert cli("run", *arguments, "--study", "tpe-seed0").returncode == 0
    path = write("runs.jsonl", [row()])
    message = cli.fails(2, "import", path)
    assert "study 'tpe-seed0' of --storage is no import" in message and "--prefix" in message
    assert facts_of(cli, path, "--prefix", "paper ")["studies"] == {"paper tpe-seed0": 1}
    (imported,) = cli.trials("paper tpe-seed0")
    assert imported.params == {"DEPTH": 8}
    assert len(cli.trials("tpe-seed0")) == 1


def test_ranges_can_be_those_of_a_testbed(cli: Cli, write: Write, testbed: Path) -> None:
    facts_of(cli, write("runs.jsonl", [row(config={"DEPTH": 8})]), "--testbed", testbed)
    (trial,) = cli.trials("tpe-seed0")
    assert trial.distributions == {"DEPTH": IntDistribution(1, 8)}


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
        ('{"a": 1}\n{"b": 2}\n', "something else"),
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


def test_a_missing_file_and_one_without_a_trial_are_one_line(cli: Cli, write: Write) -> None:
    assert "must be a readable file" in cli.fails(2, "import", cli.folder / "none.json")
    path = write("runs.jsonl", [row(seed=None), row(seed=None, trial_id=1)])
    message = cli.fails(1, "import", path)
    assert "2 x no seed (an integer)" in message


def test_keys_do_not_depend_on_the_order_of_a_rows_values(write: Write) -> None:
    a = row()
    b = dict(reversed(a.items()))
    keys = [read_file(write("f", [content])).trials[0].key for content in (a, b)]
    assert keys[0] == keys[1]


@pytest.mark.browser
def test_the_dashboard_shows_an_imported_study(cli: Cli, write: Write, page: Page) -> None:
    content = nested(12)
    assert cli("import", write("runs.json", content)).returncode == 0
    study = optuna.load_study(study_name="TPE-seed1", storage=cli.storage)
    address = cli.dashboard(cli.storage)
    page.goto(f"{address}/dashboard")
    page.get_by_text("Centaur [Opus 4.6]-seed0").first.wait_for()
    page.goto(f"{address}/dashboard/studies/{study._study_id}")
    page.wait_for_function(
        "n => document.querySelectorAll('#plot-history .scatterlayer .point').length >= n",
        arg=12,
    )
    best = study.best_trial
    page.goto(f"{address}/dashboard/studies/{study._study_id}/trials?numbers={best.number}")
    for text in ("MATRIX_LR", str(best.value), "training_seconds"):
        page.get_by_text(text).first.wait_for()
