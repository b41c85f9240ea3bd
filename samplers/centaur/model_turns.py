"""The language model's turns: which they are, what it is asked, and what is run of its answer."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

import optuna

from .._llm.prompt import default_prompt_tokens
from .._llm.prompt import format_params
from .._llm.propose import is_large
from .._llm.propose import propose
from .._llm.record import is_answered
from .._llm.record import LLM
from .._llm.record import LLM_SCREENED
from .._llm.record import record
from .._llm.record import source_of
from .._llm.reply import reason_key
from .._llm.trial_prompt import TrialPrompt
from .._llm.warm_start import first_trials_left
from .._llm.warm_start import N_FIRST
from .._trials.history import finished_trials
from .._trials.history import ranked
from .._trials.internals import fixed_params
from .._trials.seeds import derive_seed
from .population import turn_of
from .prompt import question
from .prompt import template
from .screening import is_of_share
from .screening import MODEL


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._llm.chat import Chat
    from .._llm.propose import Proposal
    from .._llm.trial_prompt import Knowledge
    from .._trials.internals import ArtifactStore
    from .choosing import Screen
    from .learning import CmaLearning

_logger = optuna.logging.get_logger(f"optuna.{__name__}")

# Answers that show whether a model of unknown size can propose whole configurations.
_N_PROBES = 4


class ModelTurns:
    """The share of the trials that a language model decides.

    Args:
        chat: The model; ``None`` if it has no turn.
        ratio: Its share.
        first: Number of the first trial that may be its.
        warm_start: As in ``CentaurSampler``.
        has_critic: Whether a critic chooses on the other turns.
        reply: As in ``CentaurSampler``.
        knowledge: What the sampler was told of the experiment.
        max_prompt_tokens: As in ``CentaurSampler``.
        on_error: As in ``CentaurSampler``.
        seed: The sampler's.
        cma: What CMA-ES has learned.
        artifact_store: As in ``CentaurSampler``.
    """

    def __init__(
        self,
        chat: Chat | None,
        *,
        ratio: float,
        first: int,
        warm_start: int | None,
        has_critic: bool,
        reply: Literal["auto", "full", "changes", "menu"],
        knowledge: Knowledge,
        max_prompt_tokens: int | None,
        on_error: Literal["base", "raise", "continue"],
        seed: int | None,
        cma: CmaLearning,
        artifact_store: ArtifactStore | None,
    ) -> None:
        self._chat = chat
        self._ratio, self._first = ratio, first
        self._warm_start = warm_start
        self._has_critic = has_critic
        self._reply = reply
        self._knowledge = knowledge
        self._max_prompt_tokens = max_prompt_tokens
        self._on_error = on_error
        self._seed = seed
        self._cma = cma
        self._artifact_store = artifact_store
        self._has_warned = False

    def is_turn(self, number: int) -> bool:
        """Whether the trial of this number is the model's, if no trial before it was killed."""
        return number >= self._first and is_of_share(number - self._first, self._ratio)

    def n_others_before(self, number: int) -> int:
        """How many of the turns before this number are not the model's."""
        return sum(not self.is_turn(earlier) for earlier in range(number))

    def n_first(self, study: Study) -> int:
        """The trials of the warm start."""
        if self._warm_start is not None:
            return self._warm_start
        if not self._has_critic or not self._ratio or self._reply not in ("auto", "full"):
            return 0
        return N_FIRST if self.reply_format(study) == "full" else 0

    def first_left(self, study: Study, trial: FrozenTrial) -> int:
        """Trials of the warm start that are left, if this is one; else 0."""
        return first_trials_left(study, trial, self.n_first(study))

    def reply_format(self, study: Study) -> Literal["full", "changes", "menu"]:
        """The reply format that ``reply`` means for this model and study."""
        if self._reply != "auto":
            return self._reply
        assert self._chat is not None, "a sampler with turns of a model has one"
        large = is_large(self._chat)
        if large is not None:
            return "full" if large else "menu"
        answers = (t for t in finished_trials(study) if is_answered(t))
        turns = (t for t in answers if self.is_turn(turn_of(study, t)))
        probes = list(islice(turns, _N_PROBES))
        if len(probes) < _N_PROBES:
            return "full"
        by_value = ranked(study)
        good = 0
        for probe in probes:
            earlier = [t for t in by_value if t.number <= probe.number]
            better_half = [t.number for t in earlier[: (len(earlier) + 1) // 2]]
            good += source_of(probe) == LLM and probe.number in better_half
        return "full" if 2 * good >= _N_PROBES else "menu"

    def take(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        own: dict[str, Any],
        base: Mapping[str, Any],
        n_first: int,
        screen: Screen | None = None,
    ) -> dict[str, Any]:
        """Ask the model, and return what is run: its values, or others if it has none.

        Args:
            study: The study.
            trial: The running trial.
            space: What the model is asked for.
            own: What would be run without it: a value for every parameter.
            base: CMA-ES's sample, ``{}`` if it has none.
            n_first: Trials of the warm start that are left, if this is one.
            screen: The critic, if there is one.
        """
        reply_format = "full" if n_first else self.reply_format(study)
        large = reply_format != "menu"
        advised = screen is not None and large
        proposal = self._propose(
            study,
            trial,
            space,
            own,
            reply_format=reply_format,
            proposer="" if screen is not None or not base else "CMA-ES",
            state=self._cma.describe(study, trial, space, {} if advised else base, advised),
            n_first=n_first,
        )
        params, source, why = proposal.params, proposal.source, proposal.reason
        proposer = chosen_by = ""
        if screen is not None:
            choice = screen.answer(params, is_large=large)
            if params is not None and choice.proposer != MODEL:
                source, why = LLM_SCREENED, "the critic preferred another candidate"
            params, proposer, chosen_by = choice.params, choice.proposer, choice.chosen_by
        record(
            study,
            trial,
            source=source,
            proposer=proposer,
            chosen_by=chosen_by,
            reason=why,
            exchanges=proposal.exchanges,
            artifact_store=self._artifact_store,
        )
        if proposal.error is not None and self._on_error != "continue":
            raise proposal.error
        if proposal.error is not None and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                f"The study goes on without the language model while that fails: {proposal.reason}"
            )
        if params is None:
            return own
        self._cma.tell_point(study, trial, space, params)
        return params

    def _propose(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        own: Mapping[str, Any],
        *,
        reply_format: Literal["full", "changes", "menu"],
        proposer: str,
        state: str,
        n_first: int,
    ) -> Proposal:
        """Ask the model for a configuration.

        Args:
            study, trial, space, own, n_first: As in `take`.
            reply_format: Format of the reply.
            proposer: Who proposed ``own``; ``""`` if the model isn't told.
            state: Text of CMA-ES's state.
        """
        assert self._chat is not None, "a sampler with turns of a model has one"
        best = [t for t in ranked(study) if all(name in t.params for name in space)]
        fixed = fixed_params(trial, space)
        large = reply_format != "menu"
        prompt = TrialPrompt(
            study,
            trial,
            space,
            self._knowledge,
            intro=template("prompt_critic.txt" if self._has_critic and large else "prompt.txt"),
            is_mine=self.is_turn,
            details=large,
        )
        start = dict(own)
        named = f"{proposer}'s proposal"
        if reply_format != "full" and best:
            start = prompt.start(best[0])
            named = f"trial {best[0].number}, the best so far"
        elif not proposer:
            named = f"this configuration: {format_params({**own, **fixed}, space)}"
        reason = n_first > 1 or (is_large(self._chat) is not False and large)
        ask = question(
            reply_format=reply_format,
            number=trial.number,
            left=prompt.left(),
            moment=prompt.moment(),
            base=named,
            fixed=fixed,
            reason=reason_key(space) if reason else "",
            n_first=n_first,
            n_trials=self._knowledge.n_trials,
        )
        return propose(
            study,
            trial,
            space,
            chat=self._chat,
            build=partial(prompt.build, ask=ask, state=state),
            base=start,
            reply_format=reply_format,
            rule=self._knowledge.rule,
            max_prompt_tokens=self._max_prompt_tokens or default_prompt_tokens(large),
            extents=prompt.extents,
            with_reason=reason,
            repeatable=prompt.repeatable(),
            n_first=n_first,
            seed=None if self._seed is None else derive_seed(self._seed, turn_of(study, trial)),
            on_error="raise" if self._on_error == "raise" else "base",
        )
