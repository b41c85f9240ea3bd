"""``space`` on a testbed with a constant of each type."""

from __future__ import annotations

import json
from pathlib import Path

from tests.studies.conftest import Cli


def test_space_is_a_row_per_constant(cli: Cli, testbed: Path) -> None:
    rows = json.loads(cli("space", "--testbed", testbed, "--json").stdout)
    nothing = dict.fromkeys(("low", "high", "log", "step", "choices"))
    assert rows == [
        {**nothing, "name": "DEPTH", "type": "int", "low": 1, "high": 8}
        | {"log": False, "step": 1, "default": 4},
        {**nothing, "name": "LR", "type": "float", "low": 0.0001, "high": 0.1}
        | {"log": True, "default": 0.01},
        {**nothing, "name": "PATTERN", "type": "categorical"}
        | {"choices": ["ab", "ba"], "default": "ab"},
    ]
