from __future__ import annotations

import io

import pytest
from rich.console import Console

from studies.rows import Rows


ROWS = (
    ("centaur-0.3-SmolLM2-135M", "2 done, 1 running, 1 missing", "0.9738"),
    ("random", "3 done", "-"),
)


def shown(width: int) -> str:
    table = Rows("method", "runs", "best: mean")
    for row in ROWS:
        table.add_row(*row)
    console = Console(file=io.StringIO(), record=True, width=width)
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("width", [30, 40, 50, 51, 60, 200])
def test_no_word_is_cut_in_a_terminal_of_any_width(width: int) -> None:
    out = shown(width)
    words = out.replace(":", " ").replace(";", " ").split()
    assert {word for row in ROWS for cell in row for word in cell.split()} - {"-"} <= set(words)
    assert max(map(len, out.splitlines())) <= width


def test_who_has_too_little_room_for_a_table_reads_what_it_says() -> None:
    first, second = shown(40).split("random")
    assert " ".join(first.split()) == (
        "centaur-0.3-SmolLM2-135M: runs 2 done, 1 running, 1 missing; best: mean 0.9738"
    )
    assert second.strip() == ": runs 3 done"
    assert "──" in shown(60)
