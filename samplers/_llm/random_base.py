"""A sampler that proposes at random where the language model does not decide.

A trial's values depend on the seed, the trial's number and the parameter's name only, so that a
resumed study, threads and other processes draw the same as an uninterrupted run.
"""

from __future__ import annotations

import secrets
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.search_space import intersection_search_space
from optuna.trial import TrialState

from .._trials.announced import announce
from .._trials.arguments import check_choices
from .._trials.history import not_shared
from .._trials.history import tolerant
from .._trials.internals import cached_trials
from .._trials.internals import drop_older_cache
from .._trials.internals import fixed_params
from .._trials.internals import number_without_repeats
from .._trials.seeds import derive_seed
from .connect import chat_to_ask
from .record import ENQUEUED
from .record import record
from .record import STARTUP
from .reply import configuration_key
from .reply import known_configurations


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.history import Rule
    from .._trials.internals import ArtifactStore
    from .chat import Chat
    from .propose import Proposal

_logger = get_logger(f"optuna.{__name__}")

# Draws before a random configuration may repeat a known one: the space is then used up, or nearly.
_MAX_DRAWS = 50


class RandomBaseSampler(BaseSampler):
    """Base class of the LLM samplers that fall back on random sampling.

    A subclass implements ``sample_relative``.

    Args:
        chat: The language model; ``None``: ``default_chat()``.
        rule: The objective's own rule, for duplicates and for showing effective values.
        artifact_store: Store that prompts and replies are written to; ``None``: nowhere.
        on_error: What to do when the language model fails, see ``propose``.
        seed: Seed of all randomness; ``None`` draws one from the operating system.
    """

    def __init__(
        self,
        *,
        chat: Chat | None,
        rule: Rule | None,
        artifact_store: ArtifactStore | None,
        on_error: Literal["base", "raise"],
        seed: int | None,
    ) -> None:
        check_choices(on_error=(on_error, ("base", "raise")))
        self._chat = chat_to_ask(chat)
        self._rule = rule
        self._artifact_store = artifact_store
        self._on_error = on_error
        self._seed = secrets.randbits(31) if seed is None else seed
        self._named: set[str] = set()  # in warnings

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that all completed trials share, but those of a single value.

        Before the first of them those of the latest trial that has any, which may be running.
        """
        self._raise_error_if_multi_objective(study)
        drop_older_cache(study, trial)
        # One without parameters, such as a reference value that was added, tells nothing.
        trials = [t for t in cached_trials(study) if t.params]
        space: Mapping[str, BaseDistribution] = intersection_search_space(trials)
        if not space and not any(t.state == TrialState.COMPLETE for t in trials):
            space = trials[-1].distributions if trials else {}
        return {name: d for name, d in sorted(space.items()) if not d.single()}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a random value for a parameter that is not in the relative search space."""
        self._raise_error_if_multi_objective(study)
        self._warn_once(study, param_name)
        return self._draw(study, trial, {param_name: param_distribution}, 0)[param_name]

    def _warn_once(self, study: Study, name: str) -> None:
        """Say once which parameters the model is not asked for, when the search space is known."""
        if name in self._named:
            return
        complete = [t for t in cached_trials(study) if t.state == TrialState.COMPLETE and t.params]
        if named := not_shared(complete, name):
            self._named |= named
            _logger.warning(
                f"Drawn at random: {', '.join(sorted(self._named))}. The language model is asked "
                "only for parameters that all completed trials have, in one range."
            )

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Write the ``source`` of a trial for which ``sample_relative`` had nothing to decide."""
        if "source" not in trial.user_attrs:
            fixed = fixed_params(trial)
            source = ENQUEUED if fixed and fixed.keys() >= trial.params.keys() else STARTUP
            record(study, trial, source=source)

    def _settle(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        proposal: Proposal,
    ) -> dict[str, Any]:
        """Record what the model said, and return what is run: its values, else random ones."""
        record(
            study,
            trial,
            source=proposal.source,
            reason=proposal.reason,
            exchanges=proposal.exchanges,
            artifact_store=self._artifact_store,
        )
        if proposal.error is not None:
            raise proposal.error
        if proposal.params is None:
            return self._base_proposal(study, trial, space)
        return proposal.params

    def _base_proposal(
        self, study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw a new configuration, or a known one if nothing new is left; fixed values stay."""
        rule = tolerant(self._rule, study, "rule")
        known = known_configurations(study, space, rule, besides=trial)
        fixed = fixed_params(trial, space)
        for attempt in range(_MAX_DRAWS):
            params = {**self._draw(study, trial, space, attempt), **fixed}
            if configuration_key(params, space, rule) not in known:
                break
        announce(study, trial, params)
        return params

    def _draw(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        attempt: int,
    ) -> dict[str, Any]:
        number = number_without_repeats(trial, cached_trials(study))
        return {
            name: RandomSampler(
                seed=derive_seed(self._seed, number, name, attempt)
            ).sample_independent(study, trial, name, distribution)
            for name, distribution in space.items()
        }
