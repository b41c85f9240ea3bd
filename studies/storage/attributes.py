"""The attributes that this project reads from a storage, checked once, where they are read.

Whoever may write to a storage may have stored anything under these names, and everything behind
this module relies on what they hold: an attribute that isn't what it should be is left out, as if
it had never been stored, with a warning that names it. Attributes of other names are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import copy
import json
import logging
import re
import sys
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.storages import BaseStorage
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from objective.failure import is_measured
from objective.failure import WORST
from studies.printable import printable
from studies.storage.reading import read_trials


_logger = logging.getLogger(__name__)

_LARGEST = 1e15  # of anything that is counted or measured: sums of them stay exact enough
_MOST = sys.float_info.max
_LONGEST_TEXT = 100_000
_LONGEST_NAME = 250
_ARTIFACT = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_-]{0,99}")  # never a path


def _number(value: Any) -> bool:
    """A number that is finite and not absurd, of at least 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value <= _LARGEST


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


_texts = _list_of(_text)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
    )


def _mark(value: Any) -> bool:
    """Machine, process, start and number of the trial: `objective.worker.worker_mark`."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    machine, process, started, number = value
    return _text(machine) and _integer(process) and _number(started) and _integer(number)


def _values(value: Any) -> bool:
    """Values of parameters, by name."""
    return isinstance(value, dict) and all(
        value is None or isinstance(value, (bool, str, float)) or _integer(value)
        for value in value.values()
    )


def _runtime(value: Any) -> bool:
    """`studies.spec.Runtime`, as a study keeps it."""
    return isinstance(value, dict) and all(
        _texts(part) if name in ("env", "copy") else part is None or _text(part)
        for name, part in value.items()
    )


def _in_json(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_it(value: Any) -> bool:
        if not _text(value):
            return False
        try:
            return check(json.loads(value))
        except (ValueError, RecursionError):
            return False

    return is_it


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _artifact(value: Any) -> bool:
    """What Optuna stores of an artifact; its identifier is the name of a file."""
    return (
        isinstance(value, dict)
        and value.keys() == {"artifact_id", "filename", "mimetype", "encoding"}
        and _text(value["artifact_id"])
        and _ARTIFACT.fullmatch(value["artifact_id"]) is not None
        and _text(value["filename"])
        and _text(value["mimetype"])
        and (value["encoding"] is None or _text(value["encoding"]))
    )


_Checks = Mapping[str, Callable[[Any], bool]]

_OF_TRIALS: _Checks = {
    **dict.fromkeys(
        (
            *("training_seconds", "total_seconds", "peak_memory_mb", "tokens_m", "steps"),
            *("params_m", "llm_prompt_tokens", "llm_cached_tokens", "llm_completion_tokens"),
            *("llm_seconds", "llm_attempts", "lines_added", "lines_removed", "measured_seconds"),
        ),
        _number,
    ),
    **dict.fromkeys(
        (
            *("status", "reason", "source", "proposer", "chosen_by", "llm_model", "llm_reason"),
            *("description", "source_sha256"),
        ),
        _text,
    ),
    **dict.fromkeys(("tid", "parent", "repeats_trial", "train_seed"), _integer),
    "effective": _in_json(_values),
}
_OF_TRIALS_SYSTEM: _Checks = {
    "autoresearch:worker": _mark,
    "autoresearch:beat": _number,
    "autoresearch:began": lambda value: _number(value) and value < 1e11,  # a date
    "autoresearch:kills": _integer,
    "failed_trial": _integer,
    "retry_history": _list_of(_integer),
    "fixed_params": _values,
    "constraints": _numbers,
    "import:key": _text,
    "llm:relative_params": _in_json(_values),
    "smac:proposal": _values,
    "x_for_tell": _numbers,
}
_OF_STUDIES: _Checks = {
    **dict.fromkeys(("method", "comparison", "variant"), _name),
    **dict.fromkeys(
        (
            *("model", "revalidates", "version", "imported_from", "testbed"),
            *("testbed_hash", "space_hash", "surrogate", "metric_unit"),
        ),
        _text,
    ),
    **dict.fromkeys(("seed", "train_seed"), _integer),
    **dict.fromkeys(
        (
            *("budget_trials", "budget_seconds", "train_seconds", "wall_seconds"),
            *("memory_limit_mb", "max_tokens", "max_cost", "min_gain"),
            *("budget_until", "budget_wall", "budget_confirm"),
        ),
        _or_none(_number),  # None is no limit
    ),
    "llm_ratio": _number,
    **dict.fromkeys(
        # All of `objective.testbed.interface.Interface`, which a study keeps as it is.
        ("command", "config", "metric", "direction", "metric_file", "run_error"),
        _or_none(_text),
    ),
    **dict.fromkeys(("charge_llm", "vary_seed"), lambda value: isinstance(value, bool)),
    "failure_value": _or_none(lambda value: value == WORST or _is_finite(value)),
    "runtime": _or_none(_runtime),
    "edit_files": _texts,
    "llm_options": _or_none(_texts),
    "files": lambda value: isinstance(value, dict) and all(map(_text, value.values())),
}
_OF_STUDIES_SYSTEM: _Checks = {
    "study:metric_names": lambda value: _texts(value) and bool(value),
    "smac:seed": _integer,
}
_ARTIFACTS = "artifacts:"  # and an identifier: Optuna's system attributes of a trial or study
_DEEPEST = 30  # of lists and objects in an attribute of a study, all of which ``status`` prints


class CheckedAttributes(BaseStorage):
    """Base of storages that give out none but sound attributes; inherited before the storage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._told: set[str] = set()
        super().__init__(*args, **kwargs)

    def check_trials(self, trials: Sequence[FrozenTrial]) -> None:
        """Take the attributes that aren't sound off trials."""
        numeric: dict[int, bool] = {}
        for trial in trials:
            if not all(isinstance(value, (int, float)) for value in trial.values or ()):
                raise ValueError(f"trial {trial.number} has a value that is no number")
            if trial.state == TrialState.COMPLETE and not trial.values:
                raise ValueError(f"trial {trial.number} is complete, but has no value")
            _check_params(trial, numeric)
            what = f"of trial {trial.number}"
            if not all(map(is_measured, trial.values or ())):
                self._tell({"status"} if trial.user_attrs.get("status") == "ok" else (), what)
                trial.user_attrs = {**trial.user_attrs, "status": "nan"}
            curve = trial.intermediate_values
            sound = {s: v for s, v in curve.items() if _integer(s) and _numbers([v])}
            if len(sound) < len(curve):  # SQLite and journals keep whatever they were given
                self._tell({"intermediate_values"}, what)
                trial.intermediate_values = sound
            trial.user_attrs = self._sound(trial.user_attrs, _OF_TRIALS, what)
            trial.system_attrs = self._sound(trial.system_attrs, _OF_TRIALS_SYSTEM, what)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = super().get_trial(trial_id)  # type: ignore[safe-super]
        self.check_trials([trial])
        return trial

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        attrs = super().get_study_user_attrs(study_id)  # type: ignore[safe-super]
        shallow = {name: value for name, value in attrs.items() if _is_shallow(value)}
        self._tell(attrs.keys() - shallow.keys(), "of a study")
        return self._sound(shallow, _OF_STUDIES, "of a study")

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        attrs = super().get_study_system_attrs(study_id)  # type: ignore[safe-super]
        return self._sound(attrs, _OF_STUDIES_SYSTEM, "of a study")

    def _sound(self, attrs: dict[str, Any], checks: _Checks, what: str) -> dict[str, Any]:
        odd = {
            name
            for name, value in attrs.items()
            if (name in checks and not checks[name](value))
            or (name.startswith(_ARTIFACTS) and not _in_json(_artifact)(value))
        }
        if not odd:
            return attrs
        self._tell(odd, what)
        return {name: value for name, value in attrs.items() if name not in odd}

    def _tell(self, odd: Iterable[str], what: str) -> None:
        for name in odd:
            known = _ARTIFACTS if name.startswith(_ARTIFACTS) else printable(name)[:80]
            if known not in self._told:
                self._told.add(known)
                _logger.warning(
                    "the attribute %s %s is not as it should be; left out", known, what
                )


class CheckedKept(CheckedAttributes):
    """The same for storages that keep their trials, whose finished ones are looked at once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._checked: dict[int, FrozenTrial] = {}  # finished trials, by their identifiers
        super().__init__(*args, **kwargs)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, False, states)  # type: ignore[safe-super]
        self.check_trials([t for t in trials if self._checked.get(t._trial_id) is not t])
        self._checked.update((t._trial_id, t) for t in trials if t.state.is_finished())
        return copy.deepcopy(trials) if deepcopy else trials


class CheckedDatabase(CheckedAttributes, RDBStorage):
    """A database, from which Optuna reads a finished trial once and keeps it."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if states is None and trial_id_greater_than < 0:  # the first look, at all of them
            trials = read_trials(self, study_id)
            if len({trial.number for trial in trials}) < len(trials):
                raise ValueError("two trials have the same number")  # Optuna would hide one
        else:
            trials = super()._get_trials(
                study_id, states, included_trial_ids, trial_id_greater_than
            )
        self.check_trials(trials)
        return trials


def _check_params(trial: FrozenTrial, numeric: dict[int, bool]) -> None:
    """Raise ValueError if a trial's parameters, without which it is none, aren't what they say.

    Trials share most distributions, so that each is looked at once: ``numeric`` has those that were,
    by their identities.
    """
    params = trial.params
    for name, distribution in trial.distributions.items():
        if not isinstance(name, str):
            raise ValueError(f"trial {trial.number} has a parameter whose name is no text")
        is_numeric = numeric.get(id(distribution))
        if is_numeric is None:
            is_numeric = isinstance(distribution, (FloatDistribution, IntDistribution))
            numeric[id(distribution)] = is_numeric
            if is_numeric and not _has_ends(distribution):
                raise ValueError(f"trial {trial.number} has a parameter whose range isn't finite")
        if is_numeric and not _is_finite(params[name]):
            raise ValueError(f"trial {trial.number} has a parameter that is no finite number")


def _has_ends(numbers: Any) -> bool:
    return all(map(_is_finite, (numbers.low, numbers.high, numbers.step or 0)))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and -_MOST <= value <= _MOST


def _is_shallow(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return depth < _DEEPEST and all(_is_shallow(item, depth + 1) for item in value)
    return True
