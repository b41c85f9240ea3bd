"""The requests of one trial: their texts, how they share a beginning, and how large they may be.

Requests of one template begin with the same text up to its last trial, so that a server's prefix
cache holds it. What differs among them, the question, comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
import re
from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from .._llm.prompt import count_tokens
from .._llm.prompt import default_prompt_tokens
from .._llm.prompt import describe_search_space
from .._llm.prompt import fill
from .._llm.prompt import grown
from .._llm.prompt import largest_fitting
from .._llm.prompt import message
from .._llm.prompt import PromptTooLong
from .._llm.prompt import shorten
from .._llm.propose import is_large
from .._llm.propose import smaller_budget
from .._llm.reply import json_values
from .._llm.values import format_value
from .._trials.history import outcome
from .._trials.seeds import derive_seed
from .candidates import candidates_schema
from .candidates import target_loss
from .examples import count_outcomes
from .examples import format_score
from .examples import row
from .examples import score_digits
from .examples import shown_failures
from .examples import shown_successes
from .examples import shuffled
from .examples import Size
from .examples import SIZES
from .examples import trial_row
from .examples import widest_row
from .surrogate import good_labels


if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from .._llm.chat import Chat
    from .._llm.chat import ContextTooLong
    from .._llm.chat import Message
    from .._trials.history import Rule

_FOLDER = Path(__file__).parent
_SYSTEM = "You help to tune the parameters of an expensive experiment."

# LLAMBO's temperatures. Candidates should differ more than predictions.
_CANDIDATES_TEMPERATURE = 0.8
_PREDICTIONS_TEMPERATURE = 0.7

# The task's text is cut if it leaves no room for the trials.
_TASK_CHARACTERS = (3000, 1000, 300, 0)
_CLASH_CHARACTERS = 300
_CLASHES = shorten("repeats trial 1234; " * 20, _CLASH_CHARACTERS)  # as long as they get

# A number of 3 digits is 5 to 8 tokens, one that a model writes out to the end up to 20.
_VALUE_TOKENS = 12
_SLACK_TOKENS = 64

# Longest prompt of a small model, in tokens, where nothing else is said.
_SMALL_PROMPT = 3000


@dataclass(frozen=True)
class Request:
    """One request to the language model.

    Attributes:
        template: Number of its order of the trials. Requests of one template are sent in turn.
        messages: The conversation.
        schema: JSON schema of the reply.
        max_tokens: Longest reply.
        temperature: Sampling temperature of the reply.
        seed: Differs between all requests of a study.
    """

    template: int
    messages: list[Message]
    schema: dict[str, Any]
    max_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Settings:
    """The sampler's arguments that prompts depend on; see ``LLAMBOSampler``."""

    task: str
    rule: Rule | None
    seed: int
    n_candidates: int
    n_templates: int
    alpha: float
    good_fraction: float
    binary: bool
    generative: bool
    max_tokens: int | None  # of one request's prompt; None: by the model's size


@dataclass(frozen=True)
class Facts:
    """The state of the study when a trial begins.

    Attributes:
        number: The trial's number without repeats of killed ones.
        space: The parameters that the model sees.
        fixed: Values of some of them that were decided before.
        sign: -1 if the scores are maximised, else 1; a loss is the sign times the score.
        successes: The trials with a score, the best first.
        losses: Their losses, in the same order.
        failures: The failed, pruned and infeasible trials that may be shown, in the order of their numbers.
    """

    number: int
    space: Mapping[str, BaseDistribution]
    fixed: Mapping[str, Any]
    sign: float
    successes: Sequence[FrozenTrial]
    losses: Sequence[float]
    failures: Sequence[FrozenTrial]


class Prompts:
    """Builds the requests of one trial.

    Args:
        settings: The sampler's arguments.
        facts: The state of the study.
        chat: The language model that is asked, for the size of its context.
    """

    def __init__(self, settings: Settings, facts: Facts, chat: Chat) -> None:
        self._settings = settings
        self._facts = facts
        self._chat = chat
        small = is_large(chat) is False
        self._max_tokens = settings.max_tokens or (
            _SMALL_PROMPT if small else default_prompt_tokens(details=True)
        )
        self._share = -(-settings.n_candidates // settings.n_templates)  # rounded up
        scores = [facts.sign * loss for loss in facts.losses]
        self._digits = score_digits(scores) if scores else 0
        self._built: dict[bool, list[str]] = {}

    def warm_start(self, n: int, clashes: str) -> list[Request]:
        """Build a request for the first ``n`` configurations, with what results there are.

        Args:
            n: Number of configurations.
            clashes: Reasons why the last reply's configurations can't be run; ``""`` for none.

        Raises:
            PromptTooLong: If the search space leaves no room.
        """

        def text(task_characters: int) -> str:
            return _fill(
                "warm_start.txt",
                known=self._known(SIZES[-2]),
                failures=self._failures(SIZES[-2]),
                **(self._head(task_characters) | self._candidates_tail(n, clashes)),
            )

        characters = largest_fitting(
            _TASK_CHARACTERS,
            lambda characters: self._fits(text(characters), self._reply_tokens(n)),
        )
        if characters is None:
            raise self._too_long(text(_TASK_CHARACTERS[-1]))
        return [self._candidates_request(0, text(characters), n, "warm start", clashes)]

    def candidates(self, clashes: str) -> list[Request]:
        """Build a request of each template for its share of the candidates.

        Args:
            clashes: Reasons why the last replies' configurations can't be run; ``""`` for none.

        Raises:
            PromptTooLong: If the search space leaves no room.
        """
        tail = self._candidates_question(clashes)
        return [
            self._candidates_request(i, f"{context}\n\n{tail}", self._share, "candidates", clashes)
            for i, context in enumerate(self._contexts(binary=False))
        ]

    def predictions(self, candidates: Sequence[Mapping[str, Any]], n: int) -> list[Request]:
        """Build requests for all candidates' scores, or their probabilities of being good.

        Args:
            candidates: The configurations.
            n: Number of requests; a multiple of the number of templates.

        Raises:
            PromptTooLong: If the search space leaves no room.
        """
        names = _names(len(candidates))
        rule = self._settings.rule
        rows = [
            f"{name}: {row({**c, **rule(c)} if rule else c, self._facts.space)}"
            for name, c in zip(names, candidates)
        ]
        contexts = self._contexts(binary=self._settings.binary)
        longest = max(contexts, key=len)
        # Room was left for rows of about this length. Should they be longer, the last ones wait.
        while len(rows) > 1 and not self._fits(
            f"{longest}\n\n{self._predictions_question(rows)}", self._prediction_tokens(len(rows))
        ):
            rows.pop()
        names = names[: len(rows)]
        value: dict[str, Any] = {"type": "number"}
        if self._settings.generative:
            value |= {"minimum": 0, "maximum": 1}
        schema = {
            "type": "object",
            "properties": {name: value for name in names},
            "required": names,
            "additionalProperties": False,
        }
        requests = []
        for i, context in enumerate(contexts):
            # Another order in each template, for the same reason as that of the trials.
            rng = np.random.default_rng(self._seed("order of candidates", i))
            question = self._predictions_question([rows[k] for k in rng.permutation(len(rows))])
            for sample in range(n // self._settings.n_templates):
                requests.append(
                    Request(
                        template=i,
                        messages=_messages(f"{context}\n\n{question}"),
                        schema=schema,
                        max_tokens=self._prediction_tokens(len(rows)),
                        temperature=_PREDICTIONS_TEMPERATURE,
                        seed=self._seed("predictions", i, sample),
                    )
                )
        return requests

    def read_predictions(self, text: str, n: int) -> list[float]:
        """Read scores or probabilities of ``n`` candidates from a reply, (n,); NaN where none is."""
        found: dict[str, Any] = {}
        for value in json_values(text):
            if isinstance(value, dict):
                found |= value
        numbers = [_number(found.get(name)) for name in _names(n)]
        if self._settings.generative:
            return [number if 0.0 <= number <= 1.0 else math.nan for number in numbers]
        return numbers

    def shrink(self, refused: Sequence[Request], error: ContextTooLong) -> None:
        """Build shorter requests from now on than these, which a server refused as too long."""
        taken = max(count_tokens(self._chat, request.messages) for request in refused)
        taken = min(taken, self._max_tokens)
        self._max_tokens = smaller_budget(taken, error, refused[0].max_tokens)
        self._built.clear()

    # Parts of requests

    def _candidates_request(
        self, template: int, text: str, n: int, name: str, clashes: str
    ) -> Request:
        return Request(
            template=template,
            messages=_messages(text),
            schema=candidates_schema(self._facts.space, n),
            max_tokens=self._reply_tokens(n),
            temperature=_CANDIDATES_TEMPERATURE,
            seed=self._seed(name, template, "again" if clashes else ""),
        )

    def _candidates_tail(self, n: int, clashes: str) -> dict[str, object]:
        space = self._facts.space
        fixed = [f"{k} = {format_value(v, space[k])}" for k, v in self._facts.fixed.items()]
        return {
            "n": n,
            "n_parameters": len(space),
            "names": ",".join(space),
            "fixed": f"Decided already: {', '.join(fixed)}." if fixed else "",
            "clashes": shorten(clashes, _CLASH_CHARACTERS),
        }

    def _candidates_question(self, clashes: str) -> str:
        target = target_loss(self._facts.losses, self._settings.alpha)
        return _fill(
            "candidates.txt",
            best=self._score(self._facts.losses[0]),
            target=self._score(target),
            **self._candidates_tail(self._share, clashes),
        )

    def _predictions_question(self, rows: Sequence[str]) -> str:
        candidates = "\n".join(rows)
        losses = self._facts.losses
        if not self._settings.generative:
            median = self._score(float(np.median(losses)))
            return _fill("predictions.txt", candidates=candidates, example=median)
        if self._settings.binary:
            meaning = "it has the label 1"
        else:
            threshold = float(np.quantile(losses, self._settings.good_fraction))
            direction = "or lower" if self._facts.sign > 0 else "or higher"
            meaning = f"its score is {self._score(threshold)} {direction}"
        return _fill("probabilities.txt", candidates=candidates, meaning=meaning)

    def _head(self, task_characters: int) -> dict[str, object]:
        better = "lower" if self._facts.sign > 0 else "higher"
        return {
            "task": shorten(self._settings.task, task_characters) if task_characters else "",
            "n_parameters": len(self._facts.space),
            "space": describe_search_space(self._facts.space),
            "goal": f"Each configuration gets a score. The {better} the score, the better.",
        }

    def _contexts(self, *, binary: bool) -> list[str]:
        """Write each template's beginning of its requests, with as many trials as leave them room."""
        if binary not in self._built:
            self._built[binary] = self._build_contexts(binary)
        return self._built[binary]

    def _build_contexts(self, binary: bool) -> list[str]:
        facts = self._facts
        if binary:
            labels = map(str, good_labels(facts.losses, self._settings.good_fraction))
        else:
            labels = map(self._score, facts.losses)
        outcomes = {t.number: label for t, label in zip(facts.successes, labels)}
        likely = widest_row(facts.space)
        rows = [f"{name}: {likely}" for name in _names(self._settings.n_candidates)]
        questions = [self._candidates_question(_CLASHES), self._predictions_question(rows)]
        shapes = [(size, _TASK_CHARACTERS[0]) for size in SIZES]
        shapes += [(SIZES[-1], characters) for characters in _TASK_CHARACTERS[1:]]

        def contexts(shape: tuple[Size, int], fullest: bool) -> list[str]:
            templates = range(self._settings.n_templates)
            return [self._context(*shape, i, binary, outcomes, fullest) for i in templates]

        def longest(shape: tuple[Size, int]) -> list[str]:
            context = max(contexts(shape, fullest=True), key=len)
            return [f"{context}\n\n{question}" for question in questions]

        def fits(shape: tuple[Size, int]) -> bool:
            reply_tokens = self._reply_tokens(self._share)
            return all(self._fits(text, reply_tokens) for text in longest(shape))

        shape = largest_fitting(shapes, fits)
        if shape is None:
            raise self._too_long(max(longest(shapes[-1]), key=len))
        return contexts(shape, fullest=False)

    def _context(
        self,
        size: Size,
        task_characters: int,
        template: int,
        binary: bool,
        outcomes: Mapping[int, str],  # trial's number -> its score or label as text
        fullest: bool,  # with as many rows as there will be before the table is cut
    ) -> str:
        facts = self._facts
        percent = f"{100 * self._settings.good_fraction:g}"
        meaning = f"The label is 1 for the best {percent} % of the scores, else 0."
        shown = shown_successes(facts.successes, size)
        rows = [
            trial_row(t, facts.space, self._settings.rule, outcomes[t.number])
            for t in shuffled(shown, self._settings.seed, template)
        ]
        if fullest:
            rows = grown(rows, size.most_rows - len(shown_failures(facts.failures, size)))
        left_out = len(facts.successes) - len(shown)
        more = [f"{left_out} more are not listed."] if left_out else []
        return _fill(
            "context.txt",
            **self._head(task_characters),
            columns=",".join([*facts.space, "label" if binary else "score"]),
            meaning=meaning if binary else "",
            examples="\n".join(rows),
            more="\n".join([*more, self._failures(size)]),
        )

    def _known(self, size: Size) -> str:
        """The trials that have a score before the model's first, such as a baseline."""
        facts = self._facts
        if not facts.successes:
            return "No score is known yet."
        scores = {t.number: self._score(loss) for t, loss in zip(facts.successes, facts.losses)}
        rows = [
            trial_row(t, facts.space, self._settings.rule, scores[t.number])
            for t in shown_successes(facts.successes, size)
        ]
        return "\n".join(["All that is known so far:", ",".join([*facts.space, "score"]), *rows])

    def _failures(self, size: Size) -> str:
        facts = self._facts
        if not facts.failures:
            return ""
        rows = [
            trial_row(t, facts.space, self._settings.rule, outcome(t))
            for t in shown_failures(facts.failures, size)
        ]
        counts = count_outcomes(facts.failures)
        return "\n".join([f"These gave no score ({counts} in all):", *rows])

    def _score(self, loss: float) -> str:
        return format_score(self._facts.sign * loss, self._digits)

    def _seed(self, *path: int | str) -> int:
        return derive_seed(self._settings.seed, self._facts.number, *path)

    # Sizes

    def _reply_tokens(self, n: int) -> int:
        return n * (_VALUE_TOKENS * len(self._facts.space) + 4) + _SLACK_TOKENS

    def _prediction_tokens(self, n: int) -> int:
        return n * (_VALUE_TOKENS + 5) + _SLACK_TOKENS

    def _fits(self, text: str, reply_tokens: int) -> bool:
        """Tell whether a prompt is within the limits and leaves the context room for the reply."""
        limit, context = self._max_tokens, self._chat.context_tokens
        if context is not None:
            limit = min(limit, context - reply_tokens)
        return count_tokens(self._chat, _messages(text)) <= limit

    def _too_long(self, text: str) -> PromptTooLong:
        return PromptTooLong(
            f"A prompt must fit into {self._max_tokens} tokens, and leave the model's context room "
            "for the reply, but with the fewest trials it has "
            f"{count_tokens(self._chat, _messages(text))} tokens. Raise `max_prompt_tokens`, lower "
            "`n_candidates` or `n_startup_trials`, or tune fewer parameters."
        )


def _fill(template: str, **values: object) -> str:
    """Fill a template file, without the gaps that empty values leave."""
    text = fill((_FOLDER / template).read_text(encoding="utf-8"), **values)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", text))
    return text.strip("\n")


def _messages(text: str) -> list[Message]:
    return [message("system", _SYSTEM), message("user", text)]


def _names(n: int) -> list[str]:
    return [f"c{i}" for i in range(1, n + 1)]


def _number(value: Any) -> float:
    """Read a finite number or a text that is one; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
