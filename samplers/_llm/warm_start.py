"""The first trials of a study: several different configurations from one request.

The request belongs to a trial, whose system attribute keeps the configurations; the trials after it
run what is left of them. So a resumed study, threads and other processes go on with the same ones.
"""

from __future__ import annotations

import json
from typing import Any
from typing import TYPE_CHECKING

from .._trials.history import finished_trials
from .._trials.history import json_list
from .._trials.internals import cached_trials
from .._trials.internals import first_number
from .._trials.internals import fresh_trials
from .._trials.internals import number_without_repeats
from .._trials.internals import set_system_attr
from .prompt import fill
from .reply import json_values
from .reply import params_schema
from .reply import ReplyError
from .reply import to_params
from .reply import with_reason_first
from .values import fit_value
from .values import ValueRefused


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .reply import ParsedReply

# Configurations of a large model, where nothing else is said. More cost a model that knows only a
# part, or nothing, more than they bring one that knows (tests/benchmarks/strong_models.py).
N_FIRST = 3

_KEY = "llm:warm_start"
# A study with so many finished trials and no warm start has begun without one.
_MOST_FINISHED = 15

_QUESTION = """\
These are the first $which. Propose $n configurations that differ from each other: each \
one that you believe in from what is known of such experiments, together spread over what you are \
unsure of, structure and sizes above all.$fixed
Reply with a JSON object of "configurations", a list of $n; each gives first "$reason", why in a \
sentence, then a value for every parameter."""


def first_trials_left(study: Study, trial: FrozenTrial, n: int) -> int:
    """Return how many of the first ``n`` trials are left, this one included; 0: it is none.

    A trial counts from when it knows its search space: of workers that begin together some don't.
    What repeats a killed trial counts as that one.
    """
    if n == 0:
        return 0
    begun = any(_KEY in t.system_attrs for t in cached_trials(study))
    if not begun and len(finished_trials(study)) >= _MOST_FINISHED:
        return 0
    own = first_number(trial)

    def before(trials: Iterable[FrozenTrial]) -> int:
        return sum(n < own for n in {first_number(t) for t in trials if _KEY in t.system_attrs})

    if before(cached_trials(study)) >= n:
        return 0
    if _KEY not in trial.system_attrs:
        set_system_attr(study, trial, _KEY, "[]")
    return max(0, n - before(fresh_trials(study)))


def question(n: int, fixed: str, reason: str, n_trials: int | None) -> str:
    """Write the question for ``n`` configurations.

    Args:
        n: How many.
        fixed: A sentence on the values that are decided already, with a space before it, or ``""``.
        reason: Key of the reason in the reply.
        n_trials: Trials planned in all, if that is known.
    """
    which = "trials of the study" if n_trials is None else f"of {n_trials} trials"
    return fill(_QUESTION, n=n, fixed=fixed, reason=reason, which=which)


def configurations_schema(
    space: Mapping[str, BaseDistribution], n: int, reason_key: str | None
) -> dict[str, Any]:
    """Return the JSON schema of ``n`` whole configurations."""
    one = with_reason_first(params_schema(space), reason_key)
    return {
        "type": "object",
        "properties": {
            "configurations": {"type": "array", "minItems": n, "maxItems": n, "items": one}
        },
        "required": ["configurations"],
        "additionalProperties": False,
    }


def parse_configurations(
    text: str,
    space: Mapping[str, BaseDistribution],
    base: Mapping[str, Any],
    reason_key: str | None,
) -> list[ParsedReply]:
    """Read the configurations of a reply, whole ones of one that was cut off.

    Raises:
        ReplyError: If there are none.
    """
    parsed = []
    for values in (found for value in json_values(text) for found in _objects(value, space)):
        reason = values.get(reason_key) if reason_key is not None else None
        values = {name: value for name, value in values.items() if name != reason_key}
        try:
            reply = to_params(values, space, base)
        except ReplyError:
            continue
        parsed.append(reply.with_reason(reason))
    if not parsed:
        raise ReplyError('The reply must have a list "configurations" of objects, but has none.')
    return parsed


def _objects(
    value: Any, space: Mapping[str, BaseDistribution], levels: int = 4
) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and value.keys() & space.keys():
        yield value
    elif isinstance(value, (dict, list)) and levels:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _objects(inner, space, levels - 1)


def store(
    study: Study, trial: FrozenTrial, configurations: Sequence[tuple[Mapping[str, Any], str]]
) -> None:
    """Keep configurations and their reasons on the trial that asked for them."""
    rows = [{"params": dict(params), "reason": reason} for params, reason in configurations]
    set_system_attr(study, trial, _KEY, json.dumps(rows, default=str))


def stored(
    study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]
) -> list[tuple[dict[str, Any], str]]:
    """Return the configurations for ``space`` that trials asked for, with their reasons.

    Workers that start together begin at different places of the list.
    """
    found, trials = [], fresh_trials(study)
    for other in trials:
        for row in json_list(other.system_attrs.get(_KEY)):  # which anybody may have written
            params = row.get("params") if isinstance(row, dict) else None
            if not isinstance(params, dict) or params.keys() != space.keys():
                continue
            try:
                values = {name: fit_value(params[name], d)[0] for name, d in space.items()}
            except ValueRefused:
                continue
            found.append((values, str(row.get("reason", ""))))
    at = number_without_repeats(trial, trials) % len(found) if found else 0
    return [*found[at:], *found[:at]]
