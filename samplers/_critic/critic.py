"""Judge candidates by what a study's trials came to.

Of many candidates the one is run that promises most: the log expected improvement over the best
predicted value of what was run, plus the log probabilities that it satisfies the constraints and,
twice, that it does not fail.

What a `Critic` says is a function of the stored trials, so that one in another process, or of a
resumed study, says the same. Hyperparameters are fitted to the first m successes, where m grows in
steps, and always from the same start: fitted from one trial to the next they would depend on which
process saw which trials.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import numpy as np

from .._trials.history import tolerant
from .candidates import child_rows
from .candidates import random_rows
from .candidates import start_rows
from .candidates import step_rows
from .encoding import Encoder
from .shapes import Shapes
from .space import Space
from .targets import to_targets
from .trials import read_trials


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.history import Derived
    from .._trials.history import Rule
    from .constraints import Constraints
    from .failures import Failures
    from .gp import GaussianProcess
    from .trials import Trials

# Trials that a model is made of, at most: the best and the latest. A suggestion then costs the
# same after 300 and after 10,000.
_MAX_TRIALS = 300
# Trials that hyperparameters are fitted to, at most, and from one fit to the next per hundred there
# are. A fit takes some fifty times as long as a model with given hyperparameters.
_MAX_FITTED = 150
_FIT_EVERY = 5
# How much a probable failure counts: what P(ok) is raised to.
_CAUTION = 2.0
# Best trials that steps begin at, and the share of steps that begin between two of them.
_N_BASES = 8
_CHILDREN = 1 / 3
# Values of a number that its sensitivity is read off.
_N_PLACES = 11
# Inputs that agree to so many decimals are the same configuration.
_DECIMALS = 6


class Critic:
    """Makes judges of studies.

    Args:
        rule: The objective's own rule: parameters in, the values that are really run out.
        derived: Parameters, as they are really run, in; further numbers out that the value may
            depend on, such as a width that is a product.
    """

    def __init__(self, *, rule: Rule | None = None, derived: Derived | None = None) -> None:
        self._rule, self._derived = rule, derived

    def judge(
        self, study: Study, trial: FrozenTrial, distributions: Mapping[str, BaseDistribution]
    ) -> Judge:
        """A judge that knows the study's trials as they are now.

        Args:
            study: Single-objective.
            trial: The running trial that candidates are for.
            distributions: The search space; parameters of a single value are left out.
        """
        return Judge(
            Space(distributions),
            read_trials(study, trial, distributions),
            rule=tolerant(self._rule, study, "rule"),
            derived=tolerant(self._derived, study, "derived"),
        )


class Judge:
    """Chooses among candidates, by the trials that it was made of.

    Args:
        space: The search space.
        trials: Those that were run, or are.
        rule: See `Critic`.
        derived: See `Critic`.
    """

    def __init__(
        self,
        space: Space,
        trials: Trials,
        *,
        rule: Rule | None = None,
        derived: Derived | None = None,
    ) -> None:
        self._space = space
        self._encoder = Encoder(space, trials.configurations, rule=rule, derived=derived)
        X = self._encoder.inputs(trials.configurations)
        self._known = set(_keys(X))
        self._values, self._best = _model_of_values(trials, X)
        # What can go wrong, and how much that counts.
        self._risks = [
            (model, weight)
            for model, weight in (
                (_model_of_failures(trials, X), _CAUTION),
                (_model_of_constraints(trials, X), 1.0),
            )
            if model is not None
        ]
        good = np.flatnonzero(~np.isnan(trials.values) & trials.feasible)
        ranked = good[np.argsort(trials.values[good], kind="stable")]
        seen = [trials.configurations[i] for i in ranked[:_MAX_TRIALS]]
        rows = space.rows(seen)
        self._bases = rows[:_N_BASES]
        self._shapes = Shapes(rows, space.is_discrete)

    def steps(self, n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Candidates some steps from the best trials; random ones if no trial was good."""
        if not len(self._bases):
            return self.random(n, rng)
        n_children = int(n * _CHILDREN)
        steps = step_rows(self._space, self._bases, n - n_children, rng)
        children = child_rows(self._space, self._bases, n_children, rng)
        return self._shaped(np.concatenate([steps, children]))

    def start(self, n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Candidates for the first trials: from all of the search space, and from its middle."""
        return self._shaped(start_rows(self._space, n, rng))

    def random(self, n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Candidates from all of the search space."""
        return self._shaped(random_rows(self._space, n, rng))

    def _shaped(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Rows as configurations, each with the parameters that it is going to have."""
        configurations = self._space.configurations(rows)
        if not self._shapes.vary:
            return configurations
        rows = self._shapes.fit(self._space.rows(configurations))
        return self._space.configurations(rows)

    def exclude(self, configurations: Sequence[Mapping[str, Any]]) -> None:
        """Take configurations for known that began to run after this judge was made."""
        self._known.update(_keys(self._encoder.inputs(configurations)))

    def is_new(self, configuration: Mapping[str, Any]) -> bool:
        """Whether a configuration was not run and does not run already."""
        return _keys(self._encoder.inputs([configuration]))[0] not in self._known

    def choose(self, candidates: Sequence[Mapping[str, Any]]) -> int | None:
        """Which candidate promises most, of those that were not run and do not run already.

        Args:
            candidates: Configurations.

        Returns:
            Its index; None if all of them are known.
        """
        new, X = self._new(candidates)
        return new[int(np.argmax(self._score(X)))] if new else None

    def first_safe(self, candidates: Sequence[Mapping[str, Any]]) -> int | None:
        """The first new candidate that is likelier not to fail than to; the safest, if none is.

        For trials that are to be random: the most promising of random candidates are those far
        from all that was run, in the corners, and tell little.

        Args:
            candidates: Configurations.

        Returns:
            Its index; None if all of them are known.
        """
        new, X = self._new(candidates)
        if not new:
            return None
        log_p_ok = np.zeros(len(new))
        for model, _ in self._risks:
            log_p_ok += model.log_p_ok(X)
        safe = np.flatnonzero(log_p_ok > np.log(0.5))
        return new[int(safe[0] if len(safe) else np.argmax(log_p_ok))]

    def _new(self, candidates: Sequence[Mapping[str, Any]]) -> tuple[list[int], np.ndarray]:
        """Indices of the candidates that were not run and do not run already, and their inputs."""
        X = self._encoder.inputs(candidates)
        new = [i for i, key in enumerate(_keys(X)) if key not in self._known]
        return new, X[new]

    def sensitivities(self, configuration: Mapping[str, Any]) -> dict[str, float]:
        """How much each parameter matters around a configuration, the one that matters most first.

        That is by how much the prediction varies while one parameter goes through its range and the
        others stay, as a share of the sum of all parameters.

        Returns:
            Shares by name; none if nothing was run or nothing matters.
        """
        if self._values is None:
            return {}
        (row,) = self._space.rows([configuration])
        spans = {}
        for j, name in enumerate(self._space.names):
            n_choices = int(self._space.n_choices[j])
            places = np.arange(n_choices) if n_choices else np.linspace(0, 1, _N_PLACES)
            rows = np.tile(row, (len(places), 1))
            rows[:, j] = places
            X = self._encoder.inputs(self._space.configurations(rows))
            spans[name] = float(np.ptp(self._values.predict(X)[0]))
        total = sum(spans.values())
        if not total > 0:
            return {}
        return {n: spans[n] / total for n in sorted(spans, key=lambda n: -spans[n])}

    def _score(self, X: np.ndarray) -> np.ndarray:
        """What m inputs promise, (m, d) -> (m,)."""
        score = np.zeros(len(X))
        if self._values is not None:
            from .acquisition import log_expected_improvement

            score += log_expected_improvement(*self._values.predict(X), self._best)
        for model, weight in self._risks:
            score += weight * model.log_p_ok(X)
        return score


def _model_of_values(trials: Trials, X: np.ndarray) -> tuple[GaussianProcess | None, float]:
    """A model of the successes, and the best value that it predicts of what was run or runs."""
    good = np.flatnonzero(~np.isnan(trials.values))
    if not len(good):
        return None, 0.0
    # A study's first suggestion has no model, and takes less time than importing SciPy.
    from .gp import fit
    from .gp import GaussianProcess

    # What violates a constraint has a value to learn from, but is none to improve on.
    merit = np.where(trials.feasible, trials.values, np.inf)
    head = good[: _fitted(len(good))]
    head = head[_subset(merit[head], _MAX_FITTED)]
    theta = fit(X[head], to_targets(trials.values[head]))
    seen = good[_subset(merit[good])]
    targets = to_targets(trials.values[seen])
    process = GaussianProcess(X[seen], targets, theta)
    best = float(process.predict(X[seen[trials.feasible[seen]]])[0].min())
    running = np.flatnonzero(trials.running)
    if len(running):
        # As if they had come to what is expected of them: nothing near them is new any more.
        expected, _ = process.predict(X[running])
        seen = np.concatenate([seen, running])
        process = GaussianProcess(X[seen], np.concatenate([targets, expected]), theta)
        if not trials.constraints.shape[1]:  # else it may be where nothing is to be improved on
            best = min(best, float(expected.min()))
    return process, best


def _model_of_failures(trials: Trials, X: np.ndarray) -> Failures | None:
    """A model of which trials failed; None if none did."""
    if not trials.failed.any():
        return None
    from .failures import Failures
    from .failures import fit_failures

    known = np.flatnonzero(trials.failed | ~np.isnan(trials.values))
    head = _labelled(trials, known[: _fitted(len(known))], _MAX_FITTED)
    theta = fit_failures(X[head], trials.failed[head])
    seen = _labelled(trials, known, _MAX_TRIALS)
    return Failures(X[seen], trials.failed[seen], theta)


def _model_of_constraints(trials: Trials, X: np.ndarray) -> Constraints | None:
    """A model of how far trials are from violating constraints; None if that isn't known."""
    known = np.flatnonzero(~np.isnan(trials.constraints).any(axis=1))
    if not len(known) or not trials.constraints.shape[1]:
        return None
    from .constraints import Constraints
    from .constraints import excess
    from .constraints import fit_constraints

    C = trials.constraints
    head = known[: _fitted(len(known))]
    head = head[_subset(np.abs(excess(C[head])), _MAX_FITTED)]  # what is near the border
    theta = fit_constraints(X[head], C[head])
    seen = known[_subset(np.abs(excess(C[known])))]
    return Constraints(X[seen], C[seen], theta)


def _labelled(trials: Trials, known: np.ndarray, size: int) -> np.ndarray:
    """Of trials that failed or did not, the latest failures and as many others or more."""
    bad = known[trials.failed[known]][-(size // 2) :]
    good = known[~trials.failed[known]]
    good = good[_subset(trials.values[good], size - len(bad))]
    return np.sort(np.concatenate([bad, good]))


def _fitted(n: int) -> int:
    """How many of n trials, the first ones, hyperparameters are fitted to."""
    every = _FIT_EVERY * max(1, n // 100)
    return max(1, n - n % every)


def _subset(values: np.ndarray, size: int = _MAX_TRIALS) -> np.ndarray:
    """Indices of the best half and the latest half of a model, in order; of all if they fit."""
    n = len(values)
    if n <= size:
        return np.arange(n)
    best = np.argsort(values, kind="stable")[: size // 2]
    others = np.setdiff1d(np.arange(n), best)
    return np.sort(np.concatenate([best, others[-(size - len(best)) :]]))


def _keys(X: np.ndarray) -> list[bytes]:
    """What is equal for inputs that are the same configuration, one for each row."""
    return [row.tobytes() for row in np.round(X, _DECIMALS) + 0.0]  # -0.0 is 0.0
