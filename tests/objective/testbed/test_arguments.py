"""Defaults of arguments, variables and globals, read without running the script."""

from __future__ import annotations

import pytest

from objective.testbed.arguments import Argument
from objective.testbed.arguments import read_arguments
from objective.testbed.arguments import read_globals
from objective.testbed.arguments import read_variables


SCRIPT = """
import argparse, os
parser = argparse.ArgumentParser()
group = parser.add_argument_group("model")
group.add_argument("-w", "--hidden-size", type=int, default=2**6, help="units")
parser.add_argument("--lr", type=float, default=1, dest="rate")
parser.add_argument("--beta", type=float, default="0.9")
parser.add_argument("--opt", choices=["sgd", "adam"], default="adam")
parser.add_argument("--norms", choices=NORMS, default="layer")
parser.add_argument("--amp", action="store_true")
parser.add_argument("--no-bias", action="store_false", dest="bias")
parser.add_argument("--ema", action=argparse.BooleanOptionalAction, default=False)
parser.add_argument("-n", default=compute())
parser.add_argument("data")
RATE = float(os.environ.get("RATE", "1e-3"))
depth = int(os.getenv("DEPTH", 6))
home = os.environ["HOME"]
layers, width = 2, 3
dropout = 0.1
"""


def test_every_form_of_an_argument_is_read() -> None:
    found = {
        a.name: (a.option, a.value, a.choices, a.action)
        for a in read_arguments(SCRIPT, "t.py").values()
    }
    assert found == {
        "hidden_size": ("--hidden-size", 64, (), "store"),
        "rate": ("--lr", 1.0, (), "store"),
        "beta": ("--beta", 0.9, (), "store"),
        "opt": ("--opt", "adam", ("sgd", "adam"), "store"),
        "norms": ("--norms", "layer", (), "store"),
        "amp": ("--amp", False, (), "store_true"),
        "bias": ("--no-bias", True, (), "store_false"),
        "ema": ("--ema", False, (), "boolean"),
        "n": ("-n", None, (), "store"),
    }
    assert type(read_arguments(SCRIPT, "t.py")["rate"].value) is float


def test_variables_and_globals_are_read() -> None:
    values = {name: c.value for name, c in read_variables(SCRIPT, "t.py").items()}
    assert values == {"RATE": 0.001, "DEPTH": 6}
    assert {name: c.value for name, c in read_globals(SCRIPT, "t.py").items()} == {"dropout": 0.1}


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        (Argument("a", ("-a", "--aa"), 1, 1), -1.5, ["--aa=-1.5"]),
        (Argument("a", ("-a",), 1, 1), 3, ["-a", "3"]),
        (Argument("a", ("--a",), "", 1), "x y", ["--a=x y"]),
        (Argument("a", ("--a",), False, 1, action="store_true"), True, ["--a"]),
        (Argument("a", ("--a",), False, 1, action="store_true"), False, []),
        (Argument("a", ("--no-a",), True, 1, action="store_false"), False, ["--no-a"]),
        (Argument("a", ("--no-a",), True, 1, action="store_false"), True, []),
        (Argument("a", ("--a",), True, 1, action="boolean"), False, ["--no-a"]),
    ],
)
def test_an_argument_is_written_as_argparse_reads_it(
    argument: Argument, value: object, words: list[str]
) -> None:
    assert argument.words(value) == words
