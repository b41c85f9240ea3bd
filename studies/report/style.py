"""Colours, lines and markers of the methods, the same in every plot.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; line styles and
markers repeat what the colours say. As the lists' lengths have no common factor, 315 methods
still differ in something.
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
FAILURE = "#B00000"


@dataclass(frozen=True)
class Style:
    color: str
    dash: str
    symbol: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for each method, by its place among all of them."""
    return {
        method: Style(COLORS[i % len(COLORS)], DASHES[i % len(DASHES)], SYMBOLS[i % len(SYMBOLS)])
        for i, method in enumerate(sorted(methods))
    }
