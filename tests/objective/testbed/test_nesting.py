from __future__ import annotations

from typing import Any

import pytest

from objective.testbed.nesting import DEEPEST
from objective.testbed.nesting import read_toml
from objective.testbed.nesting import shallow


def test_what_is_deep_is_refused_and_all_else_returned() -> None:
    data: Any = 1
    for _ in range(DEEPEST - 1):
        data = {"a": [], "b": data}
    assert shallow(data) is data and shallow([]) == [] and shallow("x") == "x"
    with pytest.raises(ValueError, match="more than 50 deep"):
        shallow([{"a": data}])


def test_a_toml_that_takes_long_to_read_is_refused() -> None:
    assert read_toml('a.b = "1.5"\n') == {"a": {"b": "1.5"}}
    with pytest.raises(ValueError, match="more than 1000 dots"):
        read_toml("x." * 100_000 + "x = 1")
