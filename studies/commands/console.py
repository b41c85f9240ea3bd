"""Where tables and progress are printed."""

from __future__ import annotations

from collections.abc import Iterable
import os
import re
import sys
import textwrap
from typing import Any

from rich.console import Console
from rich.console import ConsoleOptions
from rich.console import RenderableType
from rich.segment import Segment

from studies.printable import printable


PIPED = 200  # columns of what no terminal shows


class _PrintableConsole(Console):
    """A console whose escapes are its own: none comes from a text that it shows."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False, **options: Any) -> Console:
    """Return a console as wide as its terminal, or that cuts nothing where there is none.

    What a script, a server or a storage says may look like markup, or hold a terminal's commands:
    it is shown as it is.

    Args:
        stderr: Print there, so that stdout stays free for facts.
        options: Further ones of `rich.console.Console`.
    """
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return _PrintableConsole(
        # Not by name: a bar puts a stream of its own there, behind which is `PrintableStream`.
        file=getattr(stream, "rich_proxied_file", stream),
        markup=False,
        highlight=False,
        width=PIPED if piped else None,
        **options,
    )


_BEFORE_COMMAND = re.compile(r"(?<=to run it): |: (?=optuna-autoresearch )")


def say(line: str, *, stderr: bool = False) -> None:
    """Print a line of words, broken between them in a terminal.

    A command at its end, which somebody may copy, gets a line of its own and stays whole.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = console(stderr=stderr).width
    if stream.isatty() and len(line) > width:
        words, *commands = _BEFORE_COMMAND.split(line, maxsplit=1)
        lines = textwrap.wrap(
            f"{words}:" if commands else words,
            width,
            break_long_words=False,
            break_on_hyphens=False,
        )
        line = "\n".join([*lines, *(f"  {command}" for command in commands)])
    print(line, file=stream)
