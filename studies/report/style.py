"""Colours, lines, markers and hatches, the same in every plot.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; line styles,
markers and hatches repeat what the colours say. As the lists' lengths have no common factor, 315
methods still differ in something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B",
    "#7F7F7F",
)  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
PATTERNS = ("", "/", "x", "-", ".", "\\", "|", "+")
MEAN = "mean"  # symbol of a mean: a short line across
FAILED = "failed"  # symbol of what failed: an x


@dataclass(frozen=True)
class Style:
    color: str
    dash: str = "solid"
    symbol: str = "circle"
    pattern: str = ""


TRIAL = Style("#999999")
FAILURE = Style("#B00000", symbol=FAILED)
PRUNED = Style("#7F7F7F", symbol=FAILED)
BROKEN = Style("#E69F00", symbol=FAILED)  # what violates a constraint


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Give each name (a method, failure class or source) a style, in alphabetical order."""
    lists = COLORS, DASHES, SYMBOLS, PATTERNS
    return {
        name: Style(*(values[i % len(values)] for values in lists))
        for i, name in enumerate(sorted(names))
    }
