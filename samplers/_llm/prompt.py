"""A search space and a history as compact text that fits a token budget.

Rows are only ever appended to the table of trials until it is cut back in one step, so that a
server's prefix cache holds from turn to turn.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
import json
import re
from string import Template
from typing import Any
from typing import TYPE_CHECKING
from typing import TypeVar

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from .._trials.history import effective_params
from .._trials.history import failure_class
from .._trials.history import is_failure
from .._trials.history import successes
from .._trials.history import violation
from .values import choice_labels
from .values import format_value


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from .._trials.history import Rule
    from .chat import Chat
    from .chat import Message
    from .tokens import TokenCounter

_Size = TypeVar("_Size")

# What a server's chat template puts around a message, in tokens; ChatML takes about 5.
_MESSAGE_TOKENS = 8
# What it puts before messages without a system one, as SmolLM2's and Qwen's do.
_SYSTEM_TOKENS = 24
# Longest prompts, in tokens, where nothing else is said: small models get slow and lose track.
_SMALL_PROMPT = 2600
_LARGE_PROMPT = 12_000

# What chat templates put between messages: ChatML's, Llama's, Mistral's, Gemma's, DeepSeek's, GLM's,
# EXAONE's, Nemotron's, Seed's, Ling's, Cohere's, LongCat's, MiniMax's, and tokens that vocabularies
# keep in reserve.
_MARKER = re.compile(
    r"<(?=[|\uff5c])|(?<=[|\uff5c])>"
    r"|<(?=<?/?(?:SYS|s|bos|eos|sop|eop|pad|unk|think|tool_call|tool_response"
    r"|(?:start|beginning|end)_of_\w+|role|im_start|im_end|[A-Z]+_TOKEN"
    r"|longcat_\w+|seed:\w+|(?:extra_id_|SPECIAL_|unused|reserved_)\d+)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK"
    r"|gMASK)\]|\|\w+\|\]|e~\[)|\](?=~!?b[\[\]])"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class PromptTooLong(ValueError):
    """The budget does not even hold the search space; the message says what it would take."""


class TemplateError(ValueError):
    """A template and the values given for it do not match; the message names the variables."""


@dataclass(frozen=True)
class Extent:
    """The amount of detail in a prompt.

    Attributes:
        recent: Trials that the table is cut back to.
        step: Rows that the table grows by before it is cut.
        best: Best trials that are named.
        task_characters: Length that the task's text is cut to; ``None``: whole.
        choices: Choices that are listed of a categorical parameter; ``None``: all.
        details: Whether the best come first with their near-copies, and rows have more columns.
        others: With details, older failures that are shown, and as many far successes.
    """

    recent: int = 20
    step: int = 20
    best: int = 5
    task_characters: int | None = None
    choices: int | None = None
    details: bool = False
    others: int = 0

    @property
    def most_rows(self) -> int:
        """Rows of the table just before it is cut."""
        return self.recent + self.step - 1 if self.recent else 0


# Ever smaller: fewer rows, then fewer best, then a shorter task. A table that is cut in larger
# steps stays the same for longer: in 2,600 tokens with 14 parameters a server reads 850 of a
# prompt anew, and with steps of three trials, which would leave room for more rows, 1,380.
EXTENTS = (
    Extent(recent=20, step=20),
    *(Extent(recent=step // 2, step=step) for step in range(20, 1, -1)),
    Extent(recent=0, step=1),
    Extent(recent=0, step=1, best=3),
    Extent(recent=0, step=1, best=1),
    Extent(recent=0, step=1, best=1, task_characters=400),
    Extent(recent=0, step=1, best=1, task_characters=400, choices=10),
)

# For models that read more than a page, before ``EXTENTS``.
DETAILED = (
    *(
        Extent(recent=10, step=step, best=best, others=others, details=True)
        for step, best, others in ((20, 15, 5), (20, 10, 3), (10, 10, 3), (10, 5, 2), (6, 5, 1))
    ),
    Extent(recent=5, step=5, best=3, others=1, details=True),
)


def fill(template: str, **values: object) -> str:
    """Put values into a template's ``$name`` variables (``$$`` is a dollar sign).

    Raises:
        TemplateError: If a variable has no value, or a value no variable.
    """
    found = list(Template.pattern.finditer(template))
    if any(match["invalid"] is not None for match in found):
        raise TemplateError("A $ in a template must begin a name or be written $$.")
    names = {match["named"] or match["braced"] for match in found} - {None}
    if missing := sorted(names - values.keys()):
        raise TemplateError(f"The template's variables must have values, but {missing} have none.")
    if unused := sorted(values.keys() - names):
        raise TemplateError(f"The template must use all values, but not {unused}.")
    return Template(template).substitute(values)


def neutral(text: str) -> str:
    """Break what a server could take for its chat template's own markers, by a space."""
    return _MARKER.sub(lambda match: " >" if match[0] == ">" else f"{match[0]} ", text)


def message(role: str, text: str) -> Message:
    """Make a message of a text that holds names, reasons or logs of somebody else's."""
    return {"role": role, "content": neutral(text)}


def label(name: str) -> str:
    """A name as it stands in a table or a list, in one line: as JSON would escape it."""
    return json.dumps(name)[1:-1] if _CONTROL.search(name) else name


def describe_search_space(
    space: Mapping[str, BaseDistribution], n_choices: int | None = None
) -> str:
    """Write a line a parameter: name, type, range, log or step, or its first ``n_choices``."""
    return "\n".join(f"{label(name)}: {_describe(d, n_choices)}" for name, d in space.items())


def _describe(distribution: BaseDistribution, n_choices: int | None) -> str:
    if isinstance(distribution, CategoricalDistribution):
        labels = [label(text) for text in choice_labels(distribution)]
        if n_choices is None or len(labels) <= n_choices:
            return f"one of {', '.join(labels)}"
        return f"one of {len(labels)} such as {', '.join(labels[:n_choices])}"
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    text = f"{kind} {distribution.low:.12g} to {distribution.high:.12g}"
    if isinstance(distribution, IntDistribution):
        text = f"{kind} {distribution.low} to {distribution.high}"
    if distribution.log:
        text += ", log"
    if distribution.step is not None and (kind == "float" or distribution.step != 1):
        text += f", step {distribution.step:.12g}"
    return text


def format_params(params: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> str:
    """Write a configuration as JSON with 3 significant digits, as a reply would give it."""
    pairs = (f"{json.dumps(n)}: {_as_json(params[n], d)}" for n, d in space.items())
    return "{" + ", ".join(pairs) + "}"


def _as_json(value: Any, distribution: BaseDistribution) -> str:
    text = format_value(value, distribution)
    return json.dumps(text) if isinstance(distribution, CategoricalDistribution) else text


def window_start(n_trials: int, extent: Extent) -> int:
    """Return the index of the first of ``n_trials`` trials that the table shows.

    A pure function of the number of trials, so that every process shows the same rows: the table
    grows from ``recent`` to ``recent + step - 1`` rows and is then cut back to ``recent``.
    """
    if extent.recent == 0:
        return n_trials
    return max(0, (n_trials - extent.recent) // extent.step * extent.step)


def format_header(
    space: Mapping[str, BaseDistribution], before: Sequence[str] = (), after: Sequence[str] = ()
) -> str:
    """Write the first line of the table of trials, with columns before and after the value."""
    names = [*space, *before]
    return ",".join(["trial", *(csv_field(label(name)) for name in names), "value", *after])


def format_row(
    trial: FrozenTrial,
    space: Mapping[str, BaseDistribution],
    rule: Rule | None = None,
    digits: int = 5,
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> str:
    """Write a CSV row: the trial's number, its effective values, its value or how it failed; of an
    infeasible one both.

    A parameter that the trial does not have is an empty field. Fields before and after the value
    stand as they are given.
    """
    params = effective_params(trial, rule)
    fields = [format_value(params[n], d) if n in params else "" for n, d in space.items()]
    fields = [csv_field(field) for field in fields]
    return ",".join([str(trial.number), *fields, *before, format_outcome(trial, digits), *after])


def csv_field(text: str) -> str:
    """Quote a field that would be taken for two."""
    if any(character in text for character in ',"\n\r'):
        return '"' + text.replace('"', '""').replace("\n", " ") + '"'
    return text


def format_outcome(trial: FrozenTrial, digits: int) -> str:
    """Write a trial's value or how it failed."""
    if trial.state == TrialState.RUNNING:
        return "running"
    if is_failure(trial):
        return failure_class(trial)
    if trial.state == TrialState.PRUNED:
        return "pruned"
    value = f"{trial.values[0]:.{digits}g}"
    return f"{value} (infeasible)" if violation(trial) else value


def format_failures(trials: Sequence[FrozenTrial]) -> str:
    """Write the failures by class: how many, and the latest one's number and reason; ``""``.

    And how many others are infeasible, which a model must be told the meaning of.
    """
    lines = [_failures(trials), _infeasible(trials)]
    return "\n".join(filter(None, lines))


def _infeasible(trials: Sequence[FrozenTrial]) -> str:
    found = [t for t in successes(trials) if violation(t)]
    if not found:
        return ""
    return (
        f"{len(found)} of {len(trials)} trials are infeasible (last trial {found[-1].number}): they "
        "violate a constraint, and any that violates none is better."
    )


def _failures(trials: Sequence[FrozenTrial]) -> str:
    classes: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if is_failure(trial):
            classes.setdefault(failure_class(trial), []).append(trial)
    if not classes:
        return ""
    parts = []
    for name, failed in sorted(classes.items(), key=lambda item: -len(item[1])):
        reason = str(failed[-1].user_attrs.get("reason", ""))[:80]
        latest = f"trial {failed[-1].number}" + (f": {reason}" if reason else "")
        parts.append(f"{len(failed)} {name} (last {latest})")
    total = sum(map(len, classes.values()))
    return f"{total} of {len(trials)} trials failed: " + "; ".join(parts)


def grown(rows: Sequence[str], n: int) -> list[str]:
    """Lengthen a table to ``n`` rows, as it will become, by rows of the median length."""
    if not rows:
        return []
    median = sorted(rows, key=len)[len(rows) // 2]
    return [*rows, *[median] * (n - len(rows))]


def count_tokens(counter: TokenCounter, messages: Sequence[Message]) -> int:
    """Count the tokens of a whole request, with what a chat template adds."""
    has_system = any(m["role"] == "system" for m in messages)
    told = sum(counter.count_tokens(m["content"]) + _MESSAGE_TOKENS for m in messages)
    return told if has_system else told + _SYSTEM_TOKENS


def default_prompt_tokens(details: bool) -> int:
    """Return the longest prompt of a model that gets all details, or only the table."""
    return _LARGE_PROMPT if details else _SMALL_PROMPT


def fit(
    build: Callable[[Extent, bool], Sequence[Message]],
    chat: Chat,
    max_tokens: int,
    extents: Sequence[Extent] = EXTENTS,
) -> list[Message]:
    """Build the messages with the largest extent that stays within a budget for good.

    Args:
        build: Makes the messages of an extent; if its second argument is true, with the table as
            long as it will become before it is cut the next time (``grown``). An extent that only
            fits now would have the table's beginning jump back and forth from turn to turn, and
            nothing would stay in the server's prefix cache.
        chat: Counts the tokens.
        max_tokens: The budget.
        extents: Ever smaller ones to choose from, those with details before the others, of which
            the first are larger than the last with details.

    Raises:
        PromptTooLong: If the smallest extent is still too long.
    """

    def needed(extent: Extent) -> int:
        return count_tokens(chat, build(extent, True))

    def fits(extent: Extent) -> bool:
        return needed(extent) <= max_tokens

    detailed = [extent for extent in extents if extent.details]
    extent = largest_fitting(detailed, fits) or largest_fitting(extents[len(detailed) :], fits)
    if extent is None:
        raise PromptTooLong(
            f"The prompt must fit into {max_tokens} tokens, but without any trial it takes "
            f"{needed(extents[-1])}. Allow a longer prompt, or tune fewer parameters."
        )
    return list(build(extent, False))


def largest_fitting(sizes: Sequence[_Size], fits: Callable[[_Size], bool]) -> _Size | None:
    """Return the first of ever smaller sizes that fits; ``None`` if none does.

    ``fits`` is asked of few of them: it counts tokens, each count may be a request to the server,
    and that waits while the server computes for others.
    """
    index = bisect_left(sizes, True, key=fits)
    return sizes[index] if index < len(sizes) else None


def shorten(text: str, characters: int | None) -> str:
    """Cut a text at a number of characters, with an ellipsis if something is cut."""
    if characters is None or len(text) <= characters:
        return text
    return text[: characters - 1].rstrip() + "…"
