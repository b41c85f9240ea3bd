"""CMA-ES, steps from the best trials and a language model, with a model of the trials to choose."""

from __future__ import annotations

from functools import partial
import secrets
from typing import Any
from typing import cast
from typing import Literal
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import TrialState

from .._critic.critic import Critic
from .._critic.trials import unfinished
from .._llm.record import BASE
from .._llm.record import ENQUEUED
from .._llm.record import LLM
from .._llm.record import LLM_SCREENED
from .._llm.record import record
from .._llm.record import source_of
from .._llm.record import STARTUP
from .._llm.trial_prompt import Knowledge
from .._llm.warm_start import first_trials_left
from .._llm.warm_start import N_FIRST
from .._trials.announced import announce
from .._trials.history import finished_trials
from .._trials.history import is_failure
from .._trials.history import ranked
from .._trials.internals import cached_trials
from .._trials.internals import fixed_params
from .._trials.internals import is_enqueued
from .._trials.internals import set_system_attr
from .._trials.internals import stored_trial
from .._trials.seeds import derive_seed
from .._trials.stored_cma import CheckedCmaEsSampler
from .internals import CmaStore
from .internals import POINT_TO_TELL
from .internals import store_constraints
from .internals import StudyView
from .model_turns import ModelTurns
from .population import carriers
from .population import current_generation
from .population import Generation
from .population import LATE_KEY
from .population import population
from .population import turn_of
from .prompt import describe_state
from .screening import Candidates
from .screening import Choice
from .screening import choose
from .screening import CMA_ES
from .screening import cma_samples
from .screening import CRITIC
from .screening import first_choice
from .screening import is_ahead
from .screening import is_step_turn
from .screening import MODEL
from .screening import N_ANYWHERE
from .screening import N_RANDOM
from .screening import N_SAMPLES
from .screening import N_STEPS
from .screening import RANDOM
from .screening import Screen
from .screening import STEPS
from .state import default_population_size
from .state import read_state
from .state import UnitCube


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._critic.critic import Judge
    from .._critic.encoding import Derived
    from .._llm.chat import Chat
    from .._trials.history import Rule
    from .._trials.internals import ArtifactStore
    from .state import CmaState

# Choices of which another worker made the same at the same time, before one is run nevertheless.
_MAX_CLASHES = 4

# Mean standard deviation, as a share of the ranges, from which on CMA-ES's mean says something; it
# starts with a sixth.
_NARROW = 0.12

# Generations whose step size the model is told.
_N_STEPS = 5


class CentaurSampler(CheckedCmaEsSampler):
    """CMA-ES, steps from the best trials and a language model, with a critic that chooses.

    The critic is a model of the trials: what value a configuration will have, and whether it will
    fail. Of many candidates, samples of CMA-ES or steps from the best trials, it has the most
    promising one run. On its turns a large language model's proposal is run as it is, since it may
    know what trials don't tell yet; a small one's is one of the candidates. CMA-ES learns from all
    that is run: its steps towards points that others proposed are bounded, and failures are never
    its parents. Each trial says in user attributes whose turn it was (``source``), who proposed
    what was run (``proposer``) and who chose it (``chosen_by``).

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
    counts for the next.

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
            Share of the trials after ``n_startup_trials`` that the model decides. Exact: whether a
            trial is the model's is a function of its number alone. Those that repeat a killed
            trial aren't counted in it: they have that one's turn.
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
            ``"clipped"`` bounds what CMA-ES learns from the model's trials and leaves out those
            that failed. ``"all"`` is the published rule: every COMPLETE trial as it is.
        on_error:
            When the model gives no usable answer, ``"base"`` runs CMA-ES's proposal and raises
            only after five such turns in a row; ``"raise"`` raises at once.
        max_prompt_tokens:
            Longest prompt, in the model's tokens; never more than its context holds. By default
            2,600 where it chooses from a menu, else 12,000.
        rule:
            The objective's own rule: a function from parameters to the values that are really
            run. Configurations equal under it are duplicates, which the model may not propose.
        derived:
            Further numbers that the value may depend on, such as a width that is a product: a
            function from the parameters, as they are really run, to numbers by name. The critic
            learns from them, and the model is shown them.
        side_data:
            Names of trials' user attributes that tell the model more than the value does, such as
            steps or memory. Those that are numbers and vary are shown.
        constraints_func:
            As in Optuna's samplers: constraints of a trial, above 0 where they are violated. Those
            of ``Trial.set_constraint`` count as well. The critic learns where they are violated;
            without it they are ignored.
        n_trials:
            Total number of trials planned, for telling the model how many are left.
        noise:
            Standard deviation of the objective's value for one configuration, if it is known.
        artifact_store:
            An Optuna artifact store that prompts and replies are written to.
        show_covariance:
            Whether the model is shown the whole correlation matrix, not only the strongest.
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
        on_error: Literal["base", "raise"] = "base",
        max_prompt_tokens: int | None = None,
        rule: Rule | None = None,
        derived: Derived | None = None,
        side_data: Sequence[str] = (),
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        n_trials: int | None = None,
        noise: float | None = None,
        artifact_store: ArtifactStore | None = None,
        show_covariance: bool = False,
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
        if warm_start is not None and warm_start < 0:
            raise ValueError(f"`warm_start` must be 0 or more, but got {warm_start}.")
        for name, value, choices in (
            ("critic", critic, ("gp", None)),
            ("reply", reply, ("auto", "full", "changes", "menu")),
            ("learn_from_llm", learn_from_llm, ("clipped", "all")),
            ("on_error", on_error, ("base", "raise")),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` must be one of {choices}, but got {value!r}.")
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
        self._starts_anywhere = source_trials is None
        self._candidate_seed = secrets.randbits(31) if seed is None else seed
        self._constraints_func = constraints_func
        self._asks = llm_ratio > 0
        self._first_llm_trial = n_startup_trials
        self._warm_start = warm_start
        self._turns = ModelTurns(
            # Of none nobody would hear before the first trial that is the model's.
            _chat_to_ask(chat) if llm_ratio > 0 or warm_start else chat,
            ratio=llm_ratio,
            first=n_startup_trials,
            reply=reply,
            knowledge=Knowledge(task, noise, n_trials, rule, derived, tuple(side_data)),
            max_prompt_tokens=max_prompt_tokens,
            on_error=on_error,
            seed=seed,
        )
        self._learn_from_llm = learn_from_llm
        self._artifact_store = artifact_store
        self._show_covariance = show_covariance
        self._joint_space = IntersectionSearchSpace()
        self._store = CmaStore(self)

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
        finished = finished_trials(study)
        if self._critic is not None:
            if not finished and self._n_first(study):
                return _all_distributions(cached_trials(study))
            return _all_distributions(finished)
        space = self._common_space(study)
        if not space and (self._n_first(study) or self.is_llm_turn(turn_of(study, trial))):
            # Nothing succeeded so far. The model can do better than chance at what failed.
            space = _common_distributions(finished or cached_trials(study))
        return space

    def _n_first(self, study: Study) -> int:
        """The trials of the warm start."""
        if self._warm_start is not None:
            return self._warm_start
        if self._critic is None or not self._asks or self._turns.reply not in ("auto", "full"):
            return 0
        return N_FIRST if self.reply_format(study) == "full" else 0

    def _common_space(self, study: Study) -> dict[str, BaseDistribution]:
        """The parameters that all completed trials share, without those of a single value."""
        space = self._joint_space.calculate(study, use_cache=True)
        return {name: d for name, d in space.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        if self._critic is not None:
            return self._sample_with_critic(self._critic, study, trial, search_space)
        base = self._sample_cma(study, trial, _numerical(search_space))
        fixed = fixed_params(trial)
        if base or not _numerical(search_space):
            base = {**base, **self._draw_categories(study, trial, search_space, fixed)}

        asked = {name: d for name, d in search_space.items() if name not in fixed}
        turn = turn_of(study, trial)
        n_first = first_trials_left(study, trial, self._n_first(study)) if asked else 0
        if not asked or not (n_first or self.is_llm_turn(turn)):
            if not fixed:
                # Without a finished trial there is nothing to know or to ask.
                startup = turn < self._first_llm_trial or not search_space
                record(study, trial, source=STARTUP if startup else BASE)
            return base
        return self._ask(study, trial, search_space, base, n_first=n_first)

    def _sample_cma(
        self, study: Study, trial: FrozenTrial, numerical: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """CMA-ES's own sample, after it has learned what there is to learn."""
        if not numerical:
            return {}
        cube = UnitCube(numerical, with_margin=self._with_margin)
        seen, late = self._trials_to_learn(study, trial, cube)
        if late:
            # Before the optimizer, so that whoever finds that one finds this too.
            set_system_attr(study, trial, LATE_KEY, late)
        view = cast("Study", StudyView(study, seen))
        return super().sample_relative(view, trial, numerical)

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
        common = {n: d for n, d in self._common_space(study).items() if n in space}
        base = self._sample_cma(study, trial, _numerical(common))
        asked = {name: d for name, d in space.items() if name not in fixed}
        if not asked:
            if not is_enqueued(trial):
                # Without a finished trial there is nothing to know or to ask.
                source = STARTUP if turn < self._first_llm_trial or not space else BASE
                record(study, trial, source=source, proposer=RANDOM, chosen_by=RANDOM)
            return {}
        judge = critic.judge(study, trial, space)
        rng = np.random.default_rng([self._candidate_seed, turn])
        again = partial(self._choose, study, trial, judge, space, fixed, turn, rng)
        choice = self._settle(study, trial, judge, again(), again)
        n_first = first_trials_left(study, trial, self._n_first(study))
        if n_first or self.is_llm_turn(turn):
            if not common:  # nothing succeeded so far, or finished
                common = _common_distributions(finished_trials(study) or cached_trials(study))
                common = {n: d for n, d in common.items() if n in space}
            if any(name not in fixed for name in common):
                screen = Screen(judge, choice, again, fixed, rng)
                return self._ask(study, trial, common, base, screen, n_first)
        if fixed_params(trial):
            source = ENQUEUED
        else:
            source = STARTUP if turn < self._first_llm_trial else BASE
        record(study, trial, source=source, proposer=choice.proposer, chosen_by=choice.chosen_by)
        self._tell_point(study, trial, space, choice.params)
        return choice.params

    def _settle(
        self,
        study: Study,
        trial: FrozenTrial,
        judge: Judge,
        choice: Choice,
        again: Callable[[], Choice],
    ) -> Choice:
        """Announce a choice that no other worker has made, choosing ``again`` where one has."""
        for _ in range(_MAX_CLASHES):
            announce(study, trial, choice.params)
            if not self._clashes(study, trial, judge, choice):
                return choice
            choice = again()
        announce(study, trial, choice.params)
        return choice

    def _clashes(self, study: Study, trial: FrozenTrial, judge: Judge, choice: Choice) -> bool:
        """Whether another worker chose the same in the meantime; the judge then knows.

        A choice is announced before the others' are read, so that one of two sees the other. They
        are read from the storage: as they were when this trial began, the other may not have begun.
        """
        finished = {t.number for t in cached_trials(study) if t.state.is_finished()}
        since = [t for t in study.get_trials(deepcopy=False) if t.number not in finished]
        others = [*unfinished(since, trial), *(t.params for t in since if t.state.is_finished())]
        was_new = judge.is_new(choice.params)
        judge.exclude(others)
        return was_new and not judge.is_new(choice.params)

    def _choose(
        self,
        study: Study,
        trial: FrozenTrial,
        judge: Judge,
        space: Mapping[str, BaseDistribution],
        fixed: Mapping[str, Any],
        turn: int,
        rng: np.random.Generator,
    ) -> Choice:
        """What is run on a turn that no language model has."""
        best = ranked(study)
        if not self._knows_enough(study, best):
            samples = []
            if not self._starts_anywhere:
                samples = self._cma_candidates(study, trial, best, space, rng)
            return (
                choose(judge, samples, fixed, rng) if samples else first_choice(judge, fixed, rng)
            )
        of_model = sum(self.is_llm_turn(number) for number in range(turn))
        pools = []
        if not is_step_turn(turn - of_model):
            pools = self._cma_candidates(study, trial, best, space, rng)
        if not pools:
            pools = [
                Candidates(judge.steps(N_STEPS, rng), STEPS),
                Candidates(judge.random(N_ANYWHERE, rng), RANDOM),
            ]
        return choose(judge, pools, fixed, rng)

    def _knows_enough(self, study: Study, best: Sequence[FrozenTrial]) -> bool:
        """Whether the trials tell more than chance: there are some, or a given one is ahead.

        Those of a language model are given ones: a model that is wrong is found out by chance.
        """
        if len(best) >= N_RANDOM:
            return True
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        given = [sign * t.values[0] for t in best if is_enqueued(t) or source_of(t) == LLM]
        # Those that the critic chose already are not there by chance.
        by_chance = [
            sign * t.values[0]
            for t in best
            if not is_enqueued(t) and t.user_attrs.get("chosen_by") not in (CRITIC, MODEL)
        ]
        return is_ahead(given, by_chance)

    def _cma_candidates(
        self,
        study: Study,
        trial: FrozenTrial,
        best: Sequence[FrozenTrial],
        space: Mapping[str, BaseDistribution],
        rng: np.random.Generator,
    ) -> list[Candidates]:
        """Samples of CMA-ES's present distribution; none if it has not started."""
        stored = self._stored_states(study, trial, space)
        if stored is None or not best:
            return []
        cube, states, _ = stored
        known = [{n: v for n, v in t.params.items() if n in space} for t in best]
        samples = cma_samples(states[-1], cube, known, space, N_SAMPLES, rng)
        return [Candidates(samples, CMA_ES)]

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
        suggested = (_first_complete(study) or trial).params
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

    def _trials_to_learn(
        self, study: Study, trial: FrozenTrial, cube: UnitCube
    ) -> tuple[list[FrozenTrial], list[int]]:
        """The trials that CmaEsSampler is to see, and those that this leaves for later.

        Returns:
            The trials; and, if they close a generation, the numbers of the others until now that
            are still running or were not needed.
        """
        if self._learn_from_llm == "all":
            return self._get_trials(study), []
        generation = current_generation(cached_trials(study), self._store)
        carrier = generation.carrier
        # CmaEsSampler starts when one trial is COMPLETE.
        source = carrier or _first_complete(study)
        if source is None:
            return [], []
        seen = self._store.optimizer_alone(source)

        size = self._popsize or default_population_size(len(cube.space))
        if len(generation.members) < size:
            return [seen], []
        successes = [
            t
            for t in self._get_trials(cast("Study", StudyView(study, generation.members)))
            if not self._failed(t) and all(name in t.params for name in cube.space)
        ]
        told = population(
            successes,
            generation,
            size=size,
            direction=study.direction,
            cube=cube,
            state=lambda: self._state(study, carrier, cube),
            failed=self._failed,
        )
        if not told:
            return [seen], []
        used = {trial.number, *(t.number for t in told)}
        left = [*generation.running, *(t.number for t in successes)]
        late = [number for number in left if number not in used]
        # The newest comes last, where CmaEsSampler looks for the optimizer.
        return [*told, seen], late

    def _failed(self, trial: FrozenTrial) -> bool:
        """Whether CMA-ES ranks a trial last; without the critic constraints are ignored."""
        if self._critic is None:
            return is_failure(trial)
        return is_failure(trial) or any(not c <= 0 for c in trial.constraints.values())

    def _state(self, study: Study, carrier: FrozenTrial | None, cube: UnitCube) -> CmaState:
        """CMA-ES's state as stored on a trial; with ``None`` the one that it starts with."""
        return read_state(self._store.optimizer(carrier, cube.transform, study.direction))

    def _ask(
        self,
        study: Study,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
        base: dict[str, Any],
        screen: Screen | None = None,
        n_first: int = 0,
    ) -> dict[str, Any]:
        """The model's turn: its values for every parameter, or others if it has none.

        Args:
            study: The study.
            trial: The running trial.
            space: What the model is asked for.
            base: CMA-ES's sample, ``{}`` if it has none.
            screen: The critic, and what it would have run; ``None``: CMA-ES's sample would be.
            n_first: Trials of the warm start that are left, if this is one.
        """
        known = base if screen is None else screen.choice.params
        own = {
            name: known[name]
            if name in known
            else self._independent_sampler.sample_independent(study, trial, name, distribution)
            for name, distribution in space.items()
        }
        reply_format = "full" if n_first else self.reply_format(study)
        advised = screen is not None and reply_format != "menu"
        proposal = self._turns.propose(
            study,
            trial,
            space,
            own,
            reply_format=reply_format,
            proposer="" if screen is not None or not base else "CMA-ES",
            has_critic=screen is not None,
            state=self._describe_state(study, trial, space, {} if advised else base, advised),
            n_first=n_first,
        )
        params = proposal.params
        source, why = proposal.source, proposal.reason
        choice: Choice | None = None
        if screen is not None:
            settle = partial(self._settle, study, trial, screen.judge)
            if params is None:
                # While the model was asked, another worker may have run what was chosen before.
                choice = settle(screen.choice, screen.again)
            elif reply_format == "full":
                params = screen.with_rest(params, space)
                choice = Choice(params, MODEL, MODEL)
                announce(study, trial, params)
            else:
                decide = partial(screen.decide, screen.with_rest(params, space))
                choice = settle(decide(), decide)
                if choice.proposer != MODEL:
                    source, why = LLM_SCREENED, "the critic preferred another candidate"
        record(
            study,
            trial,
            source=source,
            proposer="" if choice is None else choice.proposer,
            chosen_by="" if choice is None else choice.chosen_by,
            reason=why,
            exchanges=proposal.exchanges,
            artifact_store=self._artifact_store,
        )
        if proposal.error is not None:
            raise proposal.error
        if choice is not None:
            params = choice.params
        elif params is None:
            return own
        self._tell_point(study, trial, space, params)
        return params

    def _tell_point(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        params: Mapping[str, Any],
    ) -> None:
        """Have CMA-ES with margin learn what is run, and not the sample that it drew itself."""
        stored = self._stored_states(study, trial, space) if self._with_margin else None
        if stored is None:
            return
        cube, states, _ = stored
        now = states[-1]
        x = now.mean + (cube.points([params])[0] - now.mean) / now.margin_scale
        set_system_attr(study, trial, POINT_TO_TELL, x.tolist())

    def _stored_states(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        n: int = 1,
    ) -> tuple[UnitCube, list[CmaState], Generation] | None:
        """CMA-ES's last ``n`` states and the present generation; read after its own sample.

        The generation that this trial belongs to may have been begun by this very trial, so its
        optimizer may be stored on it.

        Returns:
            ``None`` if CMA-ES has not started: no trial succeeded, or the search space changed.
        """
        running = stored_trial(study, trial)
        generation = self._store.generation(running)
        numerical = {n: d for n, d in _numerical(self._common_space(study)).items() if n in space}
        if generation is None or not numerical:
            return None
        cube = UnitCube(numerical, with_margin=self._with_margin)
        trials = [running if t.number == trial.number else t for t in cached_trials(study)]
        until_now = range(generation + 1)
        trials = [t for t in trials if self._store.generation(t) in until_now]
        optimizers = list(carriers(trials, self._store).values())
        states = [self._state(study, carrier, cube) for carrier in optimizers[-n:]]
        if len(states) < n:
            states.insert(0, self._state(study, None, cube))
        return cube, states, current_generation(trials, self._store)

    def _describe_state(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        base: Mapping[str, Any],
        only_if_narrow: bool,
    ) -> list[str]:
        """CMA-ES's state as text, see ``TrialPrompt.build``; ``""`` while it has learned nothing.

        A mean whose standard deviations are still those of the start says nothing, and misleads a
        model that others do the small steps for.
        """
        stored = self._stored_states(study, trial, space, _N_STEPS)
        if stored is None:
            return [""]
        if stored[1][-1].generation == 0 and self._starts_anywhere:
            return [""]
        cube, states, generation = stored
        if only_if_narrow and np.mean(states[-1].standard_deviations) > _NARROW:
            return [""]
        return describe_state(
            states,
            cube,
            space,
            evaluated=len(generation.members),
            proposal=base,
            show_covariance=self._show_covariance,
        )


def _chat_to_ask(chat: Chat | None) -> Chat:
    # Without a model nothing of a connection needs to be imported.
    from .._llm.connect import chat_to_ask

    return chat_to_ask(chat)


def _first_complete(study: Study) -> FrozenTrial | None:
    return next((t for t in cached_trials(study) if t.state == TrialState.COMPLETE), None)


def _numerical(space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    return {n: d for n, d in space.items() if not isinstance(d, CategoricalDistribution)}


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
