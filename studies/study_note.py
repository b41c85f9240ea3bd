"""The note on a study's page in optuna-dashboard: the best so far, and which commands come next.

It is ours as long as its version is 1: the dashboard counts one up when somebody edits a note.
"""

from __future__ import annotations

from collections.abc import Mapping
import shlex
from typing import Any
from typing import TYPE_CHECKING

from optuna.storages import BaseStorage

from objective.testbed.metric import Metric
from studies.budget import is_ok
from studies.printable import printable
from studies.storage.bulk import add_study_attrs


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

COMMAND = "command_line"  # user attribute of a study: the command line that makes it
_VERSION, _TEXT = "dashboard:note_ver", "dashboard:note_str:0"
# The dashboard puts 2045 characters into an attribute, and so many of ours are in one.
_MOST_CHARACTERS = 600  # of a command


def describe_study(
    name: str,
    best: FrozenTrial | None,
    baseline: FrozenTrial | None,
    metric: Metric,
    attributes: Mapping[str, Any],
) -> str:
    """Write the note of a study as Markdown.

    Args:
        name: The study's.
        best: The trial with the best value; None if none has succeeded.
        baseline: The run of the script as it is; None if it isn't known.
        metric: The study's.
        attributes: The study's user attributes.
    """
    return "\n\n".join([_standing(best, baseline, metric), *_commands(name, attributes)])


def _standing(best: FrozenTrial | None, baseline: FrozenTrial | None, metric: Metric) -> str:
    if best is None:
        return "No trial has succeeded yet."
    value, label = best.values[0], metric.name.replace("_", r"\_")
    said = f"**Best so far: {label} {value:.5g} in trial {best.number}**"
    if baseline is None:
        return f"{said}."
    if baseline.number == best.number:
        return f"{said}, the baseline: nothing has been better yet."
    if not is_ok(baseline):
        return f"{said}. The baseline, trial {baseline.number}, failed."
    first = baseline.values[0]
    gain = metric.cost(first) - metric.cost(value)
    return f"{said}, {gain:.2g} better than {first:.5g} of the baseline, trial {baseline.number}."


def _commands(name: str, attributes: Mapping[str, Any]) -> list[str]:
    """Write the commands that come next, each in a block, for whoever looks from another place."""
    command = printable(" ".join(str(attributes.get(COMMAND) or "").split()))
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    if not words:
        return []
    best = [words[0], "best", "--study", name]
    for at, word in enumerate(words):
        if word in ("--storage", "--artifacts"):
            best += words[at : at + 2]
        elif word.startswith(("--storage=", "--artifacts=")):
            best.append(word)
    labels = {
        "The best configuration as it was run, beside the baseline:": printable(shlex.join(best)),
        "Imported by:" if "imported_from" in attributes else "To go on where it stopped:": command,
    }
    return [
        f"{label}\n\n    {line}" for label, line in labels.items() if len(line) <= _MOST_CHARACTERS
    ]


def write_study_note(study: optuna.Study, storage: BaseStorage, text: str) -> None:
    """Write the note of a study, unless somebody else has written one."""
    there = storage.get_study_system_attrs(study._study_id)
    if _VERSION not in there:
        add_study_attrs(study, storage, [{_VERSION: 1, _TEXT: text}])
    elif there[_VERSION] == 1 and there.get(_TEXT) != text:
        storage.set_study_system_attr(study._study_id, _TEXT, text)
