"""CMA-ES, steps from the best trials and a language model, with a model of the trials to choose."""

from __future__ import annotations

import secrets
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from .._critic.critic import Critic
from .._llm.record import BASE
from .._llm.record import ENQUEUED
from .._llm.record import record
from .._llm.record import STARTUP
from .._llm.trial_prompt import Knowledge
from .._trials.arguments import check_choices
from .._trials.arguments import check_least
from .._trials.history import finished_trials
from .._trials.internals import cached_trials
from .._trials.internals import drop_older_cache
from .._trials.internals import fixed_params
from .._trials.internals import is_enqueued
from .._trials.seeds import derive_seed
from .._trials.stored_cma import CheckedCmaEsSampler
from .choosing import Screen
from .internals import store_constraints
from .learning import CmaLearning
from .learning import first_complete
from .learning import numerical
from .model_turns import ModelTurns
from .population import turn_of
from .screening import RANDOM


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._llm.chat import Chat
    from .._trials.history import Derived
    from .._trials.history import Rule
    from .._trials.internals import ArtifactStore


class CentaurSampler(CheckedCmaEsSampler):
    """CMA-ES, steps from the best trials and a language model, with a critic that chooses.

    The critic is a model of the trials: what value a configuration will have, and whether it will
    fail. Of many candidates, samples of CMA-ES or steps from the best trials, it has the most
    promising one run. On its turns a large language model has what it proposes run as it is, since
    it may know what trials don't tell yet; what a small one takes from a menu is one more
    candidate. CMA-ES learns from all that is run: its steps towards points that others proposed
    are bounded, and failures are never its parents. Each trial says in user attributes whose turn
    it was (``source``), who proposed what was run (``proposer``) and who chose it (``chosen_by``).

    Example:

        .. code::

            import optuna
            from samplers import CentaurSampler


            def objective(trial):
                x = trial.suggest_float("x", -5, 5)
                k = trial.suggest_int("k", 1, 9)
                return (x - 2) ** 2 + k


            study = optuna.create_study(sampler=CentaurSampler())
            study.optimize(objective, n_trials=40)

    With ``critic=None`` it is CMA-ES with a language model on a share of its suggestions, and
    categorical parameters are set by ``independent_sampler`` on CMA-ES's turns; with
    ``learn_from_llm="all"`` besides it is the published method. With ``critic=None`` and
    ``llm_ratio=0`` it is CmaEsSampler to the last digit, except that failed trials are ranked
    last, and that of several workers' trials none is lost: one that finishes after its generation
    counts for the next. Its random numbers are CmaEsSampler's, too, which start anew in each process:
    with ``critic=None`` a resumed study has CMA-ES's mean, step size and covariance, but proposes
    other values than an uninterrupted one.

    References:

    - F. Ferreira et al., Can LLMs Beat Classical Hyperparameter Optimization Algorithms?
      A Study on autoresearch. `arXiv:2603.24647 <https://arxiv.org/abs/2603.24647>`__, 2026.
    - N. Hansen, Injecting External Solutions Into CMA-ES.
      `arXiv:1110.4181 <https://arxiv.org/abs/1110.4181>`__, 2011.

    Args:
        chat:
            The language model. By default the server that ``OPENAI_BASE_URL``, ``OPENAI_API_KEY``
            and ``OPENAI_MODEL`` tell of, else the embedded model.
        llm_ratio:
            Share of the trials after ``n_startup_trials`` on which the language model is asked; on
            the others the critic chooses (without critic, CMA-ES samples). The default is the
            published method's. 0 never asks: for a model that knows nothing of the task, which
            costs about the trials that it has. More is worth a try where trials whose ``source`` is
            ``"llm"`` come out better than the others. The share is exact and evenly spread: a
            trial's number alone decides, and one that repeats a killed trial has that one's turn.
        n_startup_trials:
            Trials before the model's turns begin. CMA-ES starts after the first.
        warm_start:
            Number of different configurations that the model is asked for in one request, before
            anything is known; they are the first trials whose search space is known. By default 3
            with the critic, for models that propose whole configurations, else 0.
        critic:
            ``"gp"``: a Gaussian process of the trials chooses among candidates. ``None``: what is
            proposed is run.
        task:
            What is tuned, for the model: the program, the metric, what is known about it.
        reply:
            ``"full"`` asks for a whole configuration; ``"changes"`` for changes to the best one,
            with any values; ``"menu"`` for changes with values to choose from, near the present
            ones, which even the smallest models manage. ``"auto"`` is ``"menu"`` for models whose
            name tells that they have less than 3 billion parameters and ``"full"`` for larger
            ones; a model of unknown size is asked in full and goes on with ``"menu"`` if of its
            first four answers less than two are among the better half of the trials.
        learn_from_llm:
            What CMA-ES learns from trials that it did not sample itself, the model's and all others.
            They may lie far from its mean, and one good one among them would move the mean and
            widen the search without limit. ``"clipped"`` draws them towards the mean (Hansen,
            2011), so that a generation multiplies the step size by at most e, and leaves out those
            that failed. ``"all"`` is the published rule, every COMPLETE trial as it is: for
            reproducing the published method. In the mean neither was measurably better.
        on_error:
            When the model gives no usable answer, ``"base"`` runs the critic's choice (without critic
            CMA-ES's sample) and raises only after five such turns in a row, or once a cap of the
            model's is reached; ``"continue"`` doesn't raise then, but warns once; ``"raise"`` raises
            at once.
        max_prompt_tokens:
            Longest prompt, in the model's tokens; never more than its context holds. By default
            2,600 where it chooses from a menu, else 12,000.
        rule:
            The objective's own rule: a function from parameters to the values that are really
            run. Configurations equal under it are duplicates, which the model may not propose, but
            for one repeat of the best where values are noisy.
            A ``KeyError`` for a parameter that a configuration lacks, such as one of a trial that
            failed before it was suggested, is no error: that one counts as it is.
        derived:
            Further numbers that the value may depend on, such as a width that is a product: a
            function from the parameters, as they are really run, to numbers by name. The critic
            learns from them, and the model is shown them. ``KeyError`` is as for ``rule``.
        side_data:
            Names of trials' user attributes that tell the model more than the value does, such as
            steps or memory, or a function that says whether one does. Those that are numbers and
            vary are shown.
        constraints_func:
            As in Optuna's samplers: constraints of a trial, above 0 where they are violated. Those
            of ``Trial.set_constraint`` count as well. The critic learns from their values where they
            are violated; without it they are ignored.
        n_trials:
            Total number of trials planned, for telling the model how many are left.
        noise:
            Standard deviation of the objective's value for one configuration, if it is known.
        artifact_store:
            An Optuna artifact store that prompts and replies are written to.
        seed:
            Seed of CMA-ES, of the candidates, of the independent sampler and of the model's
            replies.
        independent_sampler:
            As in CmaEsSampler. With the critic it draws only what is not known yet: the first
            trial, and parameters that no trial had; without it also the categorical parameters.
        warn_independent_sampling:
            As in CmaEsSampler, for numerical parameters; nothing is warned of with the critic.
        popsize:
            As in CmaEsSampler.
        consider_pruned_trials:
            As in CmaEsSampler.
        use_separable_cma:
            As in CmaEsSampler.
        with_margin:
            As in CmaEsSampler.
        lr_adapt:
            As in CmaEsSampler.
        source_trials:
            As in CmaEsSampler.
    """

    def __init__(
        self,
        *,
        chat: Chat | None = None,
        llm_ratio: float = 0.3,
        n_startup_trials: int = 10,
        warm_start: int | None = None,
        critic: Literal["gp"] | None = "gp",
        task: str = "",
        reply: Literal["auto", "full", "changes", "menu"] = "auto",
        learn_from_llm: Literal["clipped", "all"] = "clipped",
        on_error: Literal["base", "raise", "continue"] = "base",
        max_prompt_tokens: int | None = None,
        rule: Rule | None = None,
        derived: Derived | None = None,
        side_data: Sequence[str] | Callable[[str], bool] = (),
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        n_trials: int | None = None,
        noise: float | None = None,
        artifact_store: ArtifactStore | None = None,
        seed: int | None = None,
        independent_sampler: BaseSampler | None = None,
        warn_independent_sampling: bool = True,
        popsize: int | None = None,
        consider_pruned_trials: bool = False,
        use_separable_cma: bool = False,
        with_margin: bool = False,
        lr_adapt: bool = False,
        source_trials: list[FrozenTrial] | None = None,
    ) -> None:
        if not 0 <= llm_ratio <= 1:
            raise ValueError(f"`llm_ratio` must be between 0 and 1, but got {llm_ratio}.")
        check_least(0, n_startup_trials=n_startup_trials, warm_start=warm_start)
        check_least(0, n_trials=n_trials, noise=noise, seed=seed)
        check_least(1, max_prompt_tokens=max_prompt_tokens)
        check_choices(
            critic=(critic, ("gp", None)),
            reply=(reply, ("auto", "full", "changes", "menu")),
            learn_from_llm=(learn_from_llm, ("clipped", "all")),
            on_error=(on_error, ("base", "raise", "continue")),
        )
        # CMA-ES's own start is CmaEsSampler's default: it needs one trial to know the space.
        super().__init__(
            seed=seed,
            independent_sampler=independent_sampler,
            warn_independent_sampling=warn_independent_sampling and critic is None,
            popsize=popsize,
            consider_pruned_trials=consider_pruned_trials,
            use_separable_cma=use_separable_cma,
            with_margin=with_margin,
            lr_adapt=lr_adapt,
            source_trials=source_trials,
        )
        self._critic = None if critic is None else Critic(rule=rule, derived=derived)
        self._draws_independently = independent_sampler is None
        self._candidate_seed = secrets.randbits(31) if seed is None else seed
        self._constraints_func = constraints_func
        self._first_llm_trial = n_startup_trials
        self._learning = CmaLearning(
            self,
            learn_from_llm=learn_from_llm,
            heeds_constraints=critic is not None,
            starts_anywhere=source_trials is None,
            popsize=popsize,
            with_margin=with_margin,
        )
        self._turns = ModelTurns(
            # Of none nobody would hear before the first trial that is the model's.
            _chat_to_ask(chat) if llm_ratio > 0 or warm_start else chat,
            ratio=llm_ratio,
            first=n_startup_trials,
            warm_start=warm_start,
            has_critic=critic is not None,
            reply=reply,
            knowledge=Knowledge(task, noise, n_trials, rule, derived, side_data),
            max_prompt_tokens=max_prompt_tokens,
            on_error=on_error,
            seed=seed,
            cma=self._learning,
            artifact_store=artifact_store,
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        super().before_trial(study, trial)
        # A trial with all its values fixed never reaches sample_relative.
        if fixed_params(trial):
            record(study, trial, source=ENQUEUED)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        if self._constraints_func is not None:
            store_constraints(self._constraints_func, study, trial, state)
        # CmaEsSampler does just this, after a warning that it makes no use of constraints.
        self._independent_sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        drop_older_cache(study, trial)
        finished = finished_trials(study)
        if self._critic is not None:
            if not finished and self._turns.n_first(study):
                return _all_distributions(cached_trials(study))
            return _all_distributions(finished)
        space = self._learning.common_space(study)
        if not space and (self._turns.n_first(study) or self.is_llm_turn(turn_of(study, trial))):
            # Nothing succeeded so far. The model can do better than chance at what failed.
            space = _common_distributions(finished or cached_trials(study))
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        if self._critic is not None:
            return self._sample_with_critic(self._critic, study, trial, search_space)
        base = self._sample_cma(study, trial, numerical(search_space))
        fixed = fixed_params(trial)
        if base or not numerical(search_space):
            base = {**base, **self._draw_categories(study, trial, search_space, fixed)}

        asked = any(name not in fixed for name in search_space)
        turn = turn_of(study, trial)
        n_first = self._turns.first_left(study, trial) if asked else 0
        if not asked or not (n_first or self.is_llm_turn(turn)):
            if not fixed:
                record(study, trial, source=self._own_source(turn, search_space))
            return base
        own = self._complete(study, trial, search_space, base)
        return self._turns.take(study, trial, search_space, own, base, n_first)

    def _sample_cma(
        self, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """CMA-ES's own sample, after it has learned what there is to learn."""
        if not space:
            return {}
        return super().sample_relative(self._learning.view(study, trial, space), trial, space)

    def _sample_with_critic(
        self,
        critic: Critic,
        study: Study,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The critic's choice or, on its turn, a large language model's proposal."""
        fixed = fixed_params(trial, space)
        turn = turn_of(study, trial)
        common = {n: d for n, d in self._learning.common_space(study).items() if n in space}
        base = self._sample_cma(study, trial, numerical(common))
        if all(name in fixed for name in space):
            if not is_enqueued(trial):
                source = self._own_source(turn, space)
                record(study, trial, source=source, proposer=RANDOM, chosen_by=RANDOM)
            return {}
        judge = critic.judge(study, trial, space)
        others = self._turns.n_others_before(turn)
        rng = np.random.default_rng([self._candidate_seed, turn])
        screen = Screen(study, trial, judge, space, fixed, others, self._learning, rng)
        choice = screen.choice
        n_first = self._turns.first_left(study, trial)
        if n_first or self.is_llm_turn(turn):
            if not common:  # nothing succeeded so far, or finished
                common = _common_distributions(finished_trials(study) or cached_trials(study))
                common = {n: d for n, d in common.items() if n in space}
            if any(name not in fixed for name in common):
                own = self._complete(study, trial, common, choice.params)
                return self._turns.take(study, trial, common, own, base, n_first, screen)
        source = ENQUEUED if fixed_params(trial) else self._own_source(turn, space)
        record(study, trial, source=source, proposer=choice.proposer, chosen_by=choice.chosen_by)
        self._learning.tell_point(study, trial, space, choice.params)
        return choice.params

    def _own_source(self, turn: int, space: Mapping[str, BaseDistribution]) -> str:
        # Without a finished trial there is nothing to know or to ask.
        return STARTUP if turn < self._first_llm_trial or not space else BASE

    def _complete(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        known: Mapping[str, Any],
    ) -> dict[str, Any]:
        """A value for every parameter: a known one, else the independent sampler's."""
        return {
            name: known[name]
            if name in known
            else self._independent_sampler.sample_independent(study, trial, name, distribution)
            for name, distribution in space.items()
        }

    def _draw_categories(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        fixed: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Categorical values for CMA-ES's proposal, from the independent sampler.

        In the order in which the objective suggests them, so that one seed gives the values that
        CmaEsSampler would have.
        """
        wanted = {
            name: d
            for name, d in space.items()
            if isinstance(d, CategoricalDistribution) and name not in fixed
        }
        if not wanted:
            return {}
        suggested = (first_complete(study) or trial).params
        return {
            name: self._independent_sampler.sample_independent(study, trial, name, wanted[name])
            for name in {**suggested, **wanted}
            if name in wanted
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        drop_older_cache(study, trial)
        if self._critic is not None and self._draws_independently:
            self._raise_error_if_multi_objective(study)
            # By the trial's number, so that a resumed study goes on as it would have.
            seed = derive_seed(self._candidate_seed, turn_of(study, trial), param_name)
            return RandomSampler(seed=seed).sample_independent(
                study, trial, param_name, param_distribution
            )
        if isinstance(param_distribution, CategoricalDistribution):
            # As documented, so not worth CmaEsSampler's warning.
            self._raise_error_if_multi_objective(study)
            return self._independent_sampler.sample_independent(
                study, trial, param_name, param_distribution
            )
        return super().sample_independent(study, trial, param_name, param_distribution)

    def is_llm_turn(self, number: int) -> bool:
        """Whether the trial of this number is the model's, if no trial before it was killed.

        Of any N trials after the start-up trials floor(N * llm_ratio) are, evenly spread.
        """
        return self._turns.is_turn(number)

    def reply_format(self, study: Study) -> Literal["full", "changes", "menu"]:
        """The reply format that ``reply`` means for this model and study.

        A function of the model's name and of stored trials, so that every process agrees.
        """
        return self._turns.reply_format(study)


def _chat_to_ask(chat: Chat | None) -> Chat:
    # Without a model nothing of a connection needs to be imported.
    from .._llm.connect import chat_to_ask

    return chat_to_ask(chat)


def _all_distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Parameters that any of the trials has, by name, with the latest distribution."""
    latest: dict[str, BaseDistribution] = {}
    for trial in trials:
        latest.update(trial.distributions)
    return {name: d for name, d in sorted(latest.items()) if not d.single()}


def _common_distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Parameters that all the trials have, by name, with the latest distribution."""
    trials = [t for t in trials if t.params]
    if not trials:
        return {}
    common = set.intersection(*(set(t.distributions) for t in trials))
    latest = sorted(trials[-1].distributions.items())
    return {name: d for name, d in latest if name in common and not d.single()}
