from __future__ import annotations

import io
from typing import Any

import pytest

from studies.printable import cell
from studies.printable import decimals
from studies.printable import printable
from studies.printable import PrintableStream


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J",  # clears the screen
        "\x1b]0;title\x07",
        "\x9b31m",  # the same as an escape, in one byte
        "a\rb",  # writes over what is there
        "\x08\x08",
        "a\u202eb",  # turns the direction
        "\u2066",
        "\ud800",  # can't be written at all
    ],
)
def test_nothing_of_it_is_a_command_to_a_terminal(text: str) -> None:
    shown = printable(f"x{text}y")
    assert "\N{REPLACEMENT CHARACTER}" in shown
    assert not set(shown) & set("\x1b\x07\x9b\r\x08\u202e\u2066\ud800")
    shown.encode()


def test_line_ends_of_windows_stay_in_a_stream() -> None:
    written = io.StringIO(newline="")
    stream: Any = PrintableStream(written)
    print("+a\r", file=stream)  # which writes the line end by itself
    print("b\rc", "d\r", "e\r\n", sep="", end="", file=stream)
    assert written.getvalue() == "+a\r\nb\ufffdcd\ufffde\r\n"


def test_texts_of_people_stay_as_they_are() -> None:
    text = "Größe\t模型 😀\nнабор = 1 'x' \"y\""
    assert printable(text) == text and cell(text) == text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d"])
def test_no_cell_is_a_formula(start: str) -> None:
    assert cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


def test_a_stream_shows_what_is_written_and_is_else_as_it_was() -> None:
    written = io.StringIO()
    stream: Any = PrintableStream(written)
    print("a\x1b[2J", "\u202e", file=stream, flush=True)
    assert written.getvalue() == "a\ufffd[2J \ufffd\n" and not stream.isatty()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.97381, "0.9738"),
        (12.5, "12.5000"),
        (0.0, "0.0000"),
        (0.00123456, "0.001235"),
        (-3e-5, "-3e-05"),
    ],
)
def test_small_values_show_digits_and_no_zeros(value: float, shown: str) -> None:
    assert decimals(value) == shown
