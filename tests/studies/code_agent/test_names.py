from __future__ import annotations

import ast

import pytest

from studies.code_agent.names import imported_names
from studies.code_agent.names import paths
from tests.properties.bounds import bounded


@pytest.mark.parametrize(
    "line, name, meant",
    [
        ("import torch.nn as n", "n", "torch.nn"),
        ("import torch.nn", "torch", "torch"),
        ("from torch import nn as n\nm = n.functional", "m", "torch.nn.functional"),
        ("import os\na, b = 1, [os.path]", "b", "os.path"),
        ("import os\nfor a in (1, os): pass", "a", "os"),
        ("import os\n[a for a in [os]]", "a", "os"),
        ("import os\nwith os as a: pass", "a", "os"),
        ("import os\ndef f(a, b): pass\nf(1, b=os)", "b", "os"),
        ("import os\ndef f(a, b=os): pass", "b", "os"),
        ("import os\nclass C:\n    @staticmethod\n    def f(a): pass\nC.f(os)", "a", "os"),
        ("import os\nclass C:\n    def f(self, a): pass\nC().f(os)", "self", None),
        ("a = type(1)", "a", "a class"),
        ("import os\na = os.fork()", "a", None),
        ("import os\nfor a in os.walk('.'): pass", "a", None),
    ],
)
def test_a_name_stands_for_what_it_is_given(line: str, name: str, meant: str | None) -> None:
    assert imported_names([*ast.walk(ast.parse(line))]).get(name) == meant


@pytest.mark.parametrize(
    "text, found",
    [
        ("a.b.c", [["a", "b", "c"]]),
        ("a[0].b", [["a", "b"]]),
        ("getattr(a.b, 'c').d", [["a", "b", "c", "d"]]),
        ("(a if x else b.c).d", [["b", "c"], ["a"]]),
        ("type(self).x", []),
        ("type(a).x", [["type()", "x"]]),
        ("a.__class__.x", [["type()", "x"]]),
        ("f(a).x", []),
        ("1 + a", []),
    ],
)
def test_an_expression_is_one_of_these(text: str, found: list[list[str]]) -> None:
    assert [*paths(ast.parse(text, mode="eval").body)] == found


def test_a_long_one_is_followed_in_time() -> None:
    expression = ast.parse(f"[{'a, ' * 100_000}a]{'.b' * 900}", mode="eval").body
    with bounded():
        assert len([*paths(expression)]) == 100_001
