from __future__ import annotations

from typing import Any

import pytest

from objective.testbed.nesting import DEEPEST
from objective.testbed.nesting import shallow


def test_what_is_deep_is_refused_and_all_else_returned() -> None:
    data: Any = 1
    for _ in range(DEEPEST - 1):
        data = {"a": [], "b": data}
    assert shallow(data) is data and shallow([]) == [] and shallow("x") == "x"
    with pytest.raises(ValueError, match="more than 50 deep"):
        shallow([{"a": data}])
