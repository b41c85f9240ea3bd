"""What CMA-ES has learned of a study, and what it is to learn of trials that others proposed.

CmaEsSampler reads its optimizer and its population from the trials of a study. It is given a view
of the study instead, with the optimizer that goes on and the trials of a generation that is due
(``population.py``); what it then stored is read back here: for the model, for the critic's
candidates, and to say where the point lies that was run in place of its own sample.
"""

from __future__ import annotations

from typing import Any
from typing import cast
from typing import Literal
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState

from .._trials.history import is_failure
from .._trials.history import violation
from .._trials.internals import cached_trials
from .._trials.internals import set_system_attr
from .._trials.internals import stored_trial
from .internals import CmaStore
from .internals import POINT_TO_TELL
from .internals import StudyView
from .population import carriers
from .population import current_generation
from .population import Generation
from .population import LATE_KEY
from .population import population
from .prompt import describe_state
from .screening import cma_samples
from .screening import N_SAMPLES
from .state import default_population_size
from .state import read_state
from .state import UnitCube


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.stored_cma import CheckedCmaEsSampler
    from .state import CmaState

# Mean standard deviation, as a share of the ranges, from which on CMA-ES's mean says something; it
# starts with a sixth.
_NARROW = 0.12

# Generations whose step size the model is told.
_N_STEPS = 5


class CmaLearning:
    """What a CmaEsSampler is shown of a study, and what it stored there.

    Args:
        sampler: The sampler that learns.
        learn_from_llm: As in ``CentaurSampler``.
        heeds_constraints: Whether a trial that violates a constraint is ranked last.
        starts_anywhere: Whether it starts without trials of another study.
        popsize: As in CmaEsSampler.
        with_margin: As in CmaEsSampler.
    """

    def __init__(
        self,
        sampler: CheckedCmaEsSampler,
        *,
        learn_from_llm: Literal["clipped", "all"],
        heeds_constraints: bool,
        starts_anywhere: bool,
        popsize: int | None,
        with_margin: bool,
    ) -> None:
        self.starts_anywhere = starts_anywhere
        self._store = CmaStore(sampler)
        self._learn_from_llm = learn_from_llm
        self._heeds_constraints = heeds_constraints
        self._popsize = popsize
        self._with_margin = with_margin
        self._joint_space = IntersectionSearchSpace()

    def common_space(self, study: Study) -> dict[str, BaseDistribution]:
        """The parameters that all completed trials share, without those of a single value.

        With the same ranges, as in CmaEsSampler. Trials without any parameter don't count.
        """
        trials = [t for t in cached_trials(study) if t.params or not t.state.is_finished()]
        space = self._joint_space.calculate(cast("Study", StudyView(study, trials)))
        return {name: d for name, d in space.items() if not d.single()}

    def view(
        self, study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]
    ) -> Study:
        """The study as CmaEsSampler is to see it when it samples a trial."""
        cube = UnitCube(space, with_margin=self._with_margin)
        seen, late = self._trials_to_learn(study, trial, cube)
        if late:
            # Before the optimizer, so that whoever finds that one finds this too.
            set_system_attr(study, trial, LATE_KEY, late)
        return cast("Study", StudyView(study, seen))

    def _trials_to_learn(
        self, study: Study, trial: FrozenTrial, cube: UnitCube
    ) -> tuple[list[FrozenTrial], list[int]]:
        """The trials that CmaEsSampler is to see, and those that this leaves for later.

        Returns:
            The trials; and, if they close a generation, the numbers of the others until now that
            are still running or were not needed.
        """
        if self._learn_from_llm == "all":
            return self._store.learnable(study), []
        generation = current_generation(cached_trials(study), self._store)
        carrier = generation.carrier
        # CmaEsSampler starts when one trial is COMPLETE.
        source = carrier or first_complete(study)
        if source is None:
            return [], []
        seen = self._store.optimizer_alone(source)

        size = self._popsize or default_population_size(len(cube.space))
        if len(generation.members) < size:
            return [seen], []
        successes = [
            t
            for t in self._store.learnable(cast("Study", StudyView(study, generation.members)))
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
        """Whether CMA-ES ranks a trial last."""
        return is_failure(trial) or (self._heeds_constraints and violation(trial) > 0)

    def _state(self, study: Study, carrier: FrozenTrial | None, cube: UnitCube) -> CmaState:
        """CMA-ES's state as stored on a trial; with ``None`` the one that it starts with."""
        return read_state(self._store.optimizer(carrier, cube.transform, study.direction))

    def tell_point(
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
        known = {n: d for n, d in numerical(self.common_space(study)).items() if n in space}
        if generation is None or not known:
            return None
        cube = UnitCube(known, with_margin=self._with_margin)
        trials = [running if t.number == trial.number else t for t in cached_trials(study)]
        until_now = range(generation + 1)
        trials = [t for t in trials if self._store.generation(t) in until_now]
        optimizers = list(carriers(trials, self._store).values())
        states = [self._state(study, carrier, cube) for carrier in optimizers[-n:]]
        if len(states) < n:
            states.insert(0, self._state(study, None, cube))
        return cube, states, current_generation(trials, self._store)

    def describe(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Mapping[str, BaseDistribution],
        base: Mapping[str, Any],
        only_if_narrow: bool,
    ) -> str:
        """CMA-ES's state as text, see ``TrialPrompt.build``; ``""`` while it has learned nothing.

        A mean whose standard deviations are still those of the start says nothing, and misleads a
        model that others do the small steps for.
        """
        stored = self._stored_states(study, trial, space, _N_STEPS)
        if stored is None:
            return ""
        cube, states, generation = stored
        if states[-1].generation == 0 and self.starts_anywhere:
            return ""
        if only_if_narrow and np.mean(states[-1].standard_deviations) > _NARROW:
            return ""
        return describe_state(
            states,
            cube,
            space,
            evaluated=len(generation.members),
            proposal=base,
        )

    def samples(
        self,
        study: Study,
        trial: FrozenTrial,
        best: Sequence[FrozenTrial],
        space: Mapping[str, BaseDistribution],
        rng: np.random.Generator,
    ) -> list[dict[str, Any]]:
        """Samples of CMA-ES's present distribution; none if it has not started."""
        stored = self._stored_states(study, trial, space)
        if stored is None or not best:
            return []
        cube, states, _ = stored
        known = [{n: v for n, v in t.params.items() if n in space} for t in best]
        return cma_samples(states[-1], cube, known, space, N_SAMPLES, rng)


def first_complete(study: Study) -> FrozenTrial | None:
    """The first trial of a study that is COMPLETE."""
    return next((t for t in cached_trials(study) if t.state == TrialState.COMPLETE), None)


def numerical(space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """The parameters of a search space that CMA-ES samples."""
    return {n: d for n, d in space.items() if not isinstance(d, CategoricalDistribution)}
