"""Ask a language model for a configuration, check it, and ask once more if it will not do."""

from __future__ import annotations

from dataclasses import dataclass
import random
import re
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

import optuna

from .._trials.announced import announce
from .._trials.history import tolerant
from .._trials.internals import fixed_params
from .._trials.internals import fresh_trials
from .._trials.internals import interrupted_trials
from .chat import BudgetExhausted
from .chat import ChatError
from .chat import ContextTooLong
from .prompt import count_tokens
from .prompt import EXTENTS
from .prompt import fit
from .prompt import format_params
from .prompt import message
from .prompt import neutral
from .prompt import PromptTooLong
from .record import Exchange
from .record import LLM
from .record import LLM_DUPLICATE
from .record import LLM_ERROR
from .record import one_line
from .record import source_of
from .reply import changes_schema
from .reply import configuration_key
from .reply import known_configurations
from .reply import params_schema
from .reply import parse_params
from .reply import reason_key
from .reply import ReplyError
from .reply import with_reason_first
from .warm_start import configurations_schema
from .warm_start import parse_configurations
from .warm_start import store
from .warm_start import stored


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Collection
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.history import Rule
    from .chat import Chat
    from .chat import Completion
    from .chat import Message
    from .prompt import Extent

_logger = optuna.logging.get_logger(f"optuna.{__name__}")

# LLM turns of a study in a row that may fail before it stops.
MAX_ERRORS_IN_A_ROW = 5

# Parameters for which candidate values are offered; which ones is drawn for each trial. With four
# instead of three, a model of 0.135 billion parameters changed so many that it went too far.
_N_OFFERED = 3

# Billions of parameters from which a model is trusted to propose values of its own. One of 0.135
# never came near the best so far; 8 to 27 do.
_LARGE = 3

# A reason of a sentence or two.
_REASON_TOKENS = 150

# A server whose context is smaller than the budget says so; each time the prompt shrinks to this
# share, or to what the server says that it holds.
_SHRINK = 0.7
MAX_SHRINKS = 5


class TooManyLLMErrors(ChatError):
    """The language model failed in so many turns of the study in a row that it had to stop."""


@dataclass(frozen=True)
class Proposal:
    """The result of one LLM turn.

    Attributes:
        params: A value for every parameter; ``None`` if the caller has to use its own.
        source: ``"llm"``, ``"llm-error"`` or ``"llm-duplicate"``, for ``record``.
        reason: The error or the trial that was repeated; of a proposal the model's own reason and
            what was repaired; ``""`` if nothing.
        exchanges: Every request of this turn, for ``record``.
        error: What the caller has to raise after it has recorded the turn, see ``propose``.
    """

    params: dict[str, Any] | None
    source: str
    reason: str
    exchanges: tuple[Exchange, ...]
    error: ChatError | PromptTooLong | None = None


def propose(
    study: Study,
    trial: FrozenTrial,
    space: Mapping[str, BaseDistribution],
    *,
    chat: Chat,
    build: Callable[[Extent, bool], Sequence[Message]],
    base: Mapping[str, Any],
    reply_format: Literal["full", "changes", "menu"] = "full",
    rule: Rule | None = None,
    max_prompt_tokens: int = 2600,
    extents: Sequence[Extent] = EXTENTS,
    with_reason: bool = False,
    repeatable: Collection[int] = (),
    n_first: int = 0,
    seed: int | None = None,
    on_error: Literal["base", "raise"] = "base",
) -> Proposal:
    """Ask the language model for one trial's configuration.

    Nothing is raised for a language model that fails: the caller first records the turn, so that
    the trial tells the truth, and then raises ``Proposal.error`` if there is one.

    Args:
        study: The study.
        trial: The running trial that the proposal is for. Values that were enqueued for it are
            kept, and are not asked for.
        space: The search space.
        chat: The language model.
        build: Makes the request's messages, see ``fit``.
        base: A value for every parameter, used where the reply has none. With ``"changes"`` and
            ``"menu"`` it is the configuration that the model was told to change.
        reply_format: ``"full"`` asks for a whole configuration, ``"changes"`` for changes to
            ``base`` with any values. ``"menu"`` offers three parameters, drawn by ``seed``, and
            for each a few candidate values near ``base`` that make another configuration than
            those that are known (``changes_schema``): what a weak model can handle.
        rule: The objective's own rule, for telling duplicates.
        max_prompt_tokens: Longest prompt, in the model's tokens.
        extents: Amounts of detail for ``build``, the largest first.
        with_reason: Whether the reply begins with the model's reason, in a sentence. It becomes
            the proposal's.
        repeatable: Numbers of trials whose configurations may be proposed again.
        n_first: Trials of a warm start that are left, this one included; 0 if it is none. What an
            earlier trial kept is proposed without a request. Else so many whole configurations are
            asked for, of which the first that is new is proposed; the others are kept.
        seed: Seed of the trial, not of the study: the same seed with the same messages may repeat
            the same reply. The second request adds 1.
        on_error: What to do about a failed turn, which is a ``ChatError`` or two replies that no
            configuration can be made of. ``"base"``: a proposal without parameters, and with an
            ``error`` only if it is the fifth failed LLM turn of the study in a row; these are
            counted in the storage, whichever process they ran in. ``"raise"``: with an ``error``
            at once. A cap on tokens or cost that is reached is an ``error`` in either case.
            Where even the search space does not fit in a prompt, nothing is sent: the ``error`` of
            ``"raise"`` is a ``PromptTooLong``, and ``"base"`` never stops the study.
    """
    turn = _Turn(study, trial, space, base, rule, with_reason, repeatable)
    if n_first > 1:
        schema = configurations_schema(turn.open_space, n_first, turn.reason_key)
    else:
        schema = _schema(reply_format, turn, trial.number if seed is None else seed)
    max_reply_tokens = _reply_tokens(chat, turn.open_space, turn.base)
    max_reply_tokens = max(1, n_first) * (max_reply_tokens + _REASON_TOKENS * with_reason)
    if n_first:
        for params, note in stored(study, trial, space):
            params = {**params, **turn.fixed}
            if turn.clash(params) is None:
                return Proposal(params, LLM, note, ())
    exchanges: list[Exchange] = []
    problem, source = "", LLM_ERROR
    budget = max_prompt_tokens
    if chat.context_tokens is not None:
        budget = min(budget, max(0, chat.context_tokens - max_reply_tokens))
    shrinks = 0
    try:
        messages = fit(build, chat, budget, extents)
    except PromptTooLong as error:
        return without_room(trial, error, on_error)
    asked = 0
    while asked < 2:
        try:
            completion = chat.complete(
                messages,
                schema=schema,
                max_tokens=max_reply_tokens,
                seed=None if seed is None else seed + asked,
            )
        except ContextTooLong as error:
            exchanges.append(Exchange(messages, None, error))
            shrinks += 1
            if shrinks > MAX_SHRINKS:
                return failed_turn(study, trial, error, exchanges, on_error)
            taken = min(budget, count_tokens(chat, messages))
            budget = smaller_budget(taken, error, max_reply_tokens)
            try:
                messages = fit(build, chat, budget, extents)
            except PromptTooLong:
                return failed_turn(study, trial, error, exchanges, on_error)
            continue
        except ChatError as error:
            exchanges.append(Exchange(messages, None, error))
            grave = on_error == "raise" or isinstance(error, BudgetExhausted)
            if source == LLM_DUPLICATE and not grave:
                break  # The first reply was of use, only known already.
            return failed_turn(study, trial, error, exchanges, on_error)
        asked += 1
        try:
            found = turn.read(completion, reply_format, n_first)
        except ReplyError as error:
            problem, source = str(error), LLM_ERROR
        else:
            if n_first > 1:
                store(study, trial, found)
            for params, note in found:
                clash = turn.clash(params)
                if clash is None:
                    exchanges.append(Exchange(messages, completion))
                    return Proposal(params, LLM, note, tuple(exchanges))
                problem, source = _clash_message(clash, params, space, note), LLM_DUPLICATE
        exchanges.append(Exchange(messages, completion, problem=problem))
        if completion.is_starved:
            break
        complaint: list[Message] = [
            message("assistant", completion.text),
            message("user", f"{problem} Reply again, with JSON only."),
        ]
        room = budget - count_tokens(chat, complaint)
        if count_tokens(chat, messages) > room:
            try:
                messages = fit(build, chat, room, extents)
            except PromptTooLong:
                break
        messages = [*messages, *complaint]
    if source == LLM_DUPLICATE:
        return Proposal(None, LLM_DUPLICATE, one_line(problem), tuple(exchanges))
    return failed_turn(study, trial, ChatError(f"No usable reply: {problem}"), exchanges, on_error)


def starved(completion: Completion) -> str:
    """Say what became of a reply that ``is_starved``.

    The same isn't asked again: the model would think as long, and cost as much.
    """
    spent = completion.completion_tokens or "all its"
    return (
        f"the model spent {spent} tokens thinking, and had none left for its reply; let it think "
        "less (--llm-option reasoning_effort=low, `extra`) or take another one"
    )


class _Turn:
    """A trial's fixed values and open parameters, and the configurations that others have."""

    def __init__(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        base: Mapping[str, Any],
        rule: Rule | None,
        with_reason: bool,
        repeatable: Collection[int],
    ) -> None:
        self._study, self._trial, self._space = study, trial, space
        self._rule = tolerant(rule, study, "rule")
        self._repeatable = repeatable
        self.fixed = fixed_params(trial, space)
        self.base = {**base, **self.fixed}
        self.open_space = {n: d for n, d in space.items() if n not in self.fixed}
        self.reason_key = reason_key(space) if with_reason else None

    def read(
        self, completion: Completion, reply_format: str, n_first: int
    ) -> list[tuple[dict[str, Any], str]]:
        """Read a reply's values, each with the model's reason and what had to be repaired.

        Raises:
            ReplyError: If there are none.
        """
        text = completion.text
        for name in self.open_space:
            # As the prompt shows it, which a server that enforces no schema lets the model write.
            text = text.replace(neutral(name), name)
        try:
            if n_first > 1:
                replies = parse_configurations(text, self.open_space, self.base, self.reason_key)
            else:
                replies = [parse_params(text, self.open_space, self.base, self.reason_key)]
        except ReplyError as error:
            if completion.is_starved:
                raise ReplyError(starved(completion)) from error
            if completion.truncated:
                raise ReplyError(f"The reply was cut off, be shorter. {error}") from error
            raise
        found = []
        for parsed in replies:
            notes = [parsed.reason] if parsed.reason else []
            notes += parsed.repairs
            left_out = [name for name in self.open_space if name not in parsed.named]
            if reply_format == "full" and left_out:
                notes.append(f"filled in: {', '.join(left_out)}")
            found.append(({**parsed.params, **self.fixed}, one_line("; ".join(notes))))
        return found

    def knowledge(self) -> Callable[[Mapping[str, Any]], bool]:
        """Return a test of whether a configuration was known when the turn began."""
        known = known_configurations(
            self._study, self._space, self._rule, besides=self._trial, fresh=False
        )
        return lambda params: configuration_key(params, self._space, self._rule) in known

    def clash(self, params: Mapping[str, Any]) -> int | None:
        """Return the number of the trial with the same configuration, ``None`` if there is none.

        The values are announced before the others' are read: of two workers that choose the same
        at the same time at least one then sees the other.
        """
        announce(self._study, self._trial, params)
        known = known_configurations(self._study, self._space, self._rule, besides=self._trial)
        clash = known.get(configuration_key(params, self._space, self._rule))
        return None if clash in self._repeatable else clash


def _schema(reply_format: str, turn: _Turn, seed: int) -> dict[str, Any]:
    if reply_format == "full":
        return with_reason_first(params_schema(turn.open_space), turn.reason_key)
    if reply_format == "changes":
        return with_reason_first(changes_schema(turn.open_space), turn.reason_key)
    schema = changes_schema(turn.open_space, turn.base, turn.knowledge())
    if not schema["properties"]:
        schema = changes_schema(turn.open_space, turn.base)
    # A weak model doesn't stop before it has changed all that it may, so that its proposal is
    # far away and takes three times as long to write.
    offered = schema["properties"]
    names = random.Random(seed).sample(sorted(offered), min(_N_OFFERED, len(offered)))
    return {**schema, "properties": {n: values for n, values in offered.items() if n in names}}


def _reply_tokens(
    chat: Chat, space: Mapping[str, BaseDistribution], params: Mapping[str, Any]
) -> int:
    """Return how many tokens a reply with a whole configuration may take.

    Twice those of ``params``, since a model may lay its JSON out over lines and write all 17
    digits, and some for a sentence before.
    """
    return 2 * chat.count_tokens(format_params(params, space)) + 12 * len(space) + 100


def smaller_budget(budget: int, error: ContextTooLong, max_reply_tokens: int) -> int:
    """Return the budget of a prompt after one of this length was refused as too long."""
    smaller = int(budget * _SHRINK)
    if error.limit is not None:
        smaller = min(smaller, error.limit - max_reply_tokens)
    return smaller


def _clash_message(
    number: int,
    params: Mapping[str, Any],
    space: Mapping[str, BaseDistribution],
    note: str,
) -> str:
    # What was repaired may be why: a value beyond a bound at which the best trial is already.
    read = f" ({note})" if note else ""
    return (
        f"That is the configuration of trial {number}, which needs no second run: "
        f"{format_params(params, space)}{read}. Change at least one value."
    )


def is_large(chat: Chat) -> bool | None:
    """Tell from a model's name whether it can propose values of its own.

    ``SmolLM2-135M-Instruct`` is too small. ``None`` if the name tells no size. A model whose server
    has to be asked for the name, and is away, counts as large.
    """
    try:
        model = chat.model
    except ChatError:  # what is asked next raises it, too
        return True
    match = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([mb])(?![a-z\d])", model.lower())
    if match is None:
        return None
    return float(match[1]) / (1000 if match[2] == "m" else 1) >= _LARGE


def failed_turn(
    study: Study,
    trial: FrozenTrial,
    error: ChatError,
    exchanges: Sequence[Exchange],
    on_error: str,
) -> Proposal:
    """Return the proposal of a turn that ``error`` ended, see ``on_error`` of ``propose``."""
    raised: ChatError | None = None
    if on_error == "raise" or isinstance(error, BudgetExhausted):
        raised = error
    elif errors_in_a_row(study, besides=trial) + 1 >= MAX_ERRORS_IN_A_ROW:
        raised = TooManyLLMErrors(
            f"The language model failed in {MAX_ERRORS_IN_A_ROW} of its turns in a row, the last "
            f"time with: {error} The finished trials are stored; run the study again to go on "
            "when the model answers, or give another one."
        )
        raised.__cause__ = error
    if raised is None:
        _logger.warning(f"Trial {trial.number} goes on without the language model: {error}")
    return Proposal(None, LLM_ERROR, one_line(str(error)), tuple(exchanges), raised)


def without_room(trial: FrozenTrial, error: PromptTooLong, on_error: str) -> Proposal:
    """Return the proposal of a turn whose prompt is too long, for which nothing was sent."""
    raised = error if on_error == "raise" else None
    if raised is None:
        _logger.warning(f"Trial {trial.number} goes on without the language model: {error}")
    return Proposal(None, LLM_ERROR, one_line(str(error)), (), raised)


def errors_in_a_row(study: Study, *, besides: FrozenTrial) -> int:
    """Count the LLM turns that failed since the last one that did not, by trial number."""
    count = 0
    trials = fresh_trials(study)
    repeated = interrupted_trials(trials)
    for trial in reversed(trials):
        source = source_of(trial)
        if trial.number == besides.number or not source.startswith(LLM):
            continue
        if trial.number in repeated:  # its repetition has its attributes, too
            continue
        if source != LLM_ERROR:
            break
        count += 1
    return count
