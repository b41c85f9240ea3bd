from __future__ import annotations

import csv
import json
import os
from pathlib import Path
import shlex
import signal
from subprocess import CompletedProcess

import pytest

from studies.commands.work.scoreboard import share
from studies.scoreboard import suites
from studies.scoreboard.report import budgets
from studies.scoreboard.runs import read
from studies.scoreboard.runs import Results
from studies.scoreboard.runs import Spec
from tests.studies.conftest import Cli
from tests.studies.conftest import until
from tests.studies.scoreboard.made import result


SMALL = (
    "--problems", "bbob/f1/2d,bbob-mixint/f8/5d+fail", "--samplers", "random,cma-es,centaur",
    "--seeds", "0-1", "--trials", "15", "--workers", "1", "--out", "board",
)  # fmt: skip


def rows(folder: Path) -> list[dict[str, str]]:
    """Read the rows of ``runs.csv``, without the times."""
    with (folder / "runs.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


def commands(folder: Path) -> list[dict[str, str]]:
    with (folder / "commands.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, CompletedProcess[str]]:
    """A scoreboard of two problems, and the command that made it."""
    cli = Cli(tmp_path_factory.mktemp("small"))
    return cli, cli("scoreboard", *SMALL)


def test_a_scoreboard_of_two_problems(small: tuple[Cli, CompletedProcess[str]]) -> None:
    cli, done = small
    assert done.returncode == 0, done.stderr
    folder = cli.folder / "board"
    assert len(rows(folder)) == 12
    assert "after 15 trials" in done.stdout
    assert "CentaurSampler (random steps)" in done.stdout
    report = (folder / "README.md").read_text()
    assert "### all: 2 problems, 4 runs of each sampler" in report
    assert "optuna-autoresearch scoreboard --problems bbob/f1/2d," in report
    assert "Mean ranks" in report
    assert all(
        (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in ("curves", "ranks")
    )

    before = (folder / "runs.csv").read_bytes()
    again = cli("scoreboard", *SMALL)
    assert again.returncode == 0
    assert (folder / "runs.csv").read_bytes() == before
    assert "are left, in" not in again.stderr
    (made,) = commands(folder)
    assert made["command"].endswith(shlex.join(SMALL))
    assert "coco-experiment" in made["versions"]

    facts = json.loads(cli("scoreboard", "--report", "--json", "--out", "board").stdout)
    assert facts["runs"] == 12
    assert len(facts["standings"]["15"]["all"]) == 3


def test_a_command_that_was_killed_goes_on(cli: Cli) -> None:
    long, other = ([*SMALL[:4], "--seeds", seeds, *SMALL[6:]] for seeds in ("0-19", "0,20"))
    process = cli.start("scoreboard", *long)
    path = cli.folder / "board" / "runs.csv"
    until(lambda: len(read(path)) >= 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = read(path)
    assert 3 <= len(kept) < 120
    done = cli("scoreboard", *other)
    assert done.returncode == 0, done.stderr
    found = {r.key: r for r in read(path)}
    assert all(found[r.key] == r for r in kept)
    assert {key[3] for key in found} >= {0, 20}
    made = [row["command"].partition(" scoreboard ")[2] for row in commands(path.parent)]
    assert made == [shlex.join(long), shlex.join(other)]


def test_processes_share_the_runs_and_change_nothing(
    cli: Cli, small: tuple[Cli, CompletedProcess[str]]
) -> None:
    assert cli("scoreboard", *SMALL[:8], "--out", "two", "--workers", "2").returncode == 0
    assert rows(small[0].folder / "board") == rows(cli.folder / "two")


def test_runs_of_a_problem_stay_together_and_shares_are_alike() -> None:
    specs = [
        Spec(f"bbob/f{f}/10d", sampler, seed, 100)
        for seed in range(4)
        for f in (1, 8)
        for sampler in ("random", "smac", "tpe")
    ]
    shares = share(specs, 3)
    assert sorted(s.key for part in shares for s in part) == sorted(s.key for s in specs)
    assert max(map(len, shares)) - min(map(len, shares)) <= 3
    homes = {(s.problem, s.seed): i for i, part in enumerate(shares) for s in part}
    assert all(homes[s.problem, s.seed] == i for i, part in enumerate(shares) for s in part)
    assert len(share(specs[:3], 8)) == 1


def test_a_suite_that_is_not_installed_is_left_out(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        return "it is not installed" if name.startswith("hpobench") else ""

    monkeypatch.setattr(suites, "missing", missing)
    with_tables = ("--problems", "hpobench/car,bbob/f1/2d", "--samplers", "random")
    small = ("--seeds", "0", "--trials", "5", "--workers", "1")
    done = cli("scoreboard", *with_tables, *small)
    assert done.returncode == 0
    assert "hpobench/car is left out: it is not installed" in done.stderr
    assert [row["problem"] for row in rows(cli.folder / "scoreboard")] == ["bbob/f1/2d"]
    assert "None of --problems" in cli("scoreboard", "--problems", "hpobench/car").stderr


def strictly(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}.")


def test_a_sampler_that_broke_in_its_first_trial_is_counted(cli: Cli) -> None:
    folder = cli.folder / "board"
    folder.mkdir()
    results = Results(folder)
    results.add(result(sampler="random"))
    results.add(result(sampler="tpe", trials=0, curve=(), error="KeyError: x"))
    done = cli("scoreboard", "--report", "--json", "--out", "board")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout, parse_constant=strictly)
    assert [row["sampler"] for row in facts["standings"]["10"]["all"]] == [
        "RandomSampler", "TPESampler",
    ]  # fmt: skip
    report = (folder / "README.md").read_text()
    assert "| TPESampler | 1 | 0 |  |  |  |  |  | 1 |" in report.splitlines()


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ({"random": 15, "tpe": 15}, [15]),
        ({"random": 100, "tpe": 100}, [50, 100]),
        ({"random": 500, "tpe": 200, "gp": 50}, [50, 200]),
        ({"random": 500, "tpe": 500}, [50, 200, 500]),
        ({"random": 500}, [50, 200, 500]),
    ],
)
def test_what_is_compared_ends_with_the_most_trials_that_two_samplers_have(
    lengths: dict[str, int], expected: list[int]
) -> None:
    assert budgets([result(sampler=s, trials=n) for s, n in lengths.items()]) == expected


def test_one_sampler_with_two_models_is_two_to_compare() -> None:
    assert budgets([result(asks=asks, trials=60) for asks in ("random steps", "m")]) == [50, 60]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--problems", "bbob/f99/2d"), "A problem must be"),
        (("--samplers", "bayes"), "A sampler must be one of"),
        (("--samplers", "registry:x"), "needs --registry"),
        (("--seeds", "a"), "--seeds must be like"),
        (("--problems", ","), "--problems must name at least one"),
        (("--report", "--out", "empty"), "must hold results"),
    ],
)
def test_what_can_not_be_run_is_said_in_a_line(
    cli: Cli, arguments: tuple[str, ...], part: str
) -> None:
    done = cli("scoreboard", *arguments)
    assert done.returncode == 2
    assert part in done.stderr.splitlines()[-1]
    assert list(cli.folder.iterdir()) == []
