"""The scoreboard's report of known results."""

from __future__ import annotations

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
