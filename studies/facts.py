"""Facts of a study, computed from its stored trials: for the final table, ``status`` and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from fractions import Fraction
import json
import re
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.best import values_run
from objective.failure import INFEASIBLE
from objective.testbed.metric import Metric
from samplers._trials.internals import first_number
from samplers._trials.internals import interrupted_trials
from studies.budget import Budget
from studies.budget import is_evaluated
from studies.budget import is_failed
from studies.budget import is_interrupted
from studies.budget import is_ok
from studies.library import evaluated_trials
from studies.library import is_library_study
from studies.library import metric_of


# User attribute of a study: why its run ended before its budget was used up; None once it goes on.
RUN_ERROR = "run_error"
# User attribute of a repetition: the number of the trial that it repeats.
REPEATS = "repeats_trial"
REPLACED = ("llm-screened", "llm-error", "llm-duplicate")  # for whose proposal another was run
LLM_SOURCES = ("llm", *REPLACED)
_COSTS = re.compile(r"sec|time|speed|per_|mem|_mb|llm", re.I)  # numbers that differ anyway
_NUMBER = re.compile(r"0x[\da-f]+|-?\d[\d.]*(?:e[-+]?\d+)?", re.I)
_MANY = 5  # failures of one kind, before they are said to be many
_COARSE = 10_000  # denominator up to which a value may be a share of few cases, as an accuracy is
# Configurations with one and the same result, before that is no chance: of any value, of a coarse one.
_ALIKE, _COARSE_ALIKE = 3, 6


def best_trial(trials: Sequence[FrozenTrial], metric: Metric) -> FrozenTrial | None:
    """Return the measured trial with the best value; a failure value is no measurement."""
    return min(
        filter(is_ok, trials), key=lambda t: (metric.cost(t.values[0]), t.number), default=None
    )


def common_result(trials: Sequence[FrozenTrial]) -> float | None:
    """Return the value of all successes, if several configurations came to the same results.

    Then the configurations hardly reach the training. It is None where this may be chance: of a few
    with a coarse value, and where another number that was printed differs.
    """
    ok = list(filter(is_ok, trials))
    if len({t.values[0] for t in ok}) != 1:
        return None
    value = ok[0].values[0]
    is_coarse = float(Fraction(value).limit_denominator(_COARSE)) == value
    first = ok[0].user_attrs
    names = [n for n, x in first.items() if type(x) is float and not _COSTS.search(n)]
    if any(t.user_attrs.get(name) != first[name] for t in ok for name in names):
        return None
    configurations = {json.dumps(values_run(t), sort_keys=True) for t in ok}
    return value if len(configurations) >= (_COARSE_ALIKE if is_coarse else _ALIKE) else None


def configuration(trial: FrozenTrial) -> str:
    """Identify what a trial ran: its parameters, or the source that a code agent wrote.

    It is the trial itself where nothing is known of either.
    """
    run = values_run(trial)
    params = json.dumps(run, sort_keys=True) if run else f"trial {trial.number}"
    return str(trial.user_attrs.get("source_sha256") or params)


def commonest(failures: Iterable[tuple[str, str]]) -> list[int]:
    """Return which of these failures are of the commonest kind, by their places.

    They are given by status and reason, and of one kind if their reasons differ in numbers only.
    None of several is the commonest if each is of another kind; a failure that is alone is.
    """
    kinds: dict[tuple[str, str], list[int]] = {}
    for place, (status, reason) in enumerate(failures):
        kinds.setdefault((status, _NUMBER.sub("0", reason)), []).append(place)
    alike = max(kinds.values(), key=len, default=[])
    return [] if len(alike) == 1 < len(kinds) else alike


def common_failure(trials: Sequence[FrozenTrial]) -> dict[str, Any] | None:
    """Return the `commonest` kind of the failures that say why, with its last reason, if there is one.

    ``is_usual`` says that it is what becomes of at least half of the trials.
    """
    failed = [t for t in trials if is_failed(t) and t.user_attrs.get("reason")]
    reasons = [str(t.user_attrs["reason"]) for t in failed]
    alike = commonest(zip(map(trial_status, failed), reasons))
    if not alike:
        return None
    last = failed[alike[-1]]
    return {
        "status": trial_status(last),
        "reason": reasons[alike[-1]],
        "trial": last.number,
        "trials": len(alike),
        "is_usual": len(alike) >= max(_MANY, sum(map(is_evaluated, trials)) / 2),
    }


def baseline_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the run of the script's own values: trial 0, or what was run instead of it.

    That is its repetition if it was interrupted, or if it failed and the script was mended.
    """
    found = [t for t in trials if is_evaluated(t) and first_number(t) == 0]
    return next(filter(is_ok, found), found[-1] if found else None)


def known_baseline(
    trials: Sequence[FrozenTrial], attributes: Mapping[str, Any]
) -> FrozenTrial | None:
    """Return the run of the script's own values; None where the study doesn't say which it is.

    The first trial of another program may be anything, unless it was given; repetitions have none.

    Args:
        trials: Of the study, as `evaluated_trials` returns them.
        attributes: The study's user attributes.
    """
    if is_library_study(attributes) or "revalidates" in attributes:
        return None
    found = baseline_trial(trials)
    if found is not None and "imported_from" in attributes:
        return found if found.user_attrs.get("source") == "enqueued" else None
    return found


def llm_turns(trials: Sequence[FrozenTrial]) -> int:
    """Count the evaluated trials that the language model was to decide."""
    return sum(is_evaluated(t) and t.user_attrs.get("source") in LLM_SOURCES for t in trials)


def llm_total(trials: Sequence[FrozenTrial], key: str) -> float:
    """Sum a user attribute over a study's trials, counting one that was repeated only once."""
    # What repeats a trial has all that was noted on it, too.
    repeated = interrupted_trials(trials)
    return sum(t.user_attrs.get(key, 0) for t in trials if t.number not in repeated)


def run_state(attrs: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> str:
    """Return the state of a study with respect to its budget.

    ``missing`` before its first trial (``empty`` if another program made it), ``running``,
    ``failed`` (and ``RUN_ERROR`` says why), ``done``, or ``stopped`` in between. A run that was
    killed looks as if it were running until its command is given again.
    """
    if any(t.state == TrialState.RUNNING for t in trials):
        return "running"
    if attrs.get(RUN_ERROR):
        return "failed"
    if not trials:
        return "empty" if is_library_study(attrs) else "missing"
    budget = Budget.of(attrs)
    if not budget.is_limited:
        # Studies of other programs don't tell of a budget: what they queued is all there is to do.
        is_done = all(t.state != TrialState.WAITING for t in trials)
    else:
        is_done = budget.is_used_up(trials)
    return "done" if is_done else "stopped"


def trial_status(trial: FrozenTrial) -> str:
    """Return ``ok``, the class of a failure, or Optuna's state if nobody said."""
    return str(trial.user_attrs.get("status", trial.state.name.lower()))


def trial_facts(trial: FrozenTrial | None, metric: str) -> dict[str, Any] | None:
    """Describe a trial for JSON: its value is under the metric's name, None if it failed."""
    if trial is None:
        return None
    attrs = trial.user_attrs
    return {
        "trial": trial.number,
        "status": attrs.get("status"),
        metric: trial.value if is_ok(trial) else None,
        "source": attrs.get("source"),
        "params": values_run(trial),
    }


def study_facts(
    study: optuna.Study,
    best_of: Callable[
        [Sequence[FrozenTrial], Metric, Mapping[str, Any]], FrozenTrial | None
    ] = lambda trials, metric, attributes: best_trial(trials, metric),
) -> dict[str, Any]:
    """Everything that ``status --json`` says of a study.

    ``trials`` counts by Optuna's state, where trials that were killed or interrupted (and are
    tried again) are ``interrupted`` and not ``fail``. ``failures`` counts the evaluated trials by
    class, and ``common_failure`` is what `common_failure` returns. ``state`` is `run_state`. ``charged_seconds`` is what counts against ``--budget``.
    ``llm`` sums over all trials; what a repeated one was asked counts once.
    ``params`` are the values that were really run. ``best`` is what ``best_of`` returns of the
    trials, the metric and the study's attributes; repetitions of another study's trials have none.
    """
    trials = evaluated_trials(study)
    metric = metric_of(study)
    evaluated = [t for t in trials if is_evaluated(t)]
    states = Counter("interrupted" if is_interrupted(t) else t.state.name.lower() for t in trials)
    failures = Counter(trial_status(t) for t in evaluated if is_failed(t))
    pruned = states.get("pruned", 0)
    infeasible = sum(trial_status(t) == INFEASIBLE for t in evaluated)
    sources = Counter(t.user_attrs["source"] for t in evaluated if "source" in t.user_attrs)
    turns = llm_turns(trials)
    # The luckiest repetition, perhaps of another trial than the best one, would say nothing.
    is_repetition = "revalidates" in study.user_attrs
    best = None if is_repetition else best_of(trials, metric, study.user_attrs)

    return {
        **study.user_attrs,  # which may have any names
        "study": study.study_name,
        "metric": metric.name,
        "direction": metric.direction,
        "objectives": len(study.directions),
        "state": run_state(study.user_attrs, trials),
        "trials": dict(states),
        "evaluated": len(evaluated),
        "ok": len(evaluated) - sum(failures.values()) - pruned - infeasible,
        "pruned": pruned,
        "infeasible": infeasible,
        "failed": sum(failures.values()),
        "failures": dict(failures),
        "common_failure": common_failure(trials),
        "best": trial_facts(best, metric.name),
        "baseline": trial_facts(known_baseline(trials, study.user_attrs), metric.name),
        "charged_seconds": round(Budget.of(study.user_attrs).spent(trials), 3),
        "sources": dict(sources),
        "llm": {
            "turns": turns,
            "share": round(turns / len(evaluated), 4) if evaluated else 0.0,
            "requests": llm_total(trials, "llm_attempts"),
            "prompt_tokens": llm_total(trials, "llm_prompt_tokens"),
            "cached_tokens": llm_total(trials, "llm_cached_tokens"),
            "completion_tokens": llm_total(trials, "llm_completion_tokens"),
            "seconds": round(llm_total(trials, "llm_seconds"), 3),
        },
    }
