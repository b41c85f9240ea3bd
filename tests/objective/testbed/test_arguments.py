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


HEAD = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument_group("all").add_argument("--seed", default=0)
subs = parser.add_subparsers()
"""


@pytest.mark.parametrize(
    ("source", "found"),
    [
        # Functions that take any parser, of which one is called as what is another one elsewhere.
        ("def options(parser):\n    parser.add_argument('--lr', default=1)", {"lr": False}),
        ("p = subs.add_parser('eval')\ndef f(p):\n    p.add_argument('--lr')", {"lr": False}),
        ("p = subs.add_parser('eval')\nfor p in a, b:\n    p.add_argument('--lr')", {"lr": False}),
        (
            "def f():\n    p = subs.add_parser('eval')\np = a\np.add_argument('--lr')",
            {"lr": False},
        ),
        ("parser = subs.add_parser('train')\nparser.add_argument('--lr')", {"lr": False}),
        ("def f():\n    parser = Parser()\n    parser.add_argument('--lr')", {"lr": False}),
        ("subs.add_parser('fit', aliases=['train']).add_argument('--lr')", {"lr": False}),
        ("(p := subs.add_parser('eval')).add_argument('--k')\np.add_argument('--l')", {}),
        ("self.p = subs.add_parser('eval')\nself.p.add_argument('--k')", {}),
        ("more = parser.add_argument_group()\nmore.add_argument('--lr')", {"lr": True}),
    ],
)
def test_a_parser_is_told_from_others_of_its_name(source: str, found: dict[str, bool]) -> None:
    text = f"{HEAD}subs.add_parser('train')\n{source}"
    read = read_arguments(text, "t.py", ["python", "t.py", "train"])
    assert {name: argument.is_before for name, argument in read.items()} == {"seed": True} | found


def test_a_parameter_of_a_function_is_none_of_the_functions_around_it() -> None:
    text = HEAD.replace("subs =", "def options(parser):\n    parser.add_argument('--lr')\nsubs =")
    text += "subs.add_parser('train')"
    read = read_arguments(text, "t.py", ["python", "t.py", "train"])
    assert {n: argument.is_before for n, argument in read.items()} == {"seed": True, "lr": False}


def test_a_parser_of_another_module_is_known_by_its_name() -> None:
    text = HEAD.replace("parser = argparse.ArgumentParser()", "from cli import parser")
    text += "subs.add_parser('train')\nparser.add_argument('--lr')"
    read = read_arguments(text, "t.py", ["python", "t.py", "train"])
    assert [argument.is_before for argument in read.values()] == [True, True]
