"""Command lines with placeholders."""

from __future__ import annotations

import numpy as np
import pytest

from objective.testbed.command import Command
from objective.testbed.source import TestbedError


def test_values_come_in_the_place_of_their_names_and_of_nothing_else() -> None:
    command = Command.parse(
        "LR={lr} NOTE='a b' python -u train.py --width {model.width} --name='x {lr}' '{\"a\": 1}'"
    )
    assert command.placeholders == ["lr", "model.width"]
    words, environment = command.filled({"lr": 1e-05, "model.width": np.int64(7), "other": 1})
    assert words == ["python", "-u", "train.py", "--width", "7", "--name=x 1e-05", '{"a": 1}']
    assert environment == {"LR": "1e-05", "NOTE": "a b"}
    assert Command.parse("./run.sh {a} {b}").filled({"a": True, "b": "; rm -rf /"}) == (
        ["./run.sh", "True", "; rm -rf /"],
        {},
    )


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("python train.py --lr {lr}", ["python", "train.py", "{lr}"]),
        ("python -m pkg.train out", ["python", "pkg/train.py", "pkg.train", "out"]),
        ("uv run -- src/fit.py", ["uv", "run", "src/fit.py"]),
    ],
)
def test_the_script_is_one_of_the_words(text: str, scripts: list[str]) -> None:
    assert [s for s in Command.parse(text).scripts()] == [s for s in scripts if "{" not in s]


def test_a_placeholder_tells_the_option_or_variable_that_it_is_the_value_of() -> None:
    command = Command.parse("LR={a} python t.py --width {b} -n={c} {d} --name=x{e}")
    assert [command.option_of(name) for name in "abcde"] == [None, "--width", "-n", None, None]
    assert [command.variable_of(name) for name in "ab"] == ["LR", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name a program, but got ''"),
        ("A=1 B=2", "must name a program"),
        ("python 'x", "must be as in a shell, but: No closing quotation"),
    ],
)
def test_what_is_no_command_is_refused(text: str, message: str) -> None:
    with pytest.raises(TestbedError, match=message):
        Command.parse(text)


def test_a_placeholder_without_a_value_is_refused() -> None:
    with pytest.raises(TestbedError, match="{TIME_BUDGET} of the command needs --train-seconds"):
        Command.parse("train --for {TIME_BUDGET}").filled({})
    with pytest.raises(TestbedError, match="{x} of the command needs a value"):
        Command.parse("train {x}").filled({})
