"""Numbers of tokens: as a server says them, and an estimate where no tokenizer is at hand."""

from __future__ import annotations

import math
import re
from typing import Any
from typing import Protocol


# A run of capitals, another run of letters, one digit, or one other sign; a space goes with the
# word after it.
_PIECE = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Za-z][a-z]*|[0-9]|[^\sA-Za-z0-9]|\n+| {2,}")


def as_tokens(value: Any) -> int:
    """Read a number of tokens; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(value) if 0 < value < 1e9 else 0


class TokenCounter(Protocol):
    """The part of a ``Chat`` that a prompt is made with."""

    @property
    def context_tokens(self) -> int | None:
        """Tokens that prompt and reply may have together; ``None`` if not known."""

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text: exactly where it can be told, else rather too many."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text for a tokenizer out of reach, rather too many than too few.

    Digits and signs count one each, as in Llama's, Qwen's and SmolLM's tokenizers (OpenAI's join
    up to three digits); capitals one for every two, since names are split small, other letters
    one for every three; anything beyond ASCII one for every byte but one; and 5 % for safety. By
    SmolLM2's own count that is 1.05 times too many for this package's tables and up to 1.7 times
    for English prose and code.
    """
    tokens = 0
    for piece in _PIECE.findall(text):
        if not piece.isascii():
            tokens += max(len(piece.encode("utf-8", "surrogatepass")) - 1, 1)
        elif piece.isalpha():
            letters = 2 if len(piece) > 1 and piece.isupper() else 3
            tokens += math.ceil(len(piece) / letters)
        else:
            tokens += 1
    return math.ceil(1.05 * tokens)
