"""Tables for people, in which no terminal is too narrow for a name."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.console import ConsoleOptions
from rich.console import RenderResult
from rich.table import Table
from rich.text import Text


_WIDE = 10_000  # columns: a measure is never wider than what it is taken for


class Rows(Table):
    """Rows of cells below headings, or a paragraph for each where there is no room for all words.

    A `rich.table.Table` makes room by its widest columns, and cuts the words in them.
    """

    def __init__(self, *headings: str, **options: Any) -> None:
        super().__init__(*headings, box=SIMPLE_HEAD, **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(width=_WIDE)
        columns = []
        for column in self.columns:
            cells = [console.measure(c, options=wide) for c in (column.header, *column.cells)]
            word, line = max(c.minimum for c in cells), max(c.maximum for c in cells)
            columns.append((line - word, word, line, column))
        between = console.measure(self, options=wide).maximum - sum(c[2] for c in columns)
        left = options.max_width - between - sum(c[1] for c in columns)
        if left < 0:
            yield from self._paragraphs()
            return
        # In equal shares, of which those that want less leave the rest to the others.
        columns.sort(key=lambda c: c[0])
        for i, (wanted, word, _, column) in enumerate(columns):
            share = min(wanted, left // (len(columns) - i))
            column.width = word + share
            left -= share
        yield from super().__rich_console__(console, options)

    def _paragraphs(self) -> RenderResult:
        _, *headings = (column.header for column in self.columns)
        name = ""
        for first, *cells in zip(*(column.cells for column in self.columns)):
            name = str(first) or name  # that of rows which belong together stands in the first
            said = [
                f"{heading} {cell}".strip()
                for heading, cell in zip(headings, cells)
                if str(cell) not in ("", "-")
            ]
            yield Text(f"{name}: {'; '.join(said)}")
