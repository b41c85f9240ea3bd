"""What a model writes as code or edits, what a script is, and what it prints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from objective.run.outcome import Output
from objective.testbed.metric import METRIC
from objective.testbed.source import read_constants
from objective.testbed.source import scan
from objective.testbed.source import set_constants
from objective.testbed.source import TestbedError
from studies.code_agent.edit_blocks import apply_edits
from studies.code_agent.edit_blocks import EditBlock
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.edit_blocks import parse_edits
from studies.code_agent.validator import check_source
from studies.code_agent.validator import ValidationError
from tests.properties.bounds import bounded
from tests.properties.bounds import examples
from tests.properties.bounds import read
from tests.properties.bounds import texts


CODE = ["LR = 0.1", "X = 2**19", "def f(", "(" * 90, ")" * 90, "[" * 200, "'", '"""', "#", "\\\n"]
CODE += [
    "import prepare",
    "prepare.x = 1",
    "from torch import nn as F",
    "F.x: int = 1",
    "a = b = F",
]
CODE += [
    "f'{x!r:>{w}}'",
    "9**9**9",
    "1" * 5000,
    "lambda: (yield)",
    "match x:",
    "    case _:",
    "0x",
    "1_0",
]
MARKERS = [
    "<<<<<<< SEARCH",
    "=======",
    ">>>>>>> REPLACE",
    "```",
    "```python",
    "<<<<<",
    "LR = 0.1",
    "",
]


BASELINE = "from prepare import evaluate_bpb\nLR = 0.1\nprint(f'val_bpb: {evaluate_bpb(LR)}')\n"


@examples
@given(texts(CODE))
def test_constants_are_read_and_written_or_the_source_is_refused(source: str) -> None:
    constants = read(read_constants, source, refusals=TestbedError)
    read(scan, source, refusals=TestbedError)
    for name, constant in (constants or {}).items():
        assert set_constants(source, {name: constant.value}) == source
        changed = set_constants(source, {name: 0.125})
        assert read_constants(changed)[name].value == 0.125


def check(proposal: str) -> str:
    return check_source(proposal, baseline=BASELINE)


@examples
@given(texts([*CODE, BASELINE, "evaluate_bpb(LR)", "val_bpb: "]))
def test_a_proposal_is_checked_or_refused_in_a_sentence(source: str) -> None:
    for proposal in (source, BASELINE + source):
        digest = read(check, proposal, refusals=ValidationError)
        assert digest is None or len(digest) == 64


@examples
@given(texts(MARKERS), texts([*CODE, *MARKERS]))
def test_a_reply_is_blocks_or_an_error(reply: str, text: str) -> None:
    with bounded():
        try:
            assert apply_edits(text, parse_edits(reply)) != text
        except EditError as error:  # of several lines: it quotes those of the file
            assert str(error)


@examples
@given(st.lists(st.sampled_from(["a", "b", " c", "d  ", "é"]), min_size=1, max_size=30), st.data())
def test_a_line_that_occurs_once_is_replaced_and_nothing_else(
    lines: list[str], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(lines) - 1))
    lines[place] = "unique"
    text = "\n".join(lines) + "\n"
    edited = apply_edits(text, [EditBlock("unique", "new\nlines")])
    lines[place : place + 1] = ["new", "lines"]
    assert edited == "\n".join(lines) + "\n"


@examples
@given(
    st.lists(st.binary(max_size=200), max_size=20), st.lists(st.binary(max_size=50), max_size=20)
)
def test_any_output_is_read(printed: list[bytes], messages: list[bytes]) -> None:
    output = Output(METRIC, None)
    with bounded():
        for chunk in printed:
            output.feed(chunk)
            output.feed(b"val_bpb: " + chunk + b"\n---\nstep " + chunk + b"\n")
        for chunk in messages:
            output.feed_metric(chunk, "n")
            output.feed_metric(b'{"nonce": "n", "value": ' + chunk + b"}\n", "n")
    assert output.measured is None or isinstance(output.measured, float)
