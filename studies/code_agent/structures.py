"""A code study as a tree: which edit was made to which script, what it gained, what tuning added.

A *structure* is what the model made by one edit, with whatever constants. The unedited script is the
first, and each edit that ran makes another out of the one that it was made to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from samplers._trials.internals import first_number
from studies.code_agent.history import CodeHistory
from studies.code_agent.history import is_baseline
from studies.code_agent.history import is_tuned
from studies.code_agent.history import KEPT
from studies.code_agent.history import parent_number
from studies.code_agent.history import REJECTED


@dataclass
class Structure:
    """One structure.

    Attributes:
        trial: Number of the trial that made it, by which the others name it.
        parent: The structure that was edited; None for the unedited script.
        depth: How many edits made it.
        description: The edit in one line.
        outcome: What came of it, see `studies.code_agent.history.Step`.
        value: Its value as it was proposed (`CodeHistory.baseline` of the first); None without one.
        gain: What the edit gained over the best so far.
        tuned: Trials of the tuner.
        tuned_kept: Those of them that were kept.
        tuning_gain: What these gained.
        is_in_best: Whether the best script is this one or was made from it.
    """

    trial: int
    parent: int | None
    depth: int
    description: str
    outcome: str
    value: float | None
    gain: float = 0.0
    tuned: int = 0
    tuned_kept: int = 0
    tuning_gain: float = 0.0
    is_in_best: bool = False


def structures(history: CodeHistory) -> list[Structure]:
    """Return the structures of a study, each before those that were made from it."""
    found: dict[int, Structure] = {}
    of: dict[int | None, Structure] = {}  # trial -> its structure
    in_best = {first_number(trial) for trial in history.lineage()}
    baselines = [s for s in history.steps if is_baseline(s.trial)]
    if not baselines:
        return []
    first = min(first_number(s.trial) for s in baselines)
    root = Structure(first, None, 0, "the unedited script", "baseline", history.baseline)
    found[first] = root
    for step in history.steps:
        number = first_number(step.trial)
        if is_baseline(step.trial):
            of[number] = root
            continue
        above = of.get(parent_number(step.trial))
        if above is None or step.outcome == REJECTED:
            continue
        if is_tuned(step.trial):
            of[number] = above
            above.tuned += 1
            if step.outcome == KEPT:
                above.tuned_kept += 1
                above.tuning_gain += step.gain
        else:
            of[number] = found[number] = Structure(
                number,
                above.trial,
                above.depth + 1,
                str(step.trial.user_attrs.get("description", "")),
                step.outcome,
                step.value,
                step.gain,
            )
    for number in in_best & of.keys():
        of[number].is_in_best = True
    return list(_below(found, root))


def _below(found: dict[int, Structure], root: Structure) -> Iterator[Structure]:
    yield root
    for structure in found.values():
        if structure.parent == root.trial:
            yield from _below(found, structure)
