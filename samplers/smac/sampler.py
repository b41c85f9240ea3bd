"""SMAC3 (random forest, expected improvement) behind Optuna's sampler interface.

The sampler keeps no state between suggestions. Each one builds SMAC's own facade anew from what the
storage holds, with a seed made of the study's and the trial's number without repeats of killed ones, so
that a resumed study, several threads and several machines continue one and the same optimization.

Taken from SMAC: the surrogate model, the acquisition function, the random interleaving, the encoding
of costs and the initial design are those of ``smac.HyperparameterOptimizationFacade`` with its
default settings. Two things are different:

- The acquisition function's maximizer is SMAC's local and random search on arrays (``maximizer.py``).
- Racing is left out. With deterministic evaluations every configuration is run once, which leaves
  the intensifier nothing to decide, and its bookkeeping compares every pair of stored
  configurations. The next configuration therefore comes from the facade's configuration generator
  instead of ``facade.ask()``.

References:
    M. Lindauer, K. Eggensperger, M. Feurer, A. Biedenkapp, D. Deng, C. Benjamins, T. Ruhkopf,
    R. Sass, F. Hutter. SMAC3: A Versatile Bayesian Optimization Package for Hyperparameter
    Optimization. Journal of Machine Learning Research 23(54), 2022.
    https://jmlr.org/papers/v23/21-0888.html
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
import logging
import math
from pathlib import Path
from tempfile import TemporaryDirectory
import threading
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.search_space import intersection_search_space
from optuna.trial import TrialState

from smac import HyperparameterOptimizationFacade
from smac import Scenario
from smac.initial_design import SobolInitialDesign
from smac.main.exceptions import ConfigurationSpaceExhaustedException
from smac.model.random_forest import RandomForest
from smac.runhistory import StatusType
from smac.runhistory import TrialInfo

from .._trials.arguments import check_least
from .._trials.history import is_failure
from .._trials.history import is_interrupted
from .._trials.history import not_shared
from .._trials.history import sign_of
from .._trials.history import violation
from .._trials.internals import cached_trials
from .._trials.internals import drop_older_cache
from .._trials.internals import fixed_params
from .._trials.internals import fresh_trials
from .._trials.internals import interrupted_trials
from .._trials.internals import number_without_repeats
from .._trials.internals import set_study_system_attr
from .._trials.internals import set_system_attr
from .._trials.internals import study_system_attrs
from .._trials.seeds import derive_seed
from .maximizer import VectorizedLocalSearch
from .space import enumerate_configurations
from .space import from_configuration
from .space import to_configspace
from .space import to_configuration


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

    from ConfigSpace import Configuration
    from ConfigSpace import ConfigurationSpace
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from smac.runhistory import RunHistory


_logger = get_logger(f"optuna.{__name__}")

_SEED_KEY = "smac:seed"  # study: the seed that it got when none was given
_PROPOSAL_KEY = "smac:proposal"  # trial: the proposed parameters, in internal representation
_DESIGN_KEY = "smac:design_index"  # trial: which point of the initial design the proposal is

# How often a proposal that another worker made at the same moment is replaced by another one.
_MAX_ATTEMPTS = 10

# Spaces with more configurations than this are never searched for the last untried one.
_MAX_ENUMERATION = 10_000

# Optuna accepts values up to 1.8e308, whose differences are infinite.
_MAX_VALUE = 1e300

# The level of smac's loggers is a property of the process, so suggestions take turns. They are
# bound by the interpreter lock in any case.
_SMAC_LOCK = threading.Lock()


class SMACSampler(BaseSampler):
    """Sampler that proposes configurations with SMAC3's hyperparameter optimization facade.

    Every parameter type takes part in the model: floats and ints, log or with a step, and
    categories of any objects. Failed trials are told to SMAC as crashed runs that are worse than
    every success, pruned ones with their last value, but never as better than the median of the
    completed trials. A configuration that is stored or running is not proposed again until the
    whole search space has been.

    The search space is the intersection of the stored trials' spaces, which is not known before
    the first trial has finished. Parameters outside of it, and so the first trial of a study, are
    sampled uniformly and independently. Pass ``search_space`` to begin the initial design at once.

    Example:

        .. code-block:: python

            import optuna
            from samplers import SMACSampler


            def objective(trial):
                x = trial.suggest_float("x", -5, 5)
                kind = trial.suggest_categorical("kind", ["a", "b"])
                return x**2 + (kind == "b")


            study = optuna.create_study(sampler=SMACSampler(seed=0))
            study.optimize(objective, n_trials=50)

    Args:
        n_startup_trials:
            How many trials the study has before the model takes over, whoever proposed them: the
            rest of them are points of a scrambled Sobol sequence. 0 leaves the initial design out.
            :obj:`None` is ``min(10 * number of parameters, 25)``, SMAC's own choice for a run of
            100 trials.
        search_space:
            The distributions by parameter name, such as ``{"x": FloatDistribution(-5, 5)}``, as
            the objective suggests them. Parameters that it lacks are sampled independently.
            :obj:`None` infers it from the stored trials.
        n_challengers:
            How many random configurations the acquisition function is computed for: its local
            search starts from the best ten of them and from the ten best evaluated ones. Fewer are
            faster and may miss good regions.
        seed:
            A non-negative integer, 0 included. The same seed and the same storage give the same
            proposals. :obj:`None` makes one of the study's name and the moment when its first
            trial began, and keeps it in the study.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        *,
        n_startup_trials: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
        n_challengers: int = 10_000,
        seed: int | None = None,
    ) -> None:
        check_least(0, n_startup_trials=n_startup_trials, seed=seed)
        check_least(1, n_challengers=n_challengers)
        self._n_startup_trials = n_startup_trials
        self._search_space = None if search_space is None else dict(search_space)
        self._n_challengers = n_challengers
        self._seed = seed
        self._translation = _Translation({})
        self._warned: set[str] = set()
        self._named: set[str] = set()  # parameters, in a warning

    def reseed_rng(self) -> None:
        """Do nothing: all randomness is a function of the seed and the trial's number."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        drop_older_cache(study, trial)
        search_space = self._search_space
        if search_space is None:
            # One without parameters, such as a reference value that was added, tells nothing.
            trials = [t for t in cached_trials(study) if t.params]
            search_space = intersection_search_space(trials, include_pruned=True)
        return {name: d for name, d in search_space.items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        fixed = fixed_params(trial, search_space)
        if fixed.keys() >= search_space.keys():
            return {}  # also for an empty search space: there is nothing to decide
        params: dict[str, Any] = {}
        for attempt in range(_MAX_ATTEMPTS):
            # What the search space was inferred from is a moment old, and reading takes a database
            # seven statements.
            others = _other_trials(study, trial, use_cache=attempt == 0)
            # Before the proposal: the in-memory storage changes the very trials that it returned.
            seen = {other.number: _known(other, search_space) for other in others}
            if any(violation(other) and not is_failure(other) for other in others):
                self._warn_once("SMACSampler ignores constraints, and a trial violates some.")
            configuration, design_index = self._propose(
                study, trial, others, search_space, fixed, attempt
            )
            params = from_configuration(configuration, search_space)
            proposal = _internal(params, search_space)
            set_system_attr(study, trial, _PROPOSAL_KEY, proposal)
            if design_index is not None or attempt:
                set_system_attr(study, trial, _DESIGN_KEY, design_index)
            # Of two workers that propose the same at the same moment, at least one reads the
            # storage after both have written, and it moves on.
            if not any(
                _known(other, search_space) == proposal and seen.get(other.number) != proposal
                for other in _other_trials(study, trial)
            ):
                break
        return params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        if self._search_space is None and param_name not in self._named:
            self._tell_what_is_random(study, param_name)
        number = number_without_repeats(trial, cached_trials(study))
        seed = derive_seed(self._study_seed(study), number, param_name)
        sampler = RandomSampler(seed=seed)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _tell_what_is_random(self, study: Study, param_name: str) -> None:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = [t for t in cached_trials(study) if t.state in states and t.params]
        if named := not_shared(trials, param_name):
            self._named |= named
            _logger.warning(
                f"Drawn at random: {', '.join(sorted(self._named))}. SMAC is asked only for "
                "parameters that all evaluated trials have, in one range."
            )

    def _study_seed(self, study: Study) -> int:
        """Return the seed that all workers of the study share."""
        if self._seed is not None:
            return self._seed
        stored = study_system_attrs(study).get(_SEED_KEY)
        if isinstance(stored, int):
            return int(stored)
        # Not drawn: of two workers that begin together each would draw another one, and no storage
        # says which was first. When the first trial began all of them read there.
        (began,) = {t.datetime_start for t in cached_trials(study) if t.number == 0}
        seed = derive_seed(0, study.study_name, str(began))
        set_study_system_attr(study, _SEED_KEY, seed)
        return seed

    def _propose(
        self,
        study: Study,
        trial: FrozenTrial,
        others: Sequence[FrozenTrial],
        search_space: Mapping[str, BaseDistribution],
        fixed: Mapping[str, Any],
        attempt: int,
    ) -> tuple[Configuration, int | None]:
        """Return the next configuration and its index if it is a point of the initial design.

        It has the ``fixed`` values, which somebody enqueued, unless they are none of the space.
        """
        translation = self._translation
        if translation.search_space != search_space:
            translation = self._translation = _Translation(search_space)
        configspace = translation.configspace
        evaluated: list[tuple[FrozenTrial, Configuration]] = []
        pending: list[Configuration] = []
        n_before = 0  # trials before this one that have, or are about to have, a configuration
        for other in others:
            unfinished = not other.state.is_finished()
            configuration = to_configuration(
                configspace, search_space, _params(other, search_space), translation.known
            )
            n_before += other.number < trial.number and (unfinished or configuration is not None)
            if configuration is None:
                if not unfinished and other.params.keys() >= search_space.keys():
                    self._warn_once(
                        "SMACSampler does not learn from trials with values outside of the search"
                        " space, as there are."
                    )
                continue
            if unfinished:
                pending.append(configuration)
            elif not is_interrupted(other):
                evaluated.append((other, configuration))

        def settle(proposed: Configuration) -> Configuration:
            if not fixed:
                return proposed
            params = {**from_configuration(proposed, search_space), **fixed}
            return to_configuration(configspace, search_space, params) or proposed

        n_startup_trials = self._n_startup_trials
        if n_startup_trials is None:
            n_startup_trials = min(10 * len(search_space), 25)
        study_seed = self._study_seed(study)
        number = number_without_repeats(trial, cached_trials(study))
        if n_before < n_startup_trials:
            point = _design_point(configspace, study_seed, number)
            point = None if point is None else settle(point)
            if point is not None and point not in [*pending, *(c for _, c in evaluated)]:
                return point, number

        sign = sign_of(study.direction)
        history = run_history(evaluated, sign)
        seed = derive_seed(study_seed, number, attempt)
        asked = _ask(
            configspace, history, pending, settle, n_challengers=self._n_challengers, seed=seed
        )
        if asked is None:
            hidden = {
                name for t in others for name, d in t.distributions.items() if not d.single()
            }
            hidden -= search_space.keys()
            if hidden:
                self._warn_once(
                    f"Every combination of {', '.join(sorted(search_space))} was proposed, so they "
                    f"are repeated; {', '.join(sorted(hidden))} are not chosen by SMAC: not all "
                    "trials have them, or a PartialFixedSampler fixes them."
                )
            else:
                _logger.warning(
                    "Every configuration of the search space was proposed: one is repeated."
                )
            asked = settle(configspace.sample_configuration())
        return asked, None

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _logger.warning(message)


class _Translation:
    """A search space as SMAC's, and the configurations that trials had in it.

    It only saves time: all of it follows from the search space and the stored trials.
    """

    def __init__(self, search_space: Mapping[str, BaseDistribution]) -> None:
        self.search_space = dict(search_space)
        self.configspace = to_configspace(search_space)
        self.known: dict[bytes, Configuration] = {}


def run_history(
    evaluated: Sequence[tuple[FrozenTrial, Configuration]], sign: float
) -> list[tuple[Configuration, float, StatusType]]:
    """Return what SMAC is told of finished trials: each configuration once, lower costs better.

    Costs are scaled so that the best success costs 0 and the worst 1. SMAC's log-scaled encoding
    takes only ratios of differences of costs, so it loses nothing, and doesn't break on large
    values as it does when several of them are equal. A pruned trial was stopped for doing badly,
    and its last value is of an earlier step: its cost lies between the median success and the
    worst. A failure costs 2, as far behind the worst success as that is behind the best.

    Of several trials with the same configuration, successes count before pruned trials, and those
    before failures: a run that was once killed from outside didn't fail for its configuration.
    Costs of the same rank are averaged.

    Args:
        evaluated: Finished trials and their configurations.
        sign: 1 to minimize, -1 to maximize.
    """

    def value(trial: FrozenTrial) -> float:
        return min(max(sign * trial.values[0], -_MAX_VALUE), _MAX_VALUE)

    def succeeded(trial: FrozenTrial) -> bool:
        return trial.state == TrialState.COMPLETE and not is_failure(trial)

    successes = [value(trial) for trial, _ in evaluated if succeeded(trial)]
    best, worst = min(successes, default=0.0), max(successes, default=0.0)
    scale = worst - best or 1.0
    middle = (float(np.median(successes)) - best) / scale if successes else 1.0

    # A configuration's coordinates -> itself and its costs by rank, 0 for successes.
    costs: dict[bytes, tuple[Configuration, tuple[list[float], list[float], list[float]]]] = {}
    for trial, configuration in evaluated:
        key = configuration.get_array().tobytes()
        _, of_rank = costs.setdefault(key, (configuration, ([], [], [])))
        if succeeded(trial):
            of_rank[0].append((value(trial) - best) / scale)
        elif trial.state == TrialState.PRUNED and not is_failure(trial):
            reported = trial.values is not None and math.isfinite(trial.values[0])
            cost = (value(trial) - best) / scale if reported else 1.0
            of_rank[1].append(min(max(cost, middle), 1.0))
        else:
            of_rank[2].append(2.0)
    return [
        (
            configuration,
            float(np.mean(next(filter(None, of_rank)))),
            StatusType.SUCCESS if of_rank[0] or of_rank[1] else StatusType.CRASHED,
        )
        for configuration, of_rank in costs.values()
    ]


class _Forest(RandomForest):
    """SMAC's random forest: the same trees and predictions, without a thread pool per call.

    SMAC predicts thousands of small batches for a suggestion, most of them of one configuration.
    """

    def predict_marginalized(
        self,
        X: np.ndarray,  # (n_configurations, n_parameters)
    ) -> tuple[np.ndarray, np.ndarray]:  # mean and variance, (n_configurations, 1) each
        assert self._rf is not None
        X = np.ascontiguousarray(X, dtype=np.float32)
        # (n_trees, n_configurations)
        predictions = np.stack([tree.tree_.predict(X)[:, 0] for tree in self._rf.estimators_])
        variance = np.maximum(predictions.var(axis=0), self._var_threshold)
        return predictions.mean(axis=0)[:, None], variance[:, None]


def _ask(
    configspace: ConfigurationSpace,
    history: Sequence[tuple[Configuration, float, StatusType]],
    pending: Sequence[Configuration],
    settle: Callable[[Configuration], Configuration],
    *,
    n_challengers: int,
    seed: int,
) -> Configuration | None:
    """Return SMAC's next configuration, none of the evaluated and the pending ones.

    ``settle`` gives it the values that are fixed. None if all of them were tried.
    """
    facade = HyperparameterOptimizationFacade
    with _quiet_smac(), TemporaryDirectory(prefix="optuna-smac-") as folder:
        scenario = Scenario(
            configspace, deterministic=True, seed=seed, output_directory=Path(folder)
        )
        # As `facade.get_model` makes it, but for the last two: no tree has more leaves than there
        # are trials, and scikit-learn allocates memory for as many as it is told to expect.
        model = _Forest(
            configspace,
            log_y=True,
            n_trees=10,
            ratio_features=1.0,
            min_samples_split=2,
            min_samples_leaf=1,
            max_depth=2**20,
            bootstrapping=True,
            seed=seed,
            max_leaf_nodes=max(2, len(history)),
            n_jobs=1,
        )
        smac = facade(
            scenario,
            model=model,
            acquisition_maximizer=VectorizedLocalSearch(
                configspace, challengers=n_challengers, seed=seed
            ),
            initial_design=facade.get_initial_design(scenario, n_configs=0),
            intensifier=facade.get_intensifier(scenario, max_config_calls=1),
            config_selector=facade.get_config_selector(scenario, retrain_after=1),
            logging_level=False,
        )
        with _at_once(smac.runhistory):
            for configuration, cost, status in history:
                smac.runhistory.add(configuration, cost, status=status, seed=0)
            for configuration in pending:
                smac.runhistory.add_running_trial(TrialInfo(configuration, seed=0))
        tried = set(smac.runhistory.get_configs())
        try:
            # Without any result to learn from SMAC draws at random, whatever is running.
            for proposed in islice(smac.intensifier.config_generator, _MAX_ATTEMPTS):
                configuration = settle(proposed)
                if configuration not in tried:
                    return configuration
        except ConfigurationSpaceExhaustedException:
            pass
    # SMAC gives up after some random draws, while the last configurations may still be untried.
    rng = np.random.RandomState(seed)
    left = [
        c
        for c in enumerate_configurations(configspace, _MAX_ENUMERATION)
        if c not in tried and settle(c) == c
    ]
    if left:
        return left[rng.randint(len(left))]
    return None


@contextmanager
def _at_once(history: RunHistory) -> Iterator[None]:
    """Tell SMAC of many trials and have it look at them once.

    For each trial it looks for the lowest and the highest cost of all, which makes the time
    quadratic, and tries to write the trial as JSON, though nothing is saved.
    """
    slow = ("_update_objective_bounds", "_check_json_serializable")
    vars(history).update(dict.fromkeys(slow, lambda *_: None))
    yield
    for name in slow:
        del vars(history)[name]
    history._update_objective_bounds()


def _design_point(configspace: ConfigurationSpace, seed: int, index: int) -> Configuration | None:
    """Return the point of SMAC's Sobol design for a trial, or None if there are fewer points.

    The index is the trial's number without repeats of killed ones: two workers never have the same
    one, unless one of them repeats what was killed. Points that fall on the same configuration of a
    discrete space count once, so that they never propose the same either.
    """
    n_configs = 1 << max(4, index.bit_length())
    while n_configs <= 64 * (index + 1):
        with _quiet_smac():
            scenario = Scenario(configspace, seed=derive_seed(seed, "design"), n_trials=n_configs)
            design = SobolInitialDesign(scenario, n_configs=n_configs, max_ratio=1.0)
            points = design.select_configurations()
        if index < len(points):
            return points[index]
        n_configs *= 2
    return None


@contextmanager
def _quiet_smac() -> Iterator[None]:
    """Keep SMAC's own messages, which are about runs of its own, from the user's log."""
    logger = logging.getLogger("smac")
    with _SMAC_LOCK:
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _other_trials(
    study: Study, trial: FrozenTrial, *, use_cache: bool = False
) -> list[FrozenTrial]:
    """Return all other trials by number, as the storage has them at this moment.

    Without those that were killed and are repeated, of which an uninterrupted study has none.

    With ``use_cache``: as Optuna first read them for this trial.
    """
    trials = cached_trials(study) if use_cache else fresh_trials(study)
    left_out = {trial.number, *interrupted_trials(trials)}
    return sorted((t for t in trials if t.number not in left_out), key=lambda t: t.number)


def _params(trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return what a trial was run with; for an unfinished one also what it is about to be."""
    if trial.state.is_finished():
        return trial.params
    stored = trial.system_attrs.get(_PROPOSAL_KEY)  # which anybody may have written
    proposed = {
        name: search_space[name].to_external_repr(internal)
        for name, internal in (stored.items() if isinstance(stored, dict) else ())
        if name in search_space
        and isinstance(internal, (int, float))
        and abs(internal) <= _MAX_VALUE
        and search_space[name]._contains(internal)
    }
    return {**proposed, **fixed_params(trial), **trial.params}


def _internal(
    params: Mapping[str, Any], search_space: Mapping[str, BaseDistribution]
) -> dict[str, float]:
    """Return the parameters of the search space in Optuna's internal representation."""
    return {
        name: distribution.to_internal_repr(params[name])
        for name, distribution in search_space.items()
        if name in params
    }


def _known(
    trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
) -> dict[str, float] | None:
    """Return a trial's configuration in internal representation, None if it has another space."""
    try:
        return _internal(_params(trial, search_space), search_space)
    except (ValueError, OverflowError):  # somebody may have enqueued anything
        return None
