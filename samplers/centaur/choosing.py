"""The critic's choice for one trial, which no other worker makes at the same time.

``screening.py`` says which candidates a turn has. Here they are collected from the study, and what
was chosen is announced, so that of several workers each runs something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from functools import partial
from typing import Any
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from .._critic.trials import unfinished
from .._llm.record import LLM
from .._llm.record import source_of
from .._trials.announced import announce
from .._trials.history import finished_trials
from .._trials.history import is_failure
from .._trials.history import ranked
from .._trials.history import sign_of
from .._trials.internals import cached_trials
from .._trials.internals import fresh_trials
from .._trials.internals import is_enqueued
from .screening import CMA_ES
from .screening import CRITIC
from .screening import is_ahead
from .screening import is_step_turn
from .screening import MODEL
from .screening import N_ANYWHERE
from .screening import N_NEW
from .screening import N_RANDOM
from .screening import N_STEPS
from .screening import RANDOM
from .screening import STEPS


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    import numpy as np
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._critic.critic import Judge
    from .learning import CmaLearning

# Choices of which another worker made the same at the same time, before one is run nevertheless.
_MAX_CLASHES = 4


@dataclass(frozen=True)
class Candidates:
    """Configurations and whose they are."""

    configurations: list[dict[str, Any]]
    proposer: str


@dataclass(frozen=True)
class Choice:
    """What is run.

    Attributes:
        params: Its parameters.
        proposer: Who proposed it.
        chosen_by: Who chose it: ``CRITIC``, or its proposer if it is run as it was proposed.
    """

    params: dict[str, Any]
    proposer: str
    chosen_by: str


@dataclass(frozen=True)
class Screen:
    """What the critic has run as one trial.

    Attributes:
        study: The study.
        trial: The running trial.
        judge: The critic, for this trial.
        space: The search space.
        fixed: Values that somebody enqueued; they stay.
        turn: How many turns before this one no language model had.
        cma: What CMA-ES has learned.
        rng: For what is random.
    """

    study: Study
    trial: FrozenTrial
    judge: Judge
    space: Mapping[str, BaseDistribution]
    fixed: Mapping[str, Any]
    turn: int
    cma: CmaLearning
    rng: np.random.Generator

    @cached_property
    def choice(self) -> Choice:
        """What is run if no language model decides; made, and announced, at the first look."""
        return self._settle(self._choose(), self._choose)

    def answer(self, proposed: Mapping[str, Any] | None, *, is_large: bool) -> Choice:
        """What is run on a language model's turn.

        Args:
            proposed: The model's values for the parameters that it was asked for, if it has any.
            is_large: Whether they are run as they are, and not only if the critic prefers them.
        """
        if proposed is None:
            # While the model was asked, another worker may have run what was chosen before.
            return self._settle(self.choice, self._choose)
        # With the parameters that only some trials have.
        rest = {n: value for n, value in self.choice.params.items() if n not in proposed}
        params = {**rest, **proposed}
        if is_large:
            announce(self.study, self.trial, params)
            return Choice(params, MODEL, MODEL)
        decide = partial(self._decide, params)
        return self._settle(decide(), decide)

    def _choose(self) -> Choice:
        best = [t for t in ranked(self.study) if t.params]
        if not self._knows_enough(best):
            pools = [] if self.cma.starts_anywhere else self._samples(best)
            if not pools:
                return self._first()
        else:
            pools = [] if is_step_turn(self.turn) else self._samples(best)
            pools = pools or [
                self._steps(),
                Candidates(self.judge.random(N_ANYWHERE, self.rng), RANDOM),
            ]
        return self._best_of(pools)

    def _decide(self, proposed: dict[str, Any]) -> Choice:
        """The better of a small model's proposal and as many steps as on other turns."""
        return self._best_of([Candidates([proposed], MODEL), self._steps()])

    def _best_of(self, pools: Sequence[Candidates]) -> Choice:
        """The candidate that the critic thinks most of; a random one if all are known."""
        for candidates in (pools, [Candidates(self.judge.random(N_STEPS, self.rng), RANDOM)]):
            offered = [
                ({**configuration, **self.fixed}, pool.proposer)
                for pool in candidates
                for configuration in pool.configurations
            ]
            chosen = self.judge.choose([configuration for configuration, _ in offered])
            if chosen is not None:
                return Choice(*offered[chosen], chosen_by=CRITIC)
        # All of the search space was run, or as good as all. `offered` are the random ones.
        return Choice(*offered[0], chosen_by=RANDOM)

    def _first(self) -> Choice:
        """The choice while too little is known: random, but not what is likely to fail."""
        offered = [
            {**configuration, **self.fixed} for configuration in self.judge.start(N_NEW, self.rng)
        ]
        return Choice(offered[self.judge.first_safe(offered) or 0], RANDOM, RANDOM)

    def _samples(self, best: Sequence[FrozenTrial]) -> list[Candidates]:
        samples = self.cma.samples(self.study, self.trial, best, self.space, self.rng)
        return [Candidates(samples, CMA_ES)] if samples else []

    def _steps(self) -> Candidates:
        return Candidates(self.judge.steps(N_STEPS, self.rng), STEPS)

    def _settle(self, choice: Choice, again: Callable[[], Choice]) -> Choice:
        """Announce a choice that no other worker has made, choosing ``again`` where one has."""
        for _ in range(_MAX_CLASHES):
            announce(self.study, self.trial, choice.params)
            if not self._clashes(choice):
                return choice
            choice = again()
        announce(self.study, self.trial, choice.params)
        return choice

    def _clashes(self, choice: Choice) -> bool:
        """Whether another worker chose the same in the meantime; the judge then knows.

        A choice is announced before the others' are read, so that one of two sees the other. They
        are read from the storage: as they were when this trial began, the other may not have begun.
        """
        finished = {t.number for t in cached_trials(self.study) if t.state.is_finished()}
        since = [t for t in fresh_trials(self.study) if t.number not in finished]
        others = [
            *unfinished(since, self.trial, self.space),
            *(t.params for t in since if t.state.is_finished()),
        ]
        was_new = self.judge.is_new(choice.params)
        self.judge.exclude(others)
        return was_new and not self.judge.is_new(choice.params)

    def _knows_enough(self, best: Sequence[FrozenTrial]) -> bool:
        """Whether the trials tell more than chance: there are some, or a given one is ahead.

        Under an eager pruner few trials are completed; pruned ones tell what they reported.

        Those of a language model are given ones: a model that is wrong is found out by chance.
        """
        known = [t for t in finished_trials(self.study) if _has_value(t)]
        if len(known) >= N_RANDOM:
            return True
        sign = sign_of(self.study.direction)
        given = [sign * t.values[0] for t in best if is_enqueued(t) or source_of(t) == LLM]
        # Those that the critic chose already are not there by chance.
        by_chance = [
            sign * t.values[0]
            for t in best
            if not is_enqueued(t) and t.user_attrs.get("chosen_by") not in (CRITIC, MODEL)
        ]
        return is_ahead(given, by_chance)


def _has_value(trial: FrozenTrial) -> bool:
    """Whether the critic learns a value from a finished trial."""
    reported = trial.state == TrialState.COMPLETE or trial.last_step is not None
    return bool(trial.params) and reported and not is_failure(trial)
