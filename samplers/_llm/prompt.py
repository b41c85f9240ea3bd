"""A search space and a history as compact text that fits a token budget.

Rows are only ever appended to the table of trials until it is cut back in one step, so that a
server's prefix cache holds from turn to turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .chat import Chat
    from .chat import Message
    from .history import Rule


class PromptTooLong(ValueError):
    """The budget does not even hold the search space; the message says what it would take."""


class TemplateError(ValueError):
    """A template and the values given for it do not match; the message names the variables."""


@dataclass(frozen=True)
class Extent:
    """How much a prompt tells.

    Attributes:
        recent: Trials that the table is cut back to.
        step: Rows that the table grows by before it is cut.
        best: Best trials that are named.
        task_characters: Length that the task's text is cut to; ``None``: whole.
    """

    recent: int = 20
    step: int = 10
    best: int = 5
    task_characters: int | None = None


@dataclass(frozen=True)
class History:
    """The parts of a prompt that depend on the trials, ready for ``fill``.

    Attributes:
        trials: Table of the recent trials, a CSV row each, the oldest first. Changes by appending.
        best: The best trials by number; rows of those that ``trials`` does not show.
        failures: Number of failures of each class, and the trials' numbers; ``""`` if none.
    """

    trials: str
    best: str
    failures: str


def load_template(path: Path) -> str:
    """Text of a template file that lies beside a sampler."""
    raise NotImplementedError


def fill(template: str, **values: object) -> str:
    """Put values into a template's ``$name`` variables (``$$`` is a dollar sign).

    Raises:
        TemplateError: If a variable has no value, or a value no variable.
    """
    raise NotImplementedError


def describe_search_space(
    space: Mapping[str, BaseDistribution], *, default: Mapping[str, Any] | None = None
) -> str:
    """A line a parameter: name, type, range, log or step, choices, and the default if given."""
    raise NotImplementedError


def format_value(value: Any, distribution: BaseDistribution | None = None) -> str:
    """Floats with 3 significant digits, integers exact, choices by their label."""
    raise NotImplementedError


def format_params(params: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> str:
    """One configuration as JSON with 3 significant digits, as a reply would give it."""
    raise NotImplementedError


def window_start(n_trials: int, extent: Extent) -> int:
    """Index of the first of ``n_trials`` trials that the table shows.

    A pure function of the number of trials: the table grows from ``recent`` to
    ``recent + step - 1`` rows and is then cut back to ``recent``.
    """
    raise NotImplementedError


def format_trials(
    trials: Sequence[FrozenTrial],
    space: Mapping[str, BaseDistribution],
    *,
    rule: Rule | None = None,
    header: bool = True,
) -> str:
    """CSV rows: the trial's number, its effective values, its value or how it failed."""
    raise NotImplementedError


def format_failures(trials: Sequence[FrozenTrial]) -> str:
    """Failures by class: how many of how many trials, and the latest ones' numbers."""
    raise NotImplementedError


def describe_history(
    study: Study,
    space: Mapping[str, BaseDistribution],
    extent: Extent,
    *,
    rule: Rule | None = None,
) -> History:
    """The history parts of a prompt at a given extent."""
    raise NotImplementedError


def fit(
    build: Callable[[Extent], Sequence[Message]],
    chat: Chat,
    max_tokens: int,
    extent: Extent = Extent(),
) -> tuple[list[Message], Extent]:
    """Build the messages with the largest extent whose tokens stay within a budget.

    What goes first: the oldest rows, then the best beyond one, then the end of the task.

    Raises:
        PromptTooLong: If the smallest extent is still too long.
    """
    raise NotImplementedError


def shorten(text: str, characters: int | None) -> str:
    """A text cut at a number of characters, with an ellipsis if something was cut."""
    raise NotImplementedError


def trials_left(study: Study, n_trials: int | None) -> int | None:
    """Trials still to run of a total; ``None`` without a total."""
    raise NotImplementedError
