"""Values of options, as somebody types them by mistake."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
import pytest
import typer

from studies.commands.parsing import parse_duration
from studies.commands.parsing import parse_failure_value
from studies.commands.parsing import parse_memory
from studies.commands.parsing import parse_moment
from studies.commands.parsing import parse_seeds
from studies.errors import Misuse
from studies.workers.slurm import slurm_options
from tests.properties.bounds import examples
from tests.properties.bounds import read
from tests.properties.bounds import texts


PIECES = [
    "0",
    "-",
    ",",
    "7",
    ":",
    "T",
    "h",
    "GB",
    ".",
    "2026-12-01",
    "08:00",
    "e9",
    "cores=",
    "queue=",
]
# An error quotes what it refuses.
SHORT = texts(PIECES).map(lambda text: text[:300])


@pytest.mark.parametrize(
    "parse", [parse_duration, parse_moment, parse_memory, parse_failure_value, parse_seeds]
)
@examples
@given(text=SHORT)
@example(text="0-99999999999")
@example(text="9" * 400)
@example(text="9" * 400 + "G")
@example(text="9999-12-31T23:59:59")
@example(text="0001-01-01")
def test_an_option_is_read_or_refused(parse: Any, text: str) -> None:
    value = read(parse, text, refusals=(typer.BadParameter, Misuse))
    if isinstance(value, (int, float)):
        assert math.isfinite(value)


@examples
@given(words=st.lists(SHORT, max_size=4))
@example(words=["cores=" + "9" * 4400])
def test_options_of_a_cluster_are_read_or_refused(words: list[str]) -> None:
    options = read(slurm_options, words, refusals=Misuse)
    assert options is None or all(
        isinstance(value, (str, int, list)) for value in options.values()
    )
