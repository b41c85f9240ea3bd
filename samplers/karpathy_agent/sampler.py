"""An agent that reads the record of the trials and says what to try next.

This is the loop of Andrej Karpathy's autoresearch, https://github.com/karpathy/autoresearch, over
a fixed search space instead of over the source code, as compared in "Can LLMs Beat Classical
Hyperparameter Optimization Algorithms?" (Ferreira et al., 2026), https://arxiv.org/abs/2603.24647.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

from .._llm.prompt import default_prompt_tokens
from .._llm.prompt import fill
from .._llm.prompt import format_params
from .._llm.propose import is_large
from .._llm.propose import propose
from .._llm.random_base import RandomBaseSampler
from .._llm.record import record
from .._llm.record import STARTUP
from .._llm.reply import reason_key
from .._llm.trial_prompt import Knowledge
from .._llm.trial_prompt import TrialPrompt
from .._llm.warm_start import first_trials_left
from .._llm.warm_start import N_FIRST
from .._llm.warm_start import question
from .._trials.arguments import check_choices
from .._trials.arguments import check_least
from .._trials.history import finished_trials
from .._trials.history import is_failure
from .._trials.history import ranked
from .._trials.internals import cached_trials
from .._trials.internals import fixed_params
from .._trials.internals import number_without_repeats
from .._trials.seeds import derive_seed


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._llm.chat import Chat
    from .._trials.history import Derived
    from .._trials.history import Rule
    from .._trials.internals import ArtifactStore


# For models that get no advice that fits the moment: to changes, and to whole configurations.
_ADVICE = (
    "Decide from the trials above and from what is known of such experiments what to change next: "
    "a parameter that seems far from its best value, or one that few trials have varied.",
    "Decide from the trials above and from what is known of such experiments what to try next, "
    "starting from the best configuration.",
)


class KarpathyAgentSampler(RandomBaseSampler):
    """A language model sees the trials and proposes the next one, starting from the best.

    The first trial is random, or what was enqueued: a study of a script usually enqueues the
    script's own values. From then on every trial is one request (a second one if the reply can't
    be used or repeats a trial).

    What the model can't decide is drawn at random from the search space, by the seed and the
    trial's number, and the trial says so: its user attribute ``source`` is ``"llm-error"`` or
    ``"llm-duplicate"`` with the reason in ``llm_reason``. Nothing is kept in the sampler: a
    resumed study, threads and other processes go by the stored trials.

    Args:
        chat:
            The language model. By default the one that the environment variables ``OPENAI_*``
            name, else the embedded one.
        task:
            What is tuned, in words for the model.
        reply:
            ``"changes"`` asks for changes to the best configuration, with any values. ``"menu"``
            offers candidate values near the best configuration's, which small models need.
            ``"auto"`` is ``"menu"`` if the model's name tells of less than three billion
            parameters, else ``"changes"``. ``"full"`` asks for a whole configuration, as in the
            paper.
        n_startup_trials:
            Finished trials, of whatever outcome, before the model's turns begin. At least one is
            needed for the search space to be known.
        warm_start:
            Number of different configurations that the model is asked for in one request, before
            anything is known; they are the first trials whose search space is known. By default 3,
            but 0 for models that choose from a menu.
        max_prompt_tokens:
            Longest prompt, in the model's tokens; never more than its context holds. By default
            2,600 where it chooses from a menu, else 12,000.
        n_trials:
            Trials planned in all, for telling the model how many are left.
        noise:
            Standard deviation of one configuration's values on repetition, if it is known.
        rule:
            The objective's own rule: a function from parameters to the values that are really run.
            Configurations equal under it are duplicates, and the model sees what it returns.
            A ``KeyError`` for a parameter that a configuration lacks, such as one of a trial that
            failed before it was suggested, is no error: that one counts as it is.
        derived:
            Further numbers that the value may depend on, such as a width that is a product: a
            function from the parameters, as they are really run, to numbers by name. The model
            sees them. ``KeyError`` is as for ``rule``.
        side_data:
            Names of trials' user attributes that tell the model more than the value does, such as
            steps or memory, or a function that says whether one does. Those that are numbers and
            vary are shown.
        artifact_store:
            An Optuna artifact store that prompts and replies are written to.
        on_error:
            When the model gives nothing usable, ``"base"`` runs a random configuration and raises
            only after five such turns in a row; ``"raise"`` raises at once.
        seed:
            Seed of all randomness, the seeds sent to the model included; ``None`` draws one.
    """

    def __init__(
        self,
        *,
        chat: Chat | None = None,
        task: str = "",
        reply: Literal["auto", "changes", "menu", "full"] = "auto",
        n_startup_trials: int = 1,
        warm_start: int | None = None,
        max_prompt_tokens: int | None = None,
        n_trials: int | None = None,
        noise: float | None = None,
        rule: Rule | None = None,
        derived: Derived | None = None,
        side_data: Sequence[str] | Callable[[str], bool] = (),
        artifact_store: ArtifactStore | None = None,
        on_error: Literal["base", "raise"] = "base",
        seed: int | None = None,
    ) -> None:
        check_least(0, n_startup_trials=n_startup_trials, warm_start=warm_start)
        check_least(0, n_trials=n_trials, noise=noise)
        check_least(1, max_prompt_tokens=max_prompt_tokens)
        check_choices(reply=(reply, ("auto", "changes", "menu", "full")))
        super().__init__(
            chat=chat,
            rule=rule,
            artifact_store=artifact_store,
            on_error=on_error,
            seed=seed,
        )
        self._reply = reply
        self._warm_start = warm_start
        self._n_startup_trials = n_startup_trials
        self._max_prompt_tokens = max_prompt_tokens
        self._knowledge = Knowledge(task, noise, n_trials, rule, derived, side_data)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        if fixed_params(trial).keys() >= search_space.keys():
            return {}  # also for an empty search space: there is nothing to decide
        finished = [t for t in finished_trials(study) if t.params.keys() >= search_space.keys()]
        n_first = first_trials_left(study, trial, self._n_first())
        if not n_first and (not finished or len(finished) < self._n_startup_trials):
            record(study, trial, source=STARTUP)
            return self._base_proposal(study, trial, search_space)
        best = next((t for t in ranked(study) if t.params.keys() >= search_space.keys()), None)
        origin = best or (finished[-1] if finished else None)
        reply_format = "full" if n_first or origin is None else self._reply_format()
        large = reply_format != "menu"
        prompt = TrialPrompt(
            study,
            trial,
            search_space,
            self._knowledge,
            intro=_template("prompt.txt"),
            is_mine=lambda number: True,
            details=large,
        )
        start = (
            prompt.start(origin)
            if origin is not None
            else self._draw(study, trial, search_space, 0)
        )
        may_reason = n_first > 1 or (large and is_large(self._chat) is not False)
        reason = reason_key(search_space) if may_reason else ""
        number = number_without_repeats(trial, cached_trials(study))
        proposal = propose(
            study,
            trial,
            search_space,
            chat=self._chat,
            build=partial(
                prompt.build,
                ask=self._ask(trial, search_space, origin, prompt, reply_format, reason, n_first),
            ),
            base=start,
            reply_format=reply_format,
            rule=self._rule,
            max_prompt_tokens=self._max_prompt_tokens or default_prompt_tokens(large),
            extents=prompt.extents,
            with_reason=bool(reason),
            repeatable=prompt.repeatable(),
            n_first=n_first,
            seed=derive_seed(self._seed, number, "proposal"),
            on_error=self._on_error,
        )
        return self._settle(study, trial, search_space, proposal)

    def _n_first(self) -> int:
        """The trials of the warm start."""
        if self._warm_start is not None:
            return self._warm_start
        return N_FIRST if self._reply_format() != "menu" else 0

    def _reply_format(self) -> Literal["changes", "menu", "full"]:
        if self._reply != "auto":
            return self._reply
        return "menu" if is_large(self._chat) is False else "changes"

    def _ask(
        self,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
        origin: FrozenTrial | None,
        prompt: TrialPrompt,
        reply_format: str,
        reason: str,
        n_first: int,
    ) -> str:
        fixed = fixed_params(trial, space)
        decided = (
            f" Decided already: {format_params(fixed, {n: space[n] for n in fixed})}."
            if fixed
            else ""
        )
        if n_first > 1:
            return question(n_first, decided, reason, self._knowledge.n_trials)
        values: dict[str, object] = {
            "number": trial.number,
            "left": prompt.left(),
            "advice": prompt.moment() or _ADVICE[reply_format == "full"],
            "fixed": decided,
            "reason": f' first "{reason}", why in a sentence, then' if reason else "",
        }
        if reply_format == "full" or origin is None:
            return fill(_template("ask_full.txt"), **values)
        start = prompt.start(origin) | fixed
        return fill(
            _template("ask_changes.txt"),
            base=format_params(start, space),
            origin=(
                f"trial {origin.number}, which failed, as all did so far"
                if is_failure(origin)
                else f"the best so far (trial {origin.number})"
            ),
            **values,
        )


def _template(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").strip()
