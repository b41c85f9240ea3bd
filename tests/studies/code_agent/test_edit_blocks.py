"""A reply either changes exactly the lines it names, or its author is told what is wrong."""

from __future__ import annotations

import pytest

from studies.code_agent.edit_blocks import apply_edits
from studies.code_agent.edit_blocks import EditBlock
from studies.code_agent.edit_blocks import EditError
from studies.code_agent.edit_blocks import MAX_REPLY_CHARS
from studies.code_agent.edit_blocks import parse_edits


TEXT = """\
import torch

MATRIX_LR = 0.04
SCALAR_LR = 0.5


def forward(x):
    x = relu(x)
    return x


def backward(x):
    x = relu(x)
    return -x
"""


def block(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


def test_only_the_named_lines_change() -> None:
    edited = apply_edits(TEXT, parse_edits(block("MATRIX_LR = 0.04", "MATRIX_LR = 0.02")))
    assert edited == TEXT.replace("0.04", "0.02")


def test_prose_around_the_blocks_is_ignored() -> None:
    reply = (
        f"I lower the rate.\n\n{block('SCALAR_LR = 0.5', 'SCALAR_LR = 0.3')}\nThat should help."
    )
    assert parse_edits(reply) == [EditBlock("SCALAR_LR = 0.5", "SCALAR_LR = 0.3")]


def test_a_fence_around_or_inside_a_block_is_no_part_of_it() -> None:
    inside = block("```python\nSCALAR_LR = 0.5\n```", "```python\nSCALAR_LR = 0.3\n```")
    around = f"```\n{block('SCALAR_LR = 0.5', 'SCALAR_LR = 0.3')}```\n"
    assert parse_edits(inside) == parse_edits(around)


def test_blocks_are_applied_in_order_each_to_what_the_last_one_left() -> None:
    reply = block("SCALAR_LR = 0.5", "SCALAR_LR = 0.3") + block(
        "SCALAR_LR = 0.3", "SCALAR_LR = 0.1"
    )
    assert apply_edits(TEXT, parse_edits(reply)) == TEXT.replace("0.5", "0.1")


def test_an_empty_replacement_deletes_the_lines() -> None:
    reply = "<<<<<<< SEARCH\nSCALAR_LR = 0.5\n=======\n>>>>>>> REPLACE\n"
    assert apply_edits(TEXT, parse_edits(reply)) == TEXT.replace("SCALAR_LR = 0.5\n", "")


def test_blanks_at_the_ends_of_lines_do_not_count_but_indentation_does() -> None:
    assert "0.02" in apply_edits(TEXT, [EditBlock("MATRIX_LR = 0.04  ", "MATRIX_LR = 0.02")])
    with pytest.raises(EditError, match="nearest lines"):
        apply_edits(TEXT, [EditBlock("  MATRIX_LR = 0.04", "  MATRIX_LR = 0.02")])


def test_a_text_without_a_last_newline_stays_without_it() -> None:
    assert apply_edits("a\nb", [EditBlock("b", "c")]) == "a\nc"


def test_a_block_that_matches_twice_is_refused_with_the_places() -> None:
    with pytest.raises(EditError, match=r"occur 2 times \(at lines 8, 13\)"):
        apply_edits(TEXT, [EditBlock("    x = relu(x)", "    x = gelu(x)")])


def test_a_block_that_matches_nowhere_shows_the_nearest_lines() -> None:
    with pytest.raises(
        EditError, match=r"(?s)from line 12.*def backward\(x\):\n    x = relu\(x\)"
    ):
        apply_edits(TEXT, [EditBlock("def backward(y):\n    x = relu(y)", "pass")])


def test_the_line_that_holds_a_part_of_it_is_the_nearest() -> None:
    text = "g = m * 3\ng = m / (1 - beta**step) / (sqrt(v / (1 - gamma**step)) + EPSILON)\n"
    with pytest.raises(EditError, match=r"from line 2\):\ng = m / \(1 - beta"):
        apply_edits(text, [EditBlock("g = m / (1 -", "g = m")])


def test_all_blocks_that_are_wrong_are_told_at_once() -> None:
    blocks = [EditBlock("LR = 1", "LR = 2"), EditBlock("SCALAR_LR = 0.5", ""), EditBlock("", "x")]
    with pytest.raises(EditError) as error:
        apply_edits(TEXT, blocks)
    assert "Block 1 of 3 matches no lines" in str(error.value)
    assert "Block 3 of 3 searches for nothing" in str(error.value)
    assert "Block 2" not in str(error.value)


def test_nothing_alike_is_said_so() -> None:
    with pytest.raises(EditError, match="copy the lines"):
        apply_edits(TEXT, [EditBlock("§§§§§§§§§§", "x")])


def test_the_nearest_lines_of_a_long_text_are_found_too() -> None:
    text = "\n".join(f"value_{i} = compute({i}, {i * i})" for i in range(3000))
    with pytest.raises(EditError, match=r"value_1234 = compute\(1234"):
        apply_edits(text, [EditBlock("value_1234 = compute(1234, 0)", "x = 1")])


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("", "empty"),
        ("I'm sorry, but I cannot help with that.", "refusal"),
        ("Lower the learning rate to 0.02.", "no SEARCH / REPLACE block"),
        ("<<<<<<< SEARCH\nSCALAR_LR = 0.5\n=======\nSCALAR_LR =", "cut off"),
        ("<<<<<<< SEARCH\nSCALAR_LR = 0.5", "cut off"),
        ("<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n", "after a line ======="),
        (">>>>>>> REPLACE\n", "never opened"),
        ("<<<<<<< SEARCH\na\n=======\nb\n=======\nc\n>>>>>>> REPLACE\n", "closes the block"),
        ("x" * (MAX_REPLY_CHARS + 1), "at most"),
    ],
)
def test_a_reply_that_is_no_edit_is_refused_with_the_rule_it_breaks(
    reply: str, message: str
) -> None:
    with pytest.raises(EditError, match=message):
        parse_edits(reply)


def test_a_block_that_searches_for_nothing_is_refused() -> None:
    with pytest.raises(EditError, match="searches for nothing"):
        apply_edits(TEXT, parse_edits("<<<<<<< SEARCH\n=======\nx = 1\n>>>>>>> REPLACE\n"))


def test_blocks_that_change_nothing_are_refused() -> None:
    with pytest.raises(EditError, match="as it was"):
        apply_edits(TEXT, [EditBlock("SCALAR_LR = 0.5", "SCALAR_LR = 0.5")])


@pytest.mark.parametrize("odd", ["\x0c", "\x85", "\u2028", "\x1c", "é"])
def test_only_newlines_end_lines_and_all_else_stays_as_it_is(odd: str) -> None:
    text = f"A = 1 # {odd} a\r\n{odd}\r\nB = 2\r\nC = 3"
    edited = apply_edits(text, parse_edits(block(f"{odd}\nB = 2", f"{odd}\nB = '{odd}'\nD = 4")))
    assert edited == text.replace("B = 2", f"B = '{odd}'\r\nD = 4")
    assert apply_edits(text, parse_edits(block("C = 3", "C = 4"))) == text[:-1] + "4"
