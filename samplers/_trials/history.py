"""Reading of a study's stored trials: which failed and how, which are the best.

One place decides what a failed trial is, so that every sampler treats failures alike whether the
objective returns a failure value (the trial is COMPLETE) or raises (it is FAIL).
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
from typing import Any
from typing import Literal
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.trial import TrialState

from .internals import cached_trials
from .internals import interrupted_trials


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial

    # The objective's own rule: parameters in, the values that are really run out; names that it
    # leaves out are unchanged.
    Rule = Callable[[Mapping[str, Any]], Mapping[str, Any]]
    # Parameters as they are run in, further numbers that the value may depend on out.
    Derived = Callable[[Mapping[str, Any]], Mapping[str, float]]

# Classes of failure that an objective may give as the user attribute ``status``. A study may have
# an attribute of that name for something else, whose values then tell nothing here.
FAILURES = ("oom", "nan", "timeout", "crash", "killed", "no-metric", "rejected", "unknown")

_INTERRUPTED = "interrupted"  # a ``status``, too, which `objective` gives after Ctrl-C

_LARGEST = 1e300  # of a stored number; an integer may have more digits than a float can be


def is_failure(trial: FrozenTrial) -> bool:
    """Whether the evaluation of a finished trial went wrong.

    Its state is FAIL, or its user attribute ``status`` is one of ``FAILURES``, or its value is not
    a finite number. A pruned trial was stopped on purpose and is no failure, unless the last value
    that it reported is not a finite number.
    """
    if trial.state == TrialState.FAIL:
        return True
    if trial.state == TrialState.PRUNED:
        step = trial.last_step
        return step is not None and not math.isfinite(trial.intermediate_values[step])
    if trial.state != TrialState.COMPLETE:
        return False
    if _status(trial):
        return True
    return not all(math.isfinite(value) for value in trial.values)


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial was stopped by its user, as its user attribute ``status`` says.

    Optuna itself leaves a FAIL trial after Ctrl-C as it does after an error.
    """
    return trial.state == TrialState.FAIL and trial.user_attrs.get("status") == _INTERRUPTED


def failure_class(trial: FrozenTrial) -> str:
    """Return a failed trial's class of failure: its ``status``, else ``nan`` or ``failed``.

    Raises:
        ValueError: If the trial did not fail.
    """
    if not is_failure(trial):
        raise ValueError(
            f"A failed trial is needed, but got trial {trial.number} ({trial.state})."
        )
    return _status(trial) or ("failed" if trial.state == TrialState.FAIL else "nan")


def _status(trial: FrozenTrial) -> str:
    status = trial.user_attrs.get("status")
    return status if isinstance(status, str) and status in FAILURES else ""


def finished_trials(study: Study) -> list[FrozenTrial]:
    """Return the evaluated trials by number: COMPLETE, PRUNED and FAIL.

    Left out are FAIL trials that say nothing of their parameters: those without any, which broke
    before anything was evaluated, and those that were interrupted, as the storage knows, which has
    queued them again, or their ``status`` says.

    They are as Optuna first read them for the trial that is being sampled.
    """
    trials = cached_trials(study)
    repeated = interrupted_trials(trials)
    return [
        t
        for t in trials
        if t.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (
            t.state == TrialState.FAIL
            and t.params
            and t.number not in repeated
            and not is_interrupted(t)
        )
    ]


def violation(trial: FrozenTrial) -> float:
    """Return by how much a trial's constraints are violated, 0 if none is."""
    constraints = map(number, trial.constraints.values())
    # What can't be computed is not satisfied.
    return limited(sum(c if 0 < c < math.inf else 1e100 for c in constraints if not c <= 0))


def number(stored: Any) -> float:
    """Return what was stored as a float; NaN if it is none, for anybody may store anything."""
    try:
        return float(stored)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def limited(value: float) -> float:
    """Return a value as one of a size that can be calculated with."""
    return min(max(value, -_LARGEST), _LARGEST)


def sign_of(direction: StudyDirection) -> float:
    """Return what values are multiplied by so that lower is better."""
    return -1.0 if direction == StudyDirection.MAXIMIZE else 1.0


def successes(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the COMPLETE trials that did not fail, feasible or not."""
    return [t for t in trials if t.state == TrialState.COMPLETE and not is_failure(t)]


def ranked(study: Study, trials: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
    """Return the feasible successes, the best first, of equal ones the older.

    As long as there is none, all are returned, those first that violate their constraints least.

    Args:
        study: The study.
        trials: Some of its finished trials, instead of all.
    """
    sign = sign_of(study.direction)
    finished = finished_trials(study) if trials is None else trials
    found = successes(finished)
    feasible = [t for t in found if not violation(t)]
    return sorted(feasible or found, key=lambda t: (violation(t), sign * t.values[0], t.number))


def outcome(trial: FrozenTrial) -> str:
    """Return one word for a finished trial that is none of the `ranked`; its class of failure."""
    if is_failure(trial):
        return failure_class(trial)
    return "pruned" if trial.state == TrialState.PRUNED else "infeasible"


def latest_failures(failures: Sequence[FrozenTrial], n: int) -> list[FrozenTrial]:
    """Return the latest failure of each `outcome`, then the latest of all.

    Args:
        failures: Failed, pruned and infeasible trials by number.
        n: How many at most.
    """
    latest = {outcome(t): t.number for t in failures}  # a later one replaces it
    first = set(latest.values())
    return sorted(failures, key=lambda t: (t.number not in first, -t.number))[:n]


def effective_params(trial: FrozenTrial, rule: Rule | None = None) -> dict[str, Any]:
    """Return the values that a trial was run with, in the order of its parameters.

    They are what ``rule`` makes of the suggested ones, or, without a rule, the suggested ones
    overlaid with the JSON object that the objective stored as ``effective``; an attribute of that
    name that is none tells nothing, and neither does a value that is no number of a parameter that
    is one. Names that are not parameters of the trial are left out.
    """
    if rule is not None:
        changed = rule(trial.params)
    else:
        changed = {
            name: value
            for name, value in json_object(trial.user_attrs.get("effective")).items()
            if isinstance(trial.distributions.get(name), CategoricalDistribution)
            or (isinstance(value, (int, float)) and abs(value) <= _LARGEST)
        }
    return {name: changed.get(name, value) for name, value in trial.params.items()}


def tolerant(
    function: Callable[[Mapping[str, Any]], Any] | None,
    study: Study,
    name: Literal["rule", "derived"],
) -> Callable[[Mapping[str, Any]], Any] | None:
    """Make a user's ``rule`` or ``derived`` fit for configurations that are not complete.

    Those of trials that run, are queued or failed may lack parameters: a ``KeyError`` of one of
    them gives ``{}``. Parameters of a single value, which are in no search space, are added.

    A ``KeyError`` of one that has all parameters of a COMPLETE trial is raised, and so is a
    ``TypeError`` for what is no mapping or, of ``derived``, not one to numbers.
    """
    if function is None:
        return None
    trials = cached_trials(study)
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    # With conditional parameters: the one that has most of them.
    fullest = max(complete or trials, key=lambda t: len(t.params)) if trials else None
    distributions = fullest.distributions if fullest else {}
    singles = {
        name: d.choices[0] if isinstance(d, CategoricalDistribution) else getattr(d, "low", None)
        for name, d in distributions.items()
        if d.single()
    }

    def call(params: Mapping[str, Any]) -> Any:
        params = {**singles, **params}
        try:
            found = function(params)
        except KeyError:
            if complete and params.keys() >= distributions.keys():
                raise
            return {}
        if isinstance(found, Mapping) and (name == "rule" or all(map(_is_number, found.values()))):
            return found
        wanted = "values" if name == "rule" else "numbers"
        raise TypeError(
            f"`{name}` must return {wanted} by name, such as {{'x': 1.0}}, but returned {found!r}."
        )

    return call


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def not_shared(trials: Sequence[FrozenTrial], name: str) -> set[str]:
    """Return ``name`` and all other parameters that not all of these trials have, in one range.

    None if all have it, whose range has then just been changed: the next trial tells more.
    """
    common = intersection_search_space(list(trials), include_pruned=True)
    if not trials or name in common:
        return set()
    varied = {n for t in trials for n, d in t.distributions.items() if not d.single()}
    return {name} | varied - common.keys()


def json_object(text: Any) -> dict[str, Any]:
    """Read an object; ``{}`` if it is something else, since anybody may write attributes."""
    value = _from_json(text)
    return value if isinstance(value, dict) else {}


def json_list(text: Any) -> list[Any]:
    """Read a list; ``[]`` if it is something else."""
    value = _from_json(text)
    return value if isinstance(value, list) else []


def _from_json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
