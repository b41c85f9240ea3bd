"""Tokens of a proposal: search / replace blocks against whole files, on the own train.py.

``python -m tests.benchmarks.edit_tokens`` counts, with the embedded model's tokenizer, what a
model would have to write for the same change to the embedded testbed's script in either form, and
checks that the blocks give it. It needs the embedded model (its tokenizer; nothing is
generated) and takes a few seconds.
"""

from __future__ import annotations

import statistics

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from objective import Testbed
from samplers._llm.presets import open_chat
from studies.code_agent.edit_blocks import apply_edits
from studies.code_agent.edit_blocks import EditBlock
from studies.code_agent.edit_blocks import parse_edits
from studies.code_agent.sources import changed_lines


DESCRIPTION = "DESCRIPTION: {}\n"


def line_with(source: str, text: str) -> str:
    (line,) = [line for line in source.splitlines() if text in line]
    return line


def function(source: str, name: str) -> str:
    """A top-level function's lines, to the last that isn't blank."""
    lines = source.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"def {name}("))
    rest = [i for i in range(first + 1, len(lines)) if lines[i] and lines[i][0] not in " )"]
    return "\n".join(lines[first : rest[0]]).rstrip()


def changes(source: str) -> dict[str, list[EditBlock]]:
    """Changes of the sorts that a model proposes, from one constant to a function."""
    rate = line_with(source, "MATRIX_LR = ")
    warmup = line_with(source, "WARMUP_RATIO = ")
    up = line_with(source, ", self.up)")
    multiplier = function(source, "lr_multiplier")
    cosine = (
        "def lr_multiplier(progress: float) -> float:\n"
        '    """Half a cosine over the time budget, after a linear rise."""\n'
        "    if progress < WARMUP_RATIO:\n"
        "        return progress / WARMUP_RATIO\n"
        "    share = (progress - WARMUP_RATIO) / (1 - WARMUP_RATIO)\n"
        "    return FINAL_LR_FRAC + (1 - FINAL_LR_FRAC) * 0.5 * (1 + math.cos(math.pi * share))"
    )
    return {
        "one constant": [EditBlock(rate, "MATRIX_LR = 0.03  # attention and MLP matrices")],
        "two constants": [
            EditBlock(rate, "MATRIX_LR = 0.03  # attention and MLP matrices"),
            EditBlock(warmup, "WARMUP_RATIO = 0.1  # learning rates rise from 0"),
        ],
        "an activation": [EditBlock(up, "        h = F.gelu(F.linear(norm(x), self.up))")],
        "a schedule (whole function)": [EditBlock(multiplier, cosine)],
    }


def as_reply(description: str, blocks: list[EditBlock]) -> str:
    parts = [
        f"<<<<<<< SEARCH\n{b.search}\n=======\n{b.replace}\n>>>>>>> REPLACE\n" for b in blocks
    ]
    return DESCRIPTION.format(description) + "".join(parts)


def main() -> None:
    source = Testbed.load().source
    chat = open_chat("local")
    table = Table("change", "lines", "blocks", "whole file", "ratio", box=SIMPLE_HEAD)
    ratios = []
    for name, blocks in changes(source).items():
        edited = apply_edits(source, blocks)
        in_blocks = as_reply(name, blocks)
        whole = f"{DESCRIPTION.format(name)}```python\n{edited}```\n"
        assert apply_edits(source, parse_edits(in_blocks)) == edited
        few, many = chat.count_tokens(in_blocks), chat.count_tokens(whole)
        _, added, removed = changed_lines(source, edited)
        ratios.append(many / few)
        table.add_row(name, f"+{added} -{removed}", str(few), str(many), f"{many / few:.0f}x")
    console = Console()
    console.print(
        f"train.py: {len(source)} characters, {chat.count_tokens(source)} tokens of {chat.model}"
    )
    console.print(table)
    console.print(f"whole files take {statistics.median(ratios):.0f} times the tokens (median)")


if __name__ == "__main__":
    main()
