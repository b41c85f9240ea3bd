"""Several ideas of one reply: told apart, put in order, and kept until their turn comes.

The idea that differs most from what was tried is run first. The others wait: the trial of the first
names them by the hashes of their texts (user attribute ``ideas_sha256``), which are kept beside the
scripts. A trial that is made of one says so (``idea_sha256``). One that can't be used when the model
is asked again is told to it, once; the trial that comes of that request names it
(``dropped_sha256``). So which ideas wait is a function of the stored trials.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
import re

from optuna.trial import FrozenTrial


IDEAS = "ideas_sha256"
IDEA = "idea_sha256"
DROPPED = "dropped_sha256"

_WORD = re.compile(r"\w+")


def words(lines: Iterable[str]) -> frozenset[str]:
    """Return the words of the lines that a change removes and adds."""
    return frozenset(word for line in lines for word in _WORD.findall(line))


def order(ideas: Sequence[Collection[str]], tried: Sequence[Collection[str]]) -> list[int]:
    """Put ideas in order: first the one that differs most from all that was tried, and so on.

    Two changes differ by their Jaccard distance, the share of their words that are not in both. Of
    ideas that differ equally, the one that was given first comes first.

    Args:
        ideas: The words of each idea's change.
        tried: The words of the changes that were tried.

    Returns:
        Indices of ``ideas``.
    """
    seen = [set(change) for change in tried]
    left, found = list(range(len(ideas))), []
    while left:
        nearest = [min((_distance(set(ideas[i]), s) for s in seen), default=1.0) for i in left]
        index = left.pop(nearest.index(max(nearest)))
        found.append(index)
        seen.append(set(ideas[index]))
    return found


def _distance(a: set[str], b: set[str]) -> float:
    return 1 - len(a & b) / len(a | b) if a | b else 0.0


def waiting(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the hashes of the ideas that wait, in the order in which they are to be run."""
    given: dict[str, None] = {}
    used: set[str] = set()
    for trial in sorted(trials, key=lambda t: t.number):
        attrs = trial.user_attrs
        given |= dict.fromkeys(attrs.get(IDEAS, ()))
        used |= {attrs.get(IDEA, ""), *attrs.get(DROPPED, ())}
    return [sha for sha in given if sha not in used]
