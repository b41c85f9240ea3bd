"""Schemas for a model's reply, and its conversion to values that a study can use.

A JSON schema made from the search space goes with the request, and the reply is checked against
the distributions all the same: servers ignore numeric bounds and some ignore schemas.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import json
import re
from typing import Any
from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from .._trials.announced import values_so_far
from .._trials.history import is_interrupted
from .._trials.internals import cached_trials
from .._trials.internals import fresh_trials
from .masking import printable
from .values import choice_labels
from .values import fit_value
from .values import format_value
from .values import neighbours
from .values import ValueRefused


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator
    from collections.abc import Mapping

    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from .._trials.history import Rule

# Integers of so few values are listed: a grammar made of the list can't miss, and neither can a
# server that ignores bounds.
_FEW = 16

_BEGIN = re.compile(r"[{\[]")
# In a text of brackets that are never closed each is the beginning of all that is left: characters
# that are looked at for nothing, of a text of any length that a reply really has.
_MOST_LOOKS = 5_000_000
# Halves of a character, in JSON's notation, unless they are the two of one: no text may have them.
_SURROGATE = re.compile(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_MOST_SAID = 1000  # characters of an error
# Objects in objects: of a reply, of its "parameters", and of a list of names and values.
_MOST_LEVELS = 4


class ReplyError(ValueError):
    """A reply that no configuration can be made of; the message, of one line, is for the model."""

    def __init__(self, message: str) -> None:
        # It quotes names of the reply, which may be of any length and hold anything.
        text = " ".join(printable(message).split())
        super().__init__(
            text if len(text) <= _MOST_SAID else f"{text[: _MOST_SAID // 2]} ... {text[-50:]}"
        )


@dataclass(frozen=True)
class ParsedReply:
    """The values of a reply.

    Attributes:
        params: A value for every parameter of the search space, each inside its distribution.
        named: The parameters whose value the reply gave (clipped or rounded counts, refused not).
        repairs: What had to be done to the reply, a line each.
        reason: The model's reason, ``""`` if it gave none.
    """

    params: dict[str, Any]
    named: frozenset[str]
    repairs: tuple[str, ...]
    reason: str = ""

    def with_reason(self, reason: Any) -> ParsedReply:
        """The same with a reason, if that is a text."""
        return replace(self, reason=reason if isinstance(reason, str) else "")


def params_schema(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Return the JSON schema of a whole configuration: an object with every parameter."""
    return {
        "type": "object",
        "properties": {name: _value_schema(d) for name, d in space.items()},
        "required": list(space),
        "additionalProperties": False,
    }


def reason_key(space: Mapping[str, BaseDistribution]) -> str:
    """Return the key of a reply's reason, which no parameter has."""
    key = "reason"
    while key in space:
        key = f"{key}_"
    return key


def with_reason_first(schema: dict[str, Any], key: str | None) -> dict[str, Any]:
    """Let an object of values begin with a reason, so that the model thinks before it decides."""
    if key is None:
        return schema
    extended = {
        **schema,
        "properties": {key: {"type": "string"}, **schema["properties"]},
        "required": [key, *schema.get("required", ())],
    }
    if "minProperties" in schema:
        extended["minProperties"] = schema["minProperties"] + 1
    return extended


def changes_schema(
    space: Mapping[str, BaseDistribution],
    base: Mapping[str, Any] | None = None,
    is_known: Callable[[Mapping[str, Any]], bool] | None = None,
) -> dict[str, Any]:
    """Return the JSON schema of changes to a configuration: an object with any parameters.

    An object rather than a list of names and values, so that no name can come twice.

    Args:
        space: The search space.
        base: The configuration that is to be changed. If given, each parameter has a few
            candidate values near its present one (``neighbours``), which holds a weak model to a
            neighbourhood and inside the bounds; without it, its whole range.
        is_known: Whether a configuration needs no other run. A value is not offered if ``base``
            with it alone is such a one.
    """
    properties = {}
    for name, distribution in space.items():
        if base is None:
            properties[name] = _value_schema(distribution)
            continue
        near = [
            value
            for value in neighbours(base[name], distribution)
            if is_known is None or not is_known({**base, name: value})
        ]
        if isinstance(distribution, CategoricalDistribution):
            near = [format_value(choice, distribution) for choice in near]
        if near:
            properties[name] = {"enum": near}
    return {
        "type": "object",
        "properties": properties,
        "minProperties": 1,
        "additionalProperties": False,
    }


def _value_schema(distribution: BaseDistribution) -> dict[str, Any]:
    if isinstance(distribution, CategoricalDistribution):
        return {"type": "string", "enum": choice_labels(distribution)}
    if isinstance(distribution, IntDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        if (high - low) // step < _FEW:  # a range has no length above 2**63
            return {"type": "integer", "enum": list(range(low, high + 1, step))}
        return {
            "type": "integer",
            "minimum": distribution.low,
            "maximum": distribution.high,
        }
    assert isinstance(distribution, FloatDistribution)
    return {"type": "number", "minimum": distribution.low, "maximum": distribution.high}


def json_values(text: str) -> Iterator[Any]:
    """Yield the outermost JSON objects and lists in a text, past prose and code fences.

    The time is that of reading it a few times at most, whatever is in it: it may be of any length.
    """
    decoder = json.JSONDecoder()
    text = _SURROGATE.sub(lambda match: match[1] or r"\ufffd", text)
    position = 0
    left = max(_MOST_LOOKS, 4 * len(text))
    while left > 0:
        match = _BEGIN.search(text, position)
        if match is None:
            return
        try:
            value, position = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError as error:
            left -= error.pos + 1  # Python counts the lines before it
            position = match.start() + 1
        except ValueError:  # an integer of more digits than Python reads
            position = match.start() + 1
            left -= len(text)
        except RecursionError:
            return  # Brackets without end, which every later start would run into again.
        else:
            yield value


def parse_params(
    text: str,
    space: Mapping[str, BaseDistribution],
    base: Mapping[str, Any],
    reason_key: str | None = None,
) -> ParsedReply:
    """Read a configuration, or changes to ``base``, from a reply.

    Args:
        text: The reply. Of several JSON objects in it the last one with the most parameters
            counts. In a text without any (cut off, or not quite JSON), ``name: value`` pairs do.
        space: The search space.
        base: A value for every parameter, used where the reply has none or an impossible one.
        reason_key: The key of the model's reason, if it was asked for one.

    Raises:
        ReplyError: If the reply has not one usable value.
    """
    try:
        return _parse(text, space, base, reason_key)
    except RecursionError:
        raise ReplyError("The reply must be a JSON object, but it is nested too deeply.") from None


def _parse(
    text: str,
    space: Mapping[str, BaseDistribution],
    base: Mapping[str, Any],
    reason_key: str | None,
) -> ParsedReply:
    candidates = [
        found for value in json_values(text) for found in _assignments(value, space, _MOST_LEVELS)
    ]
    best = max(reversed(candidates), key=lambda c: len(c.keys() & space.keys()), default={})
    repairs: list[str] = []
    if not best.keys() & space.keys():
        pairs = _loose_pairs(_without_reason(text, reason_key), space)
        if pairs:
            best, repairs = pairs, ["the reply is not valid JSON, read name by name"]
        elif not candidates:
            raise ReplyError("The reply must be a JSON object, but it has none.")
        else:
            raise ReplyError(
                "The reply must have the names of the search space as its keys, but none of "
                f"{', '.join(map(str, list(best)[:5])) or 'its keys'} is one."
            )
    values = {name: value for name, value in best.items() if name != reason_key}
    parsed = to_params(values, space, base)
    # Some models write the reason into an object of its own, or around that of the values.
    reasons = [c[reason_key] for c in (*candidates, best) if reason_key in c]
    return replace(parsed, repairs=(*repairs, *parsed.repairs)).with_reason(
        reasons[-1] if reasons else None
    )


def to_params(
    values: Mapping[str, Any], space: Mapping[str, BaseDistribution], base: Mapping[str, Any]
) -> ParsedReply:
    """Do as ``parse_params`` does, for values that were already read from JSON."""
    params, repairs = {}, []
    named = set()
    for name, distribution in space.items():
        params[name] = base[name]
        if name not in values:
            continue
        try:
            params[name], repair = fit_value(values[name], distribution)
        except ValueRefused as error:
            repairs.append(f"{name}: {error}")
        else:
            named.add(name)
            if repair:
                repairs.append(f"{name}: {repair}")
    unknown = [str(name) for name in values if name not in space]
    if unknown:
        repairs.append(f"not in the search space: {', '.join(unknown[:5])}")
    if not named:
        raise ReplyError(f"The reply must give at least one usable value, but {_join(repairs)}.")
    return ParsedReply(params, frozenset(named), tuple(repairs))


def _join(repairs: list[str]) -> str:
    return "; ".join(repairs) or "it is empty"


def _assignments(
    value: Any, space: Mapping[str, BaseDistribution], levels: int
) -> Iterator[dict[str, Any]]:
    """Yield the assignments of values to names that a JSON value may mean.

    Besides the object itself they are an object one level down (``{"parameters": {...}}``), and a list of
    ``{"name": ..., "value": ...}``, which some models prefer whatever they are told.
    """
    if isinstance(value, dict):
        yield value
        if levels > 1 and not value.keys() & space.keys():
            for inner in value.values():
                if isinstance(inner, (dict, list)):
                    yield from _assignments(inner, space, levels - 1)
    elif isinstance(value, list):
        items = [item for item in value if isinstance(item, dict)]
        pairs = [item for item in items if {"name", "value"} <= item.keys()]
        if pairs:
            yield {str(item["name"]): item["value"] for item in pairs}
        else:
            yield from items


def _without_reason(text: str, key: str | None) -> str:
    """Leave out the model's reason: what prose says of values is no assignment.

    It ends with a quote before a comma, a brace, the line's end or another quoted key, since not
    all those within are escaped, or with the text if that was cut off; one without quotes ends
    with its line.
    """
    if key is None:
        return text
    end = r"""\s*(?:[,}\]\n]|$|["'][^"'\n]+["']\s*:)"""
    reason = rf"""(["'])(?:.*?(?<!\\)\1(?={end})|.*)|[^\n]*"""
    return re.sub(
        rf"""\b{re.escape(key)}["'`*]*\s*[:=]\s*(?:{reason})""", "", text, flags=re.DOTALL
    )


def _loose_pairs(text: str, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Find the parameters that a text assigns in some way: ``"LR": 0.1,`` or ``LR = 0.1``.

    A value counts only if something ends it, so that a number which was cut off does not. A comma
    before a digit does not: ``524,288`` and ``0,01`` are whole, and no numbers.
    """
    pairs: dict[str, Any] = {}
    for name in space:
        quoted = rf"""(?<![\w.]){re.escape(name)}["'`*]*\s*[:=]\s*"""
        value = r"""(?:"([^"\n]*)"|'([^'\n]*)'|([\w.+-]+(?:,\d[\w.+-]*)*))(?=\s*[,}\]\n;)])"""
        matches = list(re.finditer(quoted + value, text + "\n" if _ended(text) else text))
        if matches:
            pairs[name] = next(group for group in matches[-1].groups() if group is not None)
    return pairs


def _ended(text: str) -> bool:
    """Whether a text without braces may be taken as complete."""
    return text.count("{") <= text.count("}")


def configuration_key(
    params: Mapping[str, Any],
    space: Mapping[str, BaseDistribution],
    rule: Rule | None = None,
) -> tuple[str, ...]:
    """Return a key that is equal for configurations which a prompt shows alike.

    Args:
        params: A value for each name in ``space``; further names are only shown to ``rule``.
        space: The parameters that count.
        rule: The objective's own rule.
    """
    effective = {**params, **rule(params)} if rule is not None else params
    return tuple(format_value(effective[name], space[name]) for name in sorted(space))


def known_configurations(
    study: Study,
    space: Mapping[str, BaseDistribution],
    rule: Rule | None = None,
    *,
    besides: FrozenTrial | None = None,
    fresh: bool = True,
) -> dict[tuple[str, ...], int]:
    """Map the key of every finished, running or queued configuration to the trial's number.

    Of a running trial the values count that were suggested, enqueued or announced so far; trials
    that lack a parameter of ``space``, or have another one that varies, are never equal. One that
    was interrupted tells nothing of its configuration, which may be run again.

    Args:
        study: The study.
        space: The search space.
        rule: The objective's own rule.
        besides: A trial to leave out: the one that is being sampled.
        fresh: Whether to read the trials from the storage, and not as Optuna last read them.
    """
    known: dict[tuple[str, ...], int] = {}
    for trial in fresh_trials(study) if fresh else cached_trials(study):
        if is_interrupted(trial) or besides is not None and trial.number == besides.number:
            continue
        params = dict(trial.params)
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            params = values_so_far(trial, space)
        others = trial.distributions.keys() - space.keys()
        if not space.keys() <= params.keys():
            continue
        if all(trial.distributions[name].single() for name in others):
            known.setdefault(configuration_key(params, space, rule), trial.number)
    return known
