"""CMA-ES with a language model on a share of its suggestions."""

from __future__ import annotations

from functools import partial
from itertools import islice
import math
import threading
from typing import Any
from typing import cast
from typing import Literal
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution
from optuna.samplers import CmaEsSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState

from .._llm.connect import default_chat
from .._llm.prompt import format_params
from .._llm.propose import is_large
from .._llm.propose import propose
from .._llm.record import BASE
from .._llm.record import ENQUEUED
from .._llm.record import LLM
from .._llm.record import record
from .._llm.record import STARTUP
from .._trials.history import finished_trials
from .._trials.history import is_failure
from .._trials.history import ranked
from .._trials.internals import cached_trials
from .._trials.internals import CmaStore
from .._trials.internals import fixed_params
from .._trials.internals import POINT_TO_TELL
from .._trials.internals import set_system_attr
from .._trials.internals import stored_trial
from .._trials.internals import StudyView
from .._trials.seeds import derive_seed
from .briefing import briefing
from .briefing import describe_state
from .briefing import question
from .population import carriers
from .population import current_generation
from .population import LATE_KEY
from .population import population
from .population import turn_of
from .state import default_population_size
from .state import read_state
from .state import UnitCube


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._llm.chat import Chat
    from .._trials.history import Rule
    from .._trials.internals import ArtifactStore
    from .state import CmaState

# Two threads of a study must not each make a connection.
_CHAT_LOCK = threading.Lock()

# Answers that show whether a model of unknown size can propose whole configurations.
_N_PROBES = 4

# Generations whose step size the model is told.
_N_STEPS = 5


class CentaurSampler(CmaEsSampler):
    """CMA-ES in which a language model makes a share of the suggestions.

    The model is shown CMA-ES's state and the trials so far, and CMA-ES learns from what the model
    proposes. Either may be bad at the task without spoiling the other: the steps that CMA-ES takes
    towards foreign points are bounded, failures are never its parents, and whatever the model does
    not decide, or gets wrong, is CMA-ES's own proposal. Each trial says in the user attribute
    ``source`` who decided it.

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

    Categorical parameters are set by the model on its turns and by ``independent_sampler`` on
    CMA-ES's. With ``llm_ratio=0`` the sampler is CmaEsSampler to the last digit, except that
    failed trials are ranked last, and that of several workers' trials none is lost: one that
    finishes after its generation counts for the next.

    References:

    - F. Ferreira et al., Can LLMs Beat Classical Hyperparameter Optimization Algorithms?
      A Study on autoresearch. `arXiv:2603.24647 <https://arxiv.org/abs/2603.24647>`__, 2026.
    - N. Hansen, Injecting External Solutions Into CMA-ES.
      `arXiv:1110.4181 <https://arxiv.org/abs/1110.4181>`__, 2011.

    Args:
        chat:
            The language model. By default the server that ``OPENAI_BASE_URL``, ``OPENAI_API_KEY``
            and ``OPENAI_MODEL`` tell of, else the embedded model; looked for on the first turn.
        llm_ratio:
            Share of the trials after ``n_startup_trials`` that the model decides. Exact: whether a
            trial is the model's is a function of its number alone. Those that repeat a killed
            trial aren't counted in it: they have that one's turn.
        n_startup_trials:
            Trials before the model's turns begin. CMA-ES starts after the first.
        task:
            What is tuned, for the model: the program, the metric, what is known about it.
        reply:
            ``"full"`` asks for a whole configuration; ``"changes"`` for changes to the best one,
            with any values; ``"menu"`` for changes with values to choose from, near the present
            ones, which even the smallest models manage. ``"auto"`` is ``"menu"`` for models whose
            name tells that they have less than 3 billion parameters and ``"full"`` for larger
            ones; a model of unknown size is asked in full and goes on with the menu if of its
            first four answers less than two are among the better half of the trials.
        learn_from_llm:
            ``"clipped"`` bounds what CMA-ES learns from the model's trials and leaves out those
            that failed. ``"all"`` is the published rule: every COMPLETE trial as it is.
        on_error:
            When the model gives no usable answer, ``"base"`` runs CMA-ES's proposal and raises
            only after five such turns in a row; ``"raise"`` raises at once.
        max_prompt_tokens:
            Longest prompt, in the model's tokens.
        rule:
            The objective's own rule: a function from parameters to the values that are really
            run. Configurations equal under it are duplicates, which the model may not propose.
        n_trials:
            Total number of trials planned, for telling the model how many are left.
        noise:
            Standard deviation of the objective's value for one configuration, if it is known.
        artifact_store:
            An Optuna artifact store that prompts and replies are written to.
        show_covariance:
            Whether the model is shown the whole correlation matrix, not only the strongest.
        seed:
            Seed of CMA-ES, of the independent sampler and of the model's replies.
        independent_sampler:
            As in CmaEsSampler; also draws the categorical parameters.
        warn_independent_sampling:
            As in CmaEsSampler, for numerical parameters.
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
        task: str = "",
        reply: Literal["auto", "full", "changes", "menu"] = "auto",
        learn_from_llm: Literal["clipped", "all"] = "clipped",
        on_error: Literal["base", "raise"] = "base",
        max_prompt_tokens: int = 2600,
        rule: Rule | None = None,
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
        for name, value, choices in (
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
            warn_independent_sampling=warn_independent_sampling,
            popsize=popsize,
            consider_pruned_trials=consider_pruned_trials,
            use_separable_cma=use_separable_cma,
            with_margin=with_margin,
            lr_adapt=lr_adapt,
            source_trials=source_trials,
        )
        self._chat = chat
        self._llm_ratio = llm_ratio
        self._first_llm_trial = n_startup_trials
        self._task = task
        self._reply = reply
        self._learn_from_llm = learn_from_llm
        self._on_error = on_error
        self._max_prompt_tokens = max_prompt_tokens
        self._rule = rule
        self._n_trials = n_trials
        self._noise = noise
        self._artifact_store = artifact_store
        self._show_covariance = show_covariance
        self._seed = seed
        self._joint_space = IntersectionSearchSpace()
        self._store = CmaStore(self)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        super().before_trial(study, trial)
        # A trial with all its values fixed never reaches sample_relative.
        if fixed_params(trial):
            record(study, trial, source=ENQUEUED)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        space = self._joint_space.calculate(study, use_cache=True)
        if not space and self.is_llm_turn(turn_of(study, trial)):
            # Nothing succeeded so far. The model can do better than chance at what failed.
            space = _common_distributions([t for t in finished_trials(study) if t.params])
        return {name: d for name, d in space.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        numerical = _numerical(search_space)
        base: dict[str, Any] = {}
        if numerical:
            cube = UnitCube(numerical, with_margin=self._with_margin)
            seen, late = self._trials_to_learn(study, trial, cube)
            if late:
                # Before the optimizer, so that whoever finds that one finds this too.
                set_system_attr(study, trial, LATE_KEY, late)
            view = cast("Study", StudyView(study, seen))
            base = super().sample_relative(view, trial, numerical)
        fixed = fixed_params(trial)
        if base or not numerical:
            base = {**base, **self._draw_categories(study, trial, search_space, fixed)}

        asked = {name: d for name, d in search_space.items() if name not in fixed}
        turn = turn_of(study, trial)
        if not asked or not self.is_llm_turn(turn):
            if not fixed:
                # Without a finished trial there is nothing to know or to ask.
                startup = turn < self._first_llm_trial or not search_space
                record(study, trial, source=STARTUP if startup else BASE)
            return base
        return self._ask(study, trial, search_space, base)

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
        k = number - self._first_llm_trial
        epsilon = 1e-9  # 10 * 0.3 is 3, which floating point may miss
        before = math.floor(k * self._llm_ratio + epsilon)
        return k >= 0 and math.floor((k + 1) * self._llm_ratio + epsilon) > before

    def reply_form(self, study: Study) -> Literal["full", "changes", "menu"]:
        """What ``reply`` comes to for this model and study.

        A function of the model's name and of stored trials, so that every process agrees.
        """
        if self._reply != "auto":
            return self._reply
        large = is_large(self._resolve_chat())
        if large is not None:
            return "full" if large else "menu"
        turns = (t for t in finished_trials(study) if self.is_llm_turn(turn_of(study, t)))
        probes = list(islice(turns, _N_PROBES))
        if len(probes) < _N_PROBES:
            return "full"
        by_value = ranked(study)
        good = 0
        for probe in probes:
            earlier = [t for t in by_value if t.number <= probe.number]
            better_half = [t.number for t in earlier[: (len(earlier) + 1) // 2]]
            good += probe.user_attrs.get("source") == LLM and probe.number in better_half
        return "full" if 2 * good >= _N_PROBES else "menu"

    def _resolve_chat(self) -> Chat:
        with _CHAT_LOCK:
            if self._chat is None:
                self._chat = default_chat()
        return self._chat

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
            if not is_failure(t) and all(name in t.params for name in cube.space)
        ]
        told = population(
            successes,
            generation,
            size=size,
            direction=study.direction,
            cube=cube,
            state=lambda: self._state(study, carrier, cube),
        )
        if not told:
            return [seen], []
        used = {trial.number, *(t.number for t in told)}
        left = [*generation.running, *(t.number for t in successes)]
        late = [number for number in left if number not in used]
        # The newest comes last, where CmaEsSampler looks for the optimizer.
        return [*told, seen], late

    def _state(self, study: Study, carrier: FrozenTrial | None, cube: UnitCube) -> CmaState:
        """CMA-ES's state as stored on a trial; with ``None`` the one that it starts with."""
        return read_state(self._store.optimizer(carrier, cube.transform, study.direction))

    def _ask(
        self,
        study: Study,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
        base: dict[str, Any],
    ) -> dict[str, Any]:
        """The model's turn: its values for every parameter, or CMA-ES's if it has none."""
        own = {
            name: base[name]
            if name in base
            else self._independent_sampler.sample_independent(study, trial, name, distribution)
            for name, distribution in space.items()
        }
        form = self.reply_form(study)
        best = [t for t in ranked(study) if all(name in t.params for name in space)]
        fixed = {name: value for name, value in fixed_params(trial).items() if name in space}
        start, named = own, "CMA-ES's proposal"
        if form != "full" and best:
            start = {name: best[0].params[name] for name in space}
            named = f"trial {best[0].number}, the best so far"
        elif not base:
            named = f"this configuration: {format_params({**own, **fixed}, space)}"
        state, stored = self._describe_state(study, trial, space, base)
        ask = question(
            form=form,
            number=trial.number,
            trials_left=None if self._n_trials is None else self._n_trials - trial.number,
            base=named,
            fixed=fixed,
        )
        proposal = propose(
            study,
            trial,
            space,
            chat=self._resolve_chat(),
            build=partial(
                briefing,
                study,
                space,
                task=self._task,
                noise=self._noise,
                rule=self._rule,
                state=state,
                ask=ask,
            ),
            base=start,
            form=form,
            rule=self._rule,
            max_prompt_tokens=self._max_prompt_tokens,
            seed=None if self._seed is None else derive_seed(self._seed, trial.number),
            on_error=self._on_error,
        )
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
            return own
        if self._with_margin and stored is not None:
            # CMA-ES with margin learns this point and not the trial's parameters.
            cube, now = stored
            x = now.mean + (cube.points([proposal.params])[0] - now.mean) / now.margin_scale
            set_system_attr(study, trial, POINT_TO_TELL, x.tolist())
        return proposal.params

    def _describe_state(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        base: Mapping[str, Any],
    ) -> tuple[str, tuple[UnitCube, CmaState] | None]:
        """CMA-ES's state as text and, if it has one, as it is; read after its own proposal.

        The generation that this trial belongs to may have been begun by this very trial, so its
        optimizer may be stored on it.
        """
        running = stored_trial(study, trial)
        generation = self._store.generation(running)
        if generation is None:
            return "It has not started: no trial succeeded, or the search space changed.", None
        numerical = _numerical(space)
        cube = UnitCube(numerical, with_margin=self._with_margin)
        trials = [running if t.number == trial.number else t for t in cached_trials(study)]
        until_now = range(generation + 1)
        trials = [t for t in trials if self._store.generation(t) in until_now]
        optimizers = list(carriers(trials, self._store).values())
        states = [self._state(study, carrier, cube) for carrier in optimizers[-_N_STEPS:]]
        if len(states) < _N_STEPS:
            states.insert(0, self._state(study, None, cube))
        text = describe_state(
            states,
            cube,
            space,
            evaluated=len(current_generation(trials, self._store).members),
            proposal=base,
            show_covariance=self._show_covariance,
        )
        return text, (cube, states[-1])


def _first_complete(study: Study) -> FrozenTrial | None:
    return next((t for t in cached_trials(study) if t.state == TrialState.COMPLETE), None)


def _numerical(space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    return {n: d for n, d in space.items() if not isinstance(d, CategoricalDistribution)}


def _common_distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Parameters that all the trials have, by name, with the latest distribution."""
    if not trials:
        return {}
    common = set.intersection(*(set(t.distributions) for t in trials))
    return {name: d for name, d in sorted(trials[-1].distributions.items()) if name in common}
