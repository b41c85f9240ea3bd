"""The scoreboard's report of known results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from studies.scoreboard.report import write_report
from tests.studies.scoreboard.made import result


def test_costs_are_shares_of_the_trials_that_could_have_them(tmp_path: Path) -> None:
    rows = [
        result("bbob/f8/10d+oom", "random", trials=50, failed=14),
        result("bbob/f8/10d+oom", "tpe", trials=50, failed=1),
        result("bbob/f8/10d", "tpe", trials=50),
    ]
    facts = write_report(rows, [], tmp_path)
    assert [row["failed"] for row in facts["samplers"]] == [0.28, 0.02]
    table = (tmp_path / "README.md").read_text().splitlines()
    assert "| RandomSampler | 1 | 50 | 10.0 | 28 % |  |  |  |  |" in table
    assert "| TPESampler | 2 | 50 | 10.0 | 2 % |  |  |  |  |" in table


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    rows = [result("bbob/f8/10d", "random"), result("bbob/f8/10d", "tpe", curve=((1, 1.0),))]
    write_report(rows, [], tmp_path)
    table = (tmp_path / "README.md").read_text()
    assert "| TPESampler | 1.00 | 0.125 |" in table and "1 problem, 1 run of each" in table
    write_report([*rows, *(replace(row, seed=1) for row in rows)], [], tmp_path)
    table = (tmp_path / "README.md").read_text()
    assert "| TPESampler | 1.00 [1.00, 1.00] | 0.125 [0.125, 0.125] |" in table
