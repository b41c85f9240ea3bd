"""All commands share help, and one line for misuse and faulty databases."""

from __future__ import annotations

import ast
from importlib.metadata import version
import os
from pathlib import Path
import shlex
import signal
import sqlite3
import subprocess
import sys
from unittest.mock import Mock
from urllib.parse import quote

import optuna
import pytest
import typer

from samplers._llm import prompt
from samplers._llm.warm_start import N_FIRST
from samplers.llambo_paper import prompts
from studies.cli import _run
from tests.studies.commands.test_run import evaluated
from tests.studies.commands.test_run import run
from tests.studies.commands.test_run import STATES
from tests.studies.conftest import Cli
from tests.studies.conftest import Gate


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


def test_output_is_utf_8_whatever_the_locale() -> None:
    script = (
        "from studies import cli; cli.COMMANDS = {}; import sys; sys.argv = ['x', '→']; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.returncode == 2 and "→" in done.stderr.decode("utf-8"), done.stderr


def test_the_bare_command_is_its_help_and_its_version_can_be_asked_for(cli: Cli) -> None:
    assert cli().stdout == cli("--help").stdout != ""
    assert cli("--version").stdout == f"{version('optuna-autoresearch')}\n"


def test_every_command_has_a_help(cli: Cli) -> None:
    overview = cli("--help").stdout
    for command in ("run", "space", "status", "dashboard", "serve-llm", "serve-storage"):
        assert f"\n  {command} " in overview
        done = cli(command, "--help")
        assert done.returncode == 0 and "Usage:" in done.stdout


def test_the_samplers_own_defaults_are_what_the_help_says(cli: Cli) -> None:
    text = " ".join(cli("run", "--help").stdout.split())
    assert f"default: {N_FIRST} for models that propose whole configurations" in text
    small, llambo, large = prompt._SMALL_PROMPT, prompts._SMALL_PROMPT, prompt._LARGE_PROMPT
    assert f"{small} for small models, {llambo} with LLAMBO; {large} for large" in text


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


def test_a_study_of_another_program_is_left_alone(cli: Cli, testbed: Path) -> None:
    study = optuna.create_study(storage=cli.storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("LR", 0, 1), n_trials=2)
    assert "another program" in cli.fails(2, *run(testbed))
    assert len(cli.trials("s")) == 2 and not study.user_attrs


def test_a_locked_database_is_named(
    cli: Cli, testbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli(*run(testbed, trials=1))
    monkeypatch.setattr("studies.storage.open._PROBE_SECONDS", 0.5)
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


@pytest.mark.parametrize("command", ["status", "doctor", "report", "run --method random"])
def test_a_databases_password_is_in_no_error(command: str, cli: Cli) -> None:
    url = "postgresql://me:pa55word@127.0.0.1:1/x"
    said = cli.fails(2, *command.split(), "--storage", url)
    assert "me:***@" in said and "pa55word" not in said


def test_a_databases_password_is_in_no_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(url: str, **options: object) -> None:
        raise LookupError(f"nobody foresaw it: {url}, {quote('pa55/word', safe='')}")

    monkeypatch.setattr("studies.storage.open.open_storage", fail)
    done = cli("status", "--storage", "postgresql://me:pa55/word@db/x")
    assert done.returncode == 1 and "LookupError" in done.stderr
    assert "pa55" not in done.stderr


def test_ctrl_c_ends_the_loop_of_a_shell_script(cli: Cli, testbed: Path) -> None:
    gate = Gate(testbed, through=0)
    words = [*map(str, run(testbed, trials=1)), "--no-check"]
    loop = f"for again in 1 2; do {sys.executable} -m studies {shlex.join(words)}; done"
    script = subprocess.Popen(
        ["bash", "-c", loop],
        cwd=cli.folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell leaves SIGINT ignored where it was when it began, as in another's background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    gate.wait(held=1)
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does
    _, said = script.communicate(timeout=60)
    assert script.returncode == -signal.SIGINT
    assert said.count("stopped; to go on") == 1 and "Traceback" not in said


def test_ctrl_c_at_a_question_stops_and_no_answer_fails(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks() -> None:
        typer.confirm("Well?")

    monkeypatch.setattr("studies.commands.report.report", asks)
    statuses = []
    for error in (EOFError, KeyboardInterrupt):
        monkeypatch.setattr(
            "sys.stdin", Mock(fileno=Mock(side_effect=OSError), readline=Mock(side_effect=error))
        )
        monkeypatch.setattr("sys.argv", ["studies", "report"])
        statuses.append(_run())
    assert statuses == [1, 130]
