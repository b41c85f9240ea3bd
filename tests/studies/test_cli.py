"""The command line on a testbed that only sleeps; in real processes where it matters."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib.metadata import version
import json
import os
from pathlib import Path
import pickle
import shlex
import signal
import sqlite3
import subprocess
import sys
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest

from studies.budget import charge
from studies.budget import is_evaluated
from tests.studies.conftest import Cli
from tests.studies.conftest import Gate


STATES = {TrialState.COMPLETE, TrialState.FAIL}


def run(testbed: Path, method: str = "random", **others: object) -> list[object]:
    """Arguments of a ``run`` of study ``s``; ``--testbed`` and ``--study`` are given."""
    words: list[object] = ["run", "--testbed", testbed, "--study", "s", "--method", method]
    for name, value in others.items():
        words += [f"--{name.replace('_', '-')}", value]
    return words


def evaluated(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if is_evaluated(t)]


def test_a_study_ends_with_a_table_and_the_commands_to_type_next(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, trials=4))
    assert done.returncode == 0, done.stderr
    assert "val_bpb" in done.stdout and "LR" in done.stdout
    lines = [line.split("  |")[0].split()[:3] for line in done.stderr.splitlines()]
    assert [line[:2] for line in lines] == [["trial", str(n)] for n in range(4)]
    assert "done 4/4" in done.stderr.splitlines()[-1]
    commands = [
        line.strip()
        for line in done.stdout.splitlines()
        if line.strip().startswith("optuna-autoresearch ")
    ]
    assert [shlex.split(command)[1] for command in commands] == ["status", "dashboard"]
    again = cli(*shlex.split(commands[0])[1:])
    assert again.returncode == 0 and "3 ok" in again.stdout


def test_json_is_all_that_is_on_stdout(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, "cma-es", trials=3, seed=5), "--json")
    facts = json.loads(done.stdout)
    assert facts["method"] == "cma-es" and facts["seed"] == 5
    assert facts["evaluated"] == 3
    assert facts["baseline"]["params"] == {"DEPTH": 4, "LR": 0.01, "PATTERN": "ab"}
    assert facts["baseline"]["val_bpb"] == pytest.approx(2.1)
    best = min(t.value for t in cli.trials("s") if t.value is not None)
    assert facts["best"]["val_bpb"] == pytest.approx(best)
    assert json.loads(cli("status", "--json").stdout) == [facts]


def test_failures_are_counted_by_class_and_never_the_best(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    train.write_text(train.read_text().replace("if DEPTH == 8", 'if PATTERN == "ba"'))
    facts = json.loads(cli(*run(testbed, trials=8), "--json").stdout)
    failed = [t for t in cli.trials("s") if t.params["PATTERN"] == "ba"]
    assert failed and facts["failures"] == {"oom": len(failed)}
    assert facts["ok"] == 8 - len(failed)
    assert facts["best"]["params"]["PATTERN"] == "ab"


def test_what_looks_like_markup_is_shown_as_it_is(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    fails = 'if PATTERN == "ba":\n    raise OSError("no room in [/data/x]")'
    train.write_text(train.read_text().replace("if DEPTH == 8:\n    raise MemoryError", fails))
    done = cli(*run(testbed, trials=8), "--study", "[/bed]")
    assert done.returncode == 0, done.stderr
    assert "OSError: no room in [/data/x]" in done.stderr and "study [/bed]" in done.stdout
    assert " [/bed] " in cli("status").stdout


def test_the_same_command_goes_on_and_adds_nothing_to_what_is_done(
    cli: Cli, testbed: Path
) -> None:
    assert cli(*run(testbed, trials=2)).returncode == 0
    more = cli(*run(testbed, trials=4))
    assert "2 finished" in more.stderr
    assert cli(*run(testbed, trials=4)).returncode == 0
    trials = cli.trials("s")
    assert len(trials) == 4
    assert len({tuple(t.params.values()) for t in trials}) == 4


def test_a_budget_of_training_time_is_used_up_and_not_overrun(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, budget="4s", train_seconds="0.5s"))
    assert done.returncode == 0, done.stderr
    charged = sum(map(charge, cli.trials("s")))
    dearest = max(map(charge, cli.trials("s")))
    assert 4 - dearest < charged <= 4


def test_two_processes_on_one_file_share_the_trials(cli: Cli, testbed: Path) -> None:
    both = [cli.start(*run(testbed, trials=12)) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    trials = cli.trials("s")
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 12
    assert len({tuple(t.params.values()) for t in trials}) == 12
    assert trials[0].params == {"DEPTH": 4, "LR": 0.01, "PATTERN": "ab"}
    workers = {tuple(t.system_attrs["autoresearch:worker"][:2]) for t in trials}
    assert len(workers) == 2


def test_workers_share_the_trials_of_one_command(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, trials=10, workers=2), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluated"] == 10
    trials = cli.trials("s")
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 10
    assert len({t.system_attrs["autoresearch:worker"][1] for t in trials}) == 2
    assert done.stderr.count("\ntrial ") == 9  # and the first line


def test_an_error_of_a_worker_is_the_error_of_the_command(cli: Cli, testbed: Path) -> None:
    (testbed / "train.py").write_text("DEPTH = 4\nLR = 0.01\nPATTERN = 'ab'\n1 / 0\n")
    done = cli(*run(testbed, trials=4, workers=2))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_study_says_how_to_go_on_and_loses_nothing(
    number: signal.Signals, workers: int, cli: Cli, testbed: Path
) -> None:
    gate = Gate(testbed, through=2)
    arguments = run(testbed, trials=5, workers=workers)
    process = cli.start(*arguments)
    gate.wait(held=workers)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    gate.open()
    stopped = cli.trials("s")
    assert not [t for t in stopped if t.state == TrialState.RUNNING]
    waiting = [t.params for t in stopped if t.state == TrialState.WAITING]
    assert waiting
    command = shlex.split(err.splitlines()[-1])
    assert command == ["optuna-autoresearch", *map(str, arguments)]
    assert cli(*command[1:]).returncode == 0
    trials = cli.trials("s")
    assert len(evaluated(trials)) == 5
    assert {t.state for t in trials} == STATES
    # One that was stopped while it got its parameters has only some of them.
    for params in waiting:
        assert any(params.items() <= t.params.items() for t in evaluated(trials)), (
            stopped,
            trials,
        )


def cma_es_states(trials: Sequence[FrozenTrial]) -> dict[int, Any]:
    """Trial number -> the optimizer that CMA-ES stored on it after a generation."""
    states = {}
    for trial in trials:
        parts = sorted(
            (int(key.rpartition(":")[2]), value)
            for key, value in trial.system_attrs.items()
            if key.startswith("cma:optimizer:")
        )
        if parts:
            states[trial.number] = pickle.loads(bytes.fromhex("".join(p for _, p in parts)))
    return states


def test_after_kill_9_the_killed_trial_is_repeated_and_cma_es_goes_on(
    cli: Cli, testbed: Path
) -> None:
    gate = Gate(testbed, through=9)
    arguments = run(testbed, "cma-es", trials=16)
    process = cli.start(*arguments)
    gate.wait(held=1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    gate.open()
    killed = cli.trials("s")[9]
    assert killed.state == TrialState.RUNNING
    before = cma_es_states(cli.trials("s"))

    assert cli(*arguments).returncode == 0
    trials = cli.trials("s")
    assert len(evaluated(trials)) == 16
    assert {t.state for t in trials} == STATES
    assert trials[9].state == TrialState.FAIL
    assert trials[10].params == killed.params
    assert trials[10].system_attrs["cma:generation"] == killed.system_attrs["cma:generation"]

    # The optimizer after the kill is the one before it, told the generation in between.
    states = cma_es_states(trials)
    (last_before,), (first_after, *_) = sorted(before), sorted(states.keys() - before.keys())
    expected, found = before[last_before], states[first_after]
    generation = [
        t
        for t in trials[:first_after]
        if t.state == TrialState.COMPLETE
        and t.system_attrs.get("cma:generation") == expected.generation
    ]
    assert 10 in [t.number for t in generation]
    space = {n: d for n, d in killed.distributions.items() if n != "PATTERN"}
    transform = optuna._transform._SearchSpaceTransform(space, transform_0_1=True)
    expected.tell(
        [
            (transform.transform({n: t.params[n] for n in space}), t.value)
            for t in generation[: expected.population_size]
        ]
    )
    assert found.generation == expected.generation
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found._sigma, expected._sigma)


def test_a_dry_run_trains_nothing_and_writes_nothing(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, "tpe"), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [row["name"] for row in facts["space"]] == ["DEPTH", "LR", "PATTERN"]
    assert facts["llm"] is None
    assert list(cli.folder.iterdir()) == []


def test_a_dry_run_says_when_a_trial_is_killed(cli: Cli, testbed: Path) -> None:
    command = [*run(testbed, "tpe"), "--dry-run"]
    assert json.loads(cli(*command, "--json").stdout)["wall_seconds"] == pytest.approx(60.1)
    said = cli(*command, "--wall-seconds", "2m").stdout.splitlines()[-1]
    assert said == "A trial is killed after 120 s (--wall-seconds)."


def test_the_limit_of_a_trials_real_time_reaches_it_and_is_stored(cli: Cli, testbed: Path) -> None:
    train = testbed / "train.py"
    train.write_text(train.read_text().replace("if DEPTH == 8", "time.sleep(60)\nif DEPTH == 8"))
    first = cli(*run(testbed, trials=2, wall_seconds="1s"))
    assert first.returncode == 1 and "allow a trial more time" in first.stderr
    trial, *_ = cli.trials("s")
    assert trial.user_attrs["reason"] == "killed after 1 s of wall-clock time"
    assert json.loads(cli("status", "--json").stdout)[0]["wall_seconds"] == 1
    assert cli(*run(testbed, trials=4, wall_seconds="2s")).returncode == 1
    assert json.loads(cli("status", "--json").stdout)[0]["wall_seconds"] == 2, "as it is now"


def test_a_script_that_does_not_say_how_long_it_trains_has_a_limit_that_is_said(
    cli: Cli, testbed: Path
) -> None:
    (testbed / "prepare.py").unlink()
    (testbed / "train.py").write_text(
        "DEPTH = 4\nLR = 0.01\nPATTERN = 'ab'\nprint('---\\nval_bpb: 1')\n"
    )
    refused = cli.fails(2, *run(testbed, trials=1, train_seconds="5s"))
    assert "neither train.py nor prepare.py has one" in refused and "--wall-seconds" in refused
    assert list(cli.folder.iterdir()) == []
    said = cli(*run(testbed, trials=1)).stderr.splitlines()[0]
    assert "killed after 660 s" in said and "--wall-seconds" in said
    assert "killed after" not in cli(*run(testbed, trials=1, wall_seconds="9s")).stderr


def test_a_dry_run_shows_the_first_prompt_and_what_the_calls_would_cost(
    cli: Cli, testbed: Path
) -> None:
    # Nothing listens at this address: a dry run needs no model.
    llm = {"llm": "http://127.0.0.1:9/v1", "model": "m", "price_in": 3, "price_out": 15}
    done = cli(*run(testbed, "centaur", trials=30, **llm), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["llm"]
    prompt = "".join(message["content"] for message in facts["first_prompt"])
    assert "DEPTH" in prompt and "val_bpb" in prompt
    assert 0 < facts["first_prompt_tokens"] < len(prompt)
    assert facts["calls"] == 6  # 30 % of the 20 trials after start-up
    tokens = facts["prompt_tokens"] * 3 + facts["completion_tokens"] * 15
    assert facts["cost"] == pytest.approx(tokens / 1e6, abs=1e-4)
    assert list(cli.folder.iterdir()) == []
    text = cli(*run(testbed, "centaur", trials=30, **llm), "--dry-run").stdout
    assert prompt.splitlines()[0] in text and "6 calls" in text


@pytest.mark.llm
def test_a_study_with_the_embedded_model_says_who_decided_what(cli: Cli, testbed: Path) -> None:
    done = cli(*run(testbed, "centaur", trials=14, llm="local"), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    turns = {k: n for k, n in facts["sources"].items() if k.startswith("llm")}
    assert facts["llm"]["turns"] == sum(turns.values()) == 1
    assert facts["llm"]["prompt_tokens"] > 0 and facts["llm"]["seconds"] > 0
    assert "llm 1" in done.stderr.splitlines()[-1]


def test_space_is_a_row_per_constant(cli: Cli, testbed: Path) -> None:
    rows = json.loads(cli("space", "--testbed", testbed, "--json").stdout)
    nothing = dict.fromkeys(("low", "high", "log", "step", "choices"))
    assert rows == [
        {**nothing, "name": "DEPTH", "type": "int", "low": 1, "high": 8}
        | {"log": False, "step": 1, "default": 4},
        {**nothing, "name": "LR", "type": "float", "low": 0.0001, "high": 0.1}
        | {"log": True, "default": 0.01},
        {**nothing, "name": "PATTERN", "type": "categorical"}
        | {"choices": ["ab", "ba"], "default": "ab"},
    ]


def test_help_waits_for_nothing_that_only_the_work_of_a_command_needs() -> None:
    script = (
        "import sys\n"
        "from studies.cli import COMMANDS, main\n"
        "sys.argv = ['optuna-autoresearch', '--help']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    imported = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert "typer" in imported, done.stderr
    slow = {"numpy", "optuna", "pandas", "plotly", "scipy", "sklearn", "sqlalchemy", "torch"}
    assert not imported & slow


def test_the_bare_command_is_its_help_and_its_version_can_be_asked_for(cli: Cli) -> None:
    assert cli().stdout == cli("--help").stdout != ""
    assert cli("--version").stdout == f"{version('optuna-autoresearch')}\n"


def test_every_command_has_a_help(cli: Cli) -> None:
    overview = cli("--help").stdout
    for command in ("run", "space", "status", "dashboard", "serve-llm", "serve-storage"):
        assert f"\n  {command} " in overview
        done = cli(command, "--help")
        assert done.returncode == 0 and "Usage:" in done.stdout


# --- Misuse: one line that says what to do, exit status 2 ----------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("tune", "No such command"),
        ("run", "--method"),
        ("run --method grid", "random, tpe, cma-es"),
        ("run --method tpe --trials 0", "--trials"),
        ("run --method tpe --seed -1", "--seed"),
        ("run --method tpe --budget tomorrow", "90s"),
        ("run --method tpe --budget 0s", "above 0"),
        ("run --method tpe --budget 5s --train-seconds 10s", "--budget"),
        ("run --method tpe --memory-limit much", "1500M"),
        ("run --method tpe --testbed nowhere", "train.py"),
        ("run --method tpe --storage nowhere", "sqlite:///autoresearch.db"),
        ("run --method tpe --storage sqlite:///no/such/folder.db", "folder"),
        ("run --method centaur --llm nonsense", "local"),
        ("run --method centaur --llm local --model big", ".gguf"),
        ("agent --llm random-steps", "can't write code"),
        ("run --method tpe --workers 2 --storage sqlite://", "is seen by its own process only"),
        ("run --method tpe --worker --storage sqlite://", "is seen by its own process only"),
        ("run --method tpe --wall-seconds 0s", "above 0"),
        ("compare --methods tpe --seeds 0 --trials 1 --storage sqlite://", "its own process only"),
        ("serve-storage journal:s.log", "A storage to serve must be a database"),
        ("status", "autoresearch.db"),
        ("dashboard --storage sqlite:///nothing.db", "nothing.db"),
        ("space --testbed nowhere", "train.py"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments: str, says: str, cli: Cli) -> None:
    assert says in cli.fails(2, *arguments.split())
    assert list(cli.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("train.py", "DEPTH = = 4\n", "train.py"),
        ("train.py", "print('no constants')\n", "search_space.toml names DEPTH"),
        ("train.py", "DEPTH = 4\nDEPTH = 5\nLR = 0.01\nPATTERN = 'ab'\n", "DEPTH"),
        ("search_space.toml", "[DEPTH]\ntype = 'int'\nlow = 9\nhigh = 1\n", "low"),
        ("search_space.toml", "[WIDTH]\ntype = 'int'\nlow = 1\nhigh = 2\n", "WIDTH"),
        ("search_space.toml", "[DEPTH\n", "search_space.toml"),
    ],
)
def test_a_testbed_that_cannot_work_is_refused_before_anything_runs(
    file: str, text: str, says: str, cli: Cli, testbed: Path
) -> None:
    (testbed / file).write_text(text)
    assert says in cli.fails(2, *run(testbed))
    assert list(cli.folder.iterdir()) == []


def test_a_study_is_not_continued_with_other_parameters(cli: Cli, testbed: Path) -> None:
    assert cli(*run(testbed, trials=1, seed=1, memory_limit="1G")).returncode == 0
    stored = [t.params for t in cli.trials("s")]
    for others, says in (
        ({"method": "tpe", "seed": 1, "memory_limit": "1G"}, "method random, not tpe"),
        ({"seed": 2, "memory_limit": "1G"}, "seed 1, not 2"),
        ({"seed": 1, "memory_limit": "2G"}, "memory_limit_mb 1024, not 2048"),
        ({"seed": 1, "memory_limit": "1G", "train_seconds": "1s"}, "train_seconds 0.05, not 1.0"),
    ):
        assert says in cli.fails(2, *run(testbed, trials=3, **others))  # type: ignore[arg-type]
    toml = (testbed / "search_space.toml").read_text()
    (testbed / "search_space.toml").write_text(toml.replace("low = 1\n", "low = 2\n"))
    same = run(testbed, trials=3, seed=1, memory_limit="1G")
    assert "another search space than the testbed (DEPTH)" in cli.fails(2, *same)
    (testbed / "search_space.toml").write_text(toml)
    (testbed / "train.py").write_text((testbed / "train.py").read_text() + "# edited\n")
    assert "edited" in cli.fails(2, *same)
    assert [t.params for t in cli.trials("s")] == stored


def test_a_study_of_another_program_is_left_alone(cli: Cli, testbed: Path) -> None:
    study = optuna.create_study(storage=cli.storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("LR", 0, 1), n_trials=2)
    assert "another program" in cli.fails(2, *run(testbed))
    assert len(cli.trials("s")) == 2 and not study.user_attrs


def test_a_locked_database_is_named(cli: Cli, testbed: Path) -> None:
    cli(*run(testbed, trials=1))
    with sqlite3.connect(cli.folder / "autoresearch.db", isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert "locked" in cli.fails(2, *run(testbed, trials=2))


def test_a_file_that_is_no_database_is_named(cli: Cli, testbed: Path) -> None:
    (cli.folder / "autoresearch.db").write_text("Dear diary, " * 100)
    line = cli.fails(2, *run(testbed))
    assert "autoresearch.db" in line
    assert (cli.folder / "autoresearch.db").read_text().startswith("Dear diary")


def test_a_read_only_database_is_named(cli: Cli, testbed: Path) -> None:
    cli(*run(testbed, trials=1))
    (cli.folder / "autoresearch.db").chmod(0o400)
    # Root may write to what is read-only, unless it gives that right up.
    unprivileged = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    refused = subprocess.run(
        [*unprivileged, sys.executable, "-m", "studies", *map(str, run(testbed, trials=2))],
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode == 2, refused
    assert "it is read-only" in refused.stderr.splitlines()[-1]
    assert len(cli.trials("s")) == 1


def test_a_full_disk_is_named_and_the_study_goes_on_when_there_is_room(
    cli: Cli, testbed: Path
) -> None:
    # The database may not grow beyond what it has, which SQLite reports as a full disk.
    arguments = run(testbed, trials=6)
    assert cli(*run(testbed, trials=1)).returncode == 0
    limited = (
        "import resource, runpy, sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"size = {(cli.folder / 'autoresearch.db').stat().st_size} + 40_000;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size));"
        "sys.argv[0] = 'studies'; runpy.run_module('studies', run_name='__main__')"
    )
    full = subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments)],
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert full.returncode == 1, full
    assert "Traceback" not in full.stderr
    last = full.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "full" in last
    assert cli(*arguments).returncode == 0
    trials = cli.trials("s")
    assert len(evaluated(trials)) == 6 and {t.state for t in trials} <= STATES


def test_a_memory_limit_below_what_the_interpreter_needs_is_a_classified_failure(
    cli: Cli, testbed: Path
) -> None:
    done = cli(*run(testbed, trials=2, memory_limit="1M"), "--json")
    statuses = {t.user_attrs["status"] for t in cli.trials("s")}
    assert statuses <= {"oom", "crash"}
    assert "Traceback" not in done.stderr


def test_a_script_that_never_works_stops_the_study(cli: Cli, testbed: Path) -> None:
    (testbed / "train.py").write_text("DEPTH = 4\nLR = 0.01\nPATTERN = 'ab'\nimport mamba_x\n")
    done = cli(*run(testbed, trials=9))
    assert done.returncode == 1
    assert "mamba_x" in done.stderr.splitlines()[-1]
    assert len(cli.trials("s")) == 1
