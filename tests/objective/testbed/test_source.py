from __future__ import annotations

import ast
import random
import string

import numpy as np
import pytest

from objective.testbed.source import parse_script
from objective.testbed.source import read_constants
from objective.testbed.source import scan
from objective.testbed.source import set_constants
from objective.testbed.source import TestbedError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-3", -3),
        ("+3", 3),
        ("2**19", 524288),
        ("-2**3", -8),
        ("2 ** -1", 0.5),
        ("40 * 524288", 20971520),
        ("1 << 16", 65536),
        ("1_000", 1000),
        ("0x10", 16),
        ("(7)", 7),
        ("0.04", 0.04),
        ("1e-05", 1e-05),
        ("-1E+3", -1000.0),
        ("True", True),
        ("'SSSL'", "SSSL"),
        ('"SS" "SL"', "SSSL"),
        ("'''a\nb'''", "a\nb"),
    ],
)
def test_literals_of_four_types_are_read(text: str, value: object) -> None:
    for source in (f"NAME = {text}  # why\n", f"NAME: object = {text}\n"):
        constant = read_constants(source)["NAME"]
        assert constant.value == value
        assert type(constant.value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "(0.8, 0.95)", "[1]", "{}", "None", "b'x'", "1j", "f'{1}'", "int('3')", "1e999", "A + 1",
        "9**9**9", "(2**64)**64", "2**10**9", "1 << 10**9", "'a' * 3", "True * 2", "0.0**-1", "-'a'", "not 1",
    ],
)  # fmt: skip
def test_everything_else_is_no_constant(text: str) -> None:
    assert "NAME" not in read_constants(f"NAME = {text}\n")


def test_lower_case_and_imported_names_are_ignored() -> None:
    source = (
        "from prepare import MAX_SEQ_LEN, X as TIME\nimport os as OS\nlr = 3\nLr = 3\nLR = 3\n"
    )
    assert list(scan(source)) == ["LR"]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("LR = 1\nx = 0\nLR = 2\n", "lines 1, 3"),
        ("LR = 1\nif x:\n    LR = 2\n", "lines 1, 3"),
        ("LR = 1\ndef f():\n    global LR\n    LR = 2\n", "lines 1, 4"),
        ("LR = 1\nLR += 1\n", "lines 1, 2"),
        ("LR = 1\nfor LR in y: pass\n", "lines 1, 2"),
        ("from prepare import LR\nLR = 1\n", "lines 1, 2"),
        ("LR = 1\ndel LR\n", "lines 1, 2"),
        ("LR = 1\nif (LR := 2): pass\n", "lines 1, 2"),
        ("if x:\n    LR = 2\n", "line 2"),
        ("def f():\n    LR = 2\n", "line 2"),
        ("LR, B = 1, 2\n", "line 1"),
        ("LR = B = 1\n", "line 1"),
    ],
)
def test_a_constant_without_one_place_to_set_is_refused_with_its_lines(
    source: str, lines: str
) -> None:
    assert "LR" not in read_constants(source)
    with pytest.raises(TestbedError, match=f"LR .* {lines}[^0-9,]"):
        set_constants(source, {"LR": 3})


def test_a_syntax_error_is_reported_with_its_line() -> None:
    with pytest.raises(TestbedError, match=r"train\.py must be valid Python, but line 2 isn't"):
        read_constants("A = 1\nB = = 2\n")
    with pytest.raises(TestbedError, match="must be valid Python"):
        read_constants("A = 1\0\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [1], (1,), 1j, b"x"])
def test_a_value_without_a_literal_of_our_types_is_refused(value: object) -> None:
    with pytest.raises(TestbedError, match="LR must be a finite number, a string or a bool"):
        set_constants("LR = 1\n", {"LR": value})


def test_a_constant_that_is_not_there_is_refused() -> None:
    with pytest.raises(TestbedError, match="train.py must assign a literal to DEPTH"):
        set_constants("LR = 1\n", {"DEPTH": 1})


def test_only_the_text_of_the_value_changes() -> None:
    source = (
        '\ufeff"""Übung"""; DEPTH = 8 # ü\r\n'
        "TOTAL\t=\t2**19\t# 524288 = TOTAL\r"
        "x = 'LR = 1'; LR: float=\\\n  0.04;WINDOW='é\u2028\x0c'#'\n"
        "BETAS = (0.8,\n 0.9)\nLAST = (\n    -1\n)"
    )
    changed = set_constants(
        source, {"LAST": 2, "DEPTH": 12, "TOTAL": 2**20, "LR": -1e-05, "WINDOW": "ß'"}
    )
    expected = source
    for old, new in (
        ("DEPTH = 8", "DEPTH = 12"),
        ("2**19", "1048576"),
        ("0.04", "-1e-05"),
        ("'é\u2028\x0c'", '"ß\'"'),
        ("-1\n", "2\n"),
    ):
        expected = expected.replace(old, new)
    assert changed == expected


def test_a_value_that_stays_keeps_its_text() -> None:
    source = "TOTAL = 2**19\nLR = 4e-2\n"
    assert set_constants(source, {"TOTAL": 524288, "LR": 0.04}) == source
    assert set_constants(source, {"LR": 1}) == "TOTAL = 2**19\nLR = 1\n"
    # The same number of another type is another value: 1 divides differently from 1.0 or True.
    assert set_constants("A = 1\n", {"A": 1.0}) == "A = 1.0\n"
    assert set_constants("A = 1\n", {"A": True}) == "A = True\n"


def test_numpy_scalars_are_written_as_python_literals() -> None:
    source = set_constants("A = 1\nB = 1.0\n", {"A": np.int64(3), "B": np.float64(0.1)})
    assert source == "A = 3\nB = 0.1\n"


def test_what_was_set_is_read_back() -> None:
    rng = random.Random(0)
    alphabet = string.printable + "äß€𝄞\u2028\\'\""

    def value() -> int | float | str | bool:
        kinds: list[int | float | str | bool] = [
            rng.randint(-(10**12), 10**12),
            rng.choice([-1, 1]) * 10 ** rng.uniform(-300, 300),
            rng.uniform(-1, 1),
            rng.choice([1e-05, -1e-05, 0.0, -0.0, 5e-324, 1.7976931348623157e308]),
            "".join(rng.choices(alphabet, k=rng.randint(0, 8))),
            rng.random() < 0.5,
        ]
        return rng.choice(kinds)

    names = [f"NAME_{i}" for i in range(8)]
    for _ in range(300):
        end = rng.choice(["\n", "\r\n"])
        source = end.join(f"{name} = {value()!r}  # ä {name} = 1" for name in names) + end
        values = {name: value() for name in rng.sample(names, 4)}
        before = {name: c.value for name, c in read_constants(source).items()}
        after = {
            name: c.value for name, c in read_constants(set_constants(source, values)).items()
        }
        assert repr(after) == repr({**before, **values})


@pytest.mark.parametrize("error", [RecursionError, MemoryError, SystemError])
def test_whatever_python_says_of_absurd_nesting_is_a_script_that_is_not_valid(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ast, "parse", fail)
    with pytest.raises(TestbedError, match="train.py must be valid Python, but it is nested too"):
        parse_script("A = 1", "train.py")
