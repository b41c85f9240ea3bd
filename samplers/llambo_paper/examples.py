"""The stored trials that a prompt shows: their choice, order and text.

LLAMBO shuffles its few-shot examples differently in each of its templates, so that a prediction
does not hang on one order. Here the rows are shuffled within blocks of five, and by nothing but the
seed, the template and the rows' own trials: a new trial changes the last block and leaves the text
before it as it was, in the server's prefix cache.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import json
import math
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from .._llm.prompt import Extent
from .._llm.prompt import window_start
from .._llm.values import choice_labels
from .._llm.values import format_value
from .._trials.history import effective_params
from .._trials.history import latest_failures
from .._trials.history import outcome
from .._trials.seeds import derive_seed


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from .._trials.history import Rule

_BLOCK = 5  # rows that are shuffled together, and that the table grows by before it is cut


@dataclass(frozen=True)
class Size:
    """Numbers of trials that a prompt shows: ``recent`` ones, the ``best``, and ``failures``."""

    recent: int
    best: int
    failures: int

    @property
    def most_rows(self) -> int:
        """Rows when the table of recent trials is about to be cut."""
        return self.recent + _BLOCK - 1 + self.best + self.failures


# The largest that fits is taken.
SIZES = (
    Size(50, 10, 6),
    Size(40, 10, 6),
    Size(30, 8, 5),
    Size(25, 8, 5),
    Size(20, 6, 4),
    Size(15, 6, 4),
    Size(10, 5, 3),
    Size(5, 4, 2),
    Size(5, 2, 1),
    Size(0, 1, 1),
)


def shown_successes(successes: Sequence[FrozenTrial], size: Size) -> list[FrozenTrial]:
    """The recent trials in the order of their numbers, then the best of the older ones.

    Args:
        successes: The successful trials, the best first.
        size: Numbers of trials to show.
    """
    by_number = sorted(successes, key=lambda t: t.number)
    extent = Extent(recent=size.recent, step=_BLOCK, best=size.best)
    recent = by_number[window_start(len(by_number), extent) :]
    shown = {t.number for t in recent}
    return recent + [t for t in successes[: size.best] if t.number not in shown]


def shown_failures(failures: Sequence[FrozenTrial], size: Size) -> list[FrozenTrial]:
    """The latest failures of all classes, in the order of their numbers."""
    return sorted(latest_failures(failures, size.failures), key=lambda t: t.number)


def shuffled(trials: Sequence[FrozenTrial], seed: int, template: int) -> list[FrozenTrial]:
    """Shuffle the trials within each block of five.

    Args:
        trials: In the order that new ones are appended in.
        seed: The sampler's seed.
        template: Number of the template.
    """
    keys = [
        (i // _BLOCK, derive_seed(seed, "order", template, t.number)) for i, t in enumerate(trials)
    ]
    return [t for _, t in sorted(zip(keys, trials), key=lambda pair: pair[0])]


def count_outcomes(failures: Sequence[FrozenTrial]) -> str:
    """Count trials without a score by outcome, as in ``9 oom, 2 pruned``."""
    counts = Counter(outcome(t) for t in failures)
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda c: -c[1]))


def row(
    params: Mapping[str, Any], space: Mapping[str, BaseDistribution], outcome: str | None = None
) -> str:
    """Write a configuration as comma-separated values in the space's order, and its outcome."""
    cells = [_cell(format_value(params[name], d)) for name, d in space.items()]
    return ",".join(cells if outcome is None else [*cells, outcome])


def _cell(text: str) -> str:
    """Quote a field with a comma or a line break, which only a choice's label can have."""
    return json.dumps(text) if "," in text or "\n" in text else text


def trial_row(
    trial: FrozenTrial, space: Mapping[str, BaseDistribution], rule: Rule | None, outcome: str
) -> str:
    """Write the row of a trial that has all parameters, with the values that it was run with."""
    return row(effective_params(trial, rule), space, outcome)


def widest_row(space: Mapping[str, BaseDistribution]) -> str:
    """Write the row of a configuration whose values take about as many characters as any."""
    return ",".join(max(_samples(d), key=len) for d in space.values())


def _samples(distribution: BaseDistribution) -> list[str]:
    if isinstance(distribution, CategoricalDistribution):
        return [_cell(label) for label in choice_labels(distribution)]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = distribution.low, distribution.high
    inside = low + 0.123456 * (high - low)
    if distribution.log:
        inside = min(1.23456 * low, high)
    return [format_value(value, distribution) for value in (low, high, inside)]


def score_digits(scores: Sequence[float]) -> int:
    """Return the digits that tell scores apart: 6, or what a hundredth of their range takes."""
    low, high = np.quantile(scores, (0.25, 0.75))
    if high == low:
        return 6
    ratio = float(np.max(np.abs(scores))) / float(high - low)
    return min(max(6, 3 + math.ceil(math.log10(min(max(ratio, 1.0), 1e15)))), 15)


def format_score(score: float, digits: int) -> str:
    """Write a score or a target; the same digits for all that one prompt shows."""
    return f"{score:.{digits}g}"
