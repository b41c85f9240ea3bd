"""Trials that another program ran, read from its files.

Three forms, of which `studies.importing.results_tsv` describes the third:

1. JSON ``{method: {seed: [{"tid": 0, "val_bpb": 0.99, "success": true, "wt": 300.1, "DEPTH": 8,
   ...}]}}``. Upper-case names are hyperparameters, as they are in a training script.
2. JSON lines, a trial each: ``{"trial_id": 0, "backend": "tpe", "seed": 0, "config": {"DEPTH": 8,
   ...}, "val_bpb": 0.99, "success": true, "error": null, "wall_time_seconds": 300.1,
   "timestamp": "2026-03-01T12:00:00"}``

Both may also say ``status`` (a class of failure), ``error`` or ``reason``, ``source`` (who proposed
it), ``llm_ratio`` and ``model``. In both, a failure has ``success`` false, and 100.0 or null for
``val_bpb``. Any value may be null.
Files in the wild have more: numbers that are NaN, trials twice, identifiers twice (of two processes
that wrote one file), successes without a value. What of that is a trial is read, what isn't is
counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
import hashlib
import json
import math
from pathlib import Path
import re
import shlex
from typing import Any

from objective.failure import is_measured
from objective.testbed.interface import shown
from objective.testbed.metric import METRIC
from samplers._llm.record import BASE
from samplers._llm.record import LLM
from samplers._llm.record import SOURCES
from samplers._trials.history import FAILURES
from studies.errors import Misuse
from studies.importing.results_tsv import is_results
from studies.importing.results_tsv import metric_of
from studies.importing.results_tsv import read_results
from studies.printable import printable


FAILURE_VALUE = 100.0

# What other programs report of a failure -> its class; the first that is found.
_CLASSES = {
    r"out.of.memory|outofmemory|\boom\b|memoryerror": "oom",
    r"time[d ]*.?out|timelimit": "timeout",
    r"\bnan\b|not finite|diverge|explod": "nan",
    r"no (val_bpb|metric)|missing (val_bpb|metric)": "no-metric",
}
_MAX_REASON = 200
_MAX_SECONDS = 366 * 86_400  # of a trial: what is longer is a mistake, and dates end in 9999
_EXTRAS = ("status", "error", "reason", "source", "llm_ratio", "model", "timestamp")
_FIRST_FORM = {"tid", "val_bpb", "success", "wt", *_EXTRAS}
_UNKNOWN = "unknown"  # class of a failure that the file says nothing of
_LARGEST_INTEGER = 10**15
_FIRST_YEAR, _LAST_YEAR = 1970, 2200  # of moments that are no mistake
_LONGEST_NAME = 200
_LARGEST_FILE = 2**30  # bytes
_SQLITE = b"SQLite format 3\0"  # with which each of its databases begins
_PART = 2**20


@dataclass(frozen=True)
class ForeignTrial:
    """One trial as its file tells it.

    Attributes:
        key: The same for the same trial in any copy of the file: a hash of all that it says.
        method, seed: The run that it belongs to.
        tid: Its identifier in the file; not necessarily unique or without gaps.
        params: Values of hyperparameters, of whatever type; null ones are left out.
        status: ``ok`` or the class of the failure; ``unknown`` if the file doesn't say.
        reason: Why it failed, at most 200 characters; empty if ok or unknown.
        source: Who proposed it, as on our own trials; empty if the file doesn't say.
        llm_ratio: Share of the run's trials that a language model decides; None if unknown.
        model: The language model; empty if unknown.
        value: Of the file's metric; None if it failed.
        seconds: Charged to the budget; 0 if the file doesn't say, or has more than a year.
        ended: Naive local time; None if the file doesn't say.
        attributes: Further user attributes.
    """

    key: str
    method: str
    seed: int
    tid: int
    params: dict[str, Any]
    status: str
    reason: str
    value: float | None
    seconds: float
    ended: datetime | None
    source: str = ""
    llm_ratio: float | None = None
    model: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Foreign:
    """A file's trials in its order.

    Attributes:
        trials: What can be imported.
        skipped: What can't: reason -> how many.
        notes: What was imported in another way than it was written: what -> how many.
        metric: Name of what was measured.
    """

    trials: list[ForeignTrial] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    metric: str = METRIC.name


class _Skip(ValueError):
    """A row that is no trial; the message is the reason."""


def read_file(path: Path) -> Foreign:
    """Read a file of either form.

    Raises:
        Misuse: If it is neither.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise _too_large(path)
        text = _read(path)
    except OSError as error:
        raise Misuse(f"{path} must be a readable file, but: {error.strerror}.") from None
    except UnicodeDecodeError:
        if path.is_file() and path.open("rb").read(len(_SQLITE)) == _SQLITE:
            raise _needs_none(path, f"sqlite:///{path}") from None
        raise _neither(path, "something that is no UTF-8 text") from None
    foreign = Foreign()
    try:
        rows = _rows(path, text, foreign)
    except _Twice as twice:
        raise Misuse(
            f"{path} must have each name once in an object, but {_line(str(twice))!r} is in one twice"
        ) from None
    seen: set[str] = set()
    identifiers: set[tuple[str, int, int]] = set()
    for row in rows:
        try:
            trial = _trial(_encodable(row), foreign.notes, foreign.metric)
        except _Skip as reason:
            foreign.skipped[str(reason)] += 1
            continue
        except RecursionError:
            foreign.skipped["nested too deep"] += 1
            continue
        if trial.key in seen:
            foreign.skipped["the same trial again"] += 1
            continue
        seen.add(trial.key)
        identifier = (trial.method, trial.seed, trial.tid)
        if identifier in identifiers:
            foreign.notes["another trial with the identifier of an earlier one"] += 1
        identifiers.add(identifier)
        foreign.trials.append(trial)
    return foreign


def _read(path: Path) -> str:
    """Read a file in parts: of a device or a pipe nobody knows the size before."""
    parts, left = [], _LARGEST_FILE
    with path.open(encoding="utf-8-sig") as file:
        while left >= 0 and (part := file.read(_PART)):
            parts.append(part)
            left -= len(part)
    if left < 0:
        raise _too_large(path)
    return "".join(parts)


def _too_large(path: Path) -> Misuse:
    return Misuse(f"{path} must have at most {_LARGEST_FILE} bytes, but has more.")


def _rows(path: Path, text: str, foreign: Foreign) -> Iterator[dict[str, Any]]:
    """Return a file's trials in the terms of the second form."""
    if is_results(text):
        foreign.metric = metric_of(text)
        return read_results(text, foreign.skipped)
    try:
        document = _load(text)
    except RecursionError:
        raise _neither(path, "JSON of a depth that nobody would write") from None
    except json.JSONDecodeError:
        return _lines(path, text, foreign)
    if isinstance(document, dict) and {"backend", "config"} <= document.keys():
        return iter([document])  # a file of one line
    return _nested(path, document, foreign)


def is_finite(value: float) -> bool:
    """Return whether a number is a finite float, or an integer that can be made one."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


class _Twice(ValueError):
    """A name that an object has more than once, of which JSON would keep the last value alone."""


def _load(text: str) -> Any:
    return json.loads(text, parse_int=_whole, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Twice(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return values


def _whole(digits: str) -> float:
    """Read an integer; one of more digits than Python reads, some 4,300, is infinite."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _encodable(value: Any) -> Any:
    """Replace each half of a surrogate pair, which JSON allows but UTF-8 doesn't, by a ?."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value


def _neither(path: Path, what: str) -> Misuse:
    return Misuse(
        f"{path} must be JSON of the form {{method: {{seed: [{{tid, val_bpb, success, wt, ...}}]}}}}"
        f" or JSON lines with backend, seed, trial_id, config, val_bpb, success, or autoresearch's"
        f" results.tsv, but is {what}."
    )


def _needs_none(path: Path, url: str) -> Misuse:
    return Misuse(
        f"{path} must be a file of trials, but is a database, and Optuna's need no import: give"
        f" `report`, `best`, `status` or `dashboard` --storage {shlex.quote(url)}."
    )


def _nested(path: Path, document: Any, foreign: Foreign) -> Iterator[dict[str, Any]]:
    """Yield the first form's trials in the terms of the second."""
    if not isinstance(document, dict) or not document:
        raise _neither(path, f"a JSON {_kind(document)}")
    runs = [
        (method, seed, rows)
        for method, seeds in document.items()
        for seed, rows in (seeds.items() if isinstance(seeds, dict) else [(None, None)])
    ]
    if not any(isinstance(rows, list) for _, _, rows in runs):
        raise _neither(path, "a JSON object of something else")
    return _nested_rows(runs, foreign)


def _nested_rows(runs: list[tuple[str, Any, Any]], foreign: Foreign) -> Iterator[dict[str, Any]]:
    for method, seed, rows in runs:
        if not isinstance(rows, list):
            foreign.skipped["a method or seed without a list of trials"] += 1
            continue
        for row in rows:
            if not isinstance(row, dict):
                foreign.skipped["not an object"] += 1
                continue
            for name in row.keys() - _FIRST_FORM:
                if not name.isupper():
                    short = name[:_LONGEST_NAME]
                    foreign.notes[f"{short}: left out, since a hyperparameter is upper-case"] += 1
            yield {
                "backend": method,
                "seed": seed,
                "trial_id": row.get("tid"),
                "config": {name: value for name, value in row.items() if name.isupper()},
                "val_bpb": row.get("val_bpb"),
                "success": row.get("success"),
                "wall_time_seconds": row.get("wt"),
                **{name: row[name] for name in _EXTRAS if name in row},
            }


def _lines(path: Path, text: str, foreign: Foreign) -> Iterator[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    # Not by splitlines: a string of JSON may hold U+0085, U+2028 and U+2029 as they are.
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = _load(line)
        except (json.JSONDecodeError, RecursionError):
            foreign.skipped["a line that is no JSON (cut off, perhaps)"] += 1
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            foreign.skipped["not an object"] += 1
    if not any({"backend", "config"} <= row.keys() for row in rows):
        if any("op_code" in row for row in rows):
            raise _needs_none(path, f"journal:{path}")
        names = shown(printable(", ".join(rows[0]))) if rows else ""
        raise _neither(path, f"JSON lines with {names}" if rows else "no JSON")
    return iter(rows)


def _trial(row: Mapping[str, Any], notes: Counter[str], metric: str) -> ForeignTrial:
    method, success, config = row.get("backend"), row.get("success"), row.get("config")
    if not isinstance(method, str) or not method.strip():
        raise _Skip("no method")
    if len(method) > _LONGEST_NAME or printable(method) != method:
        raise _Skip("a method whose name is too long or can't be printed")
    seed, tid = _integer(row.get("seed")), _integer(row.get("trial_id"))
    if seed is None:
        raise _Skip("no seed (an integer)")
    if tid is None:
        raise _Skip("no identifier (an integer)")
    if not isinstance(success, bool):
        raise _Skip("success is neither true nor false")
    if config is not None and not isinstance(config, dict):
        raise _Skip("config is not an object")
    value = row.get("val_bpb")
    if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
        raise _Skip("val_bpb is not a number")
    seconds = row.get("wall_time_seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        seconds = math.nan
    if not 0 <= seconds <= _MAX_SECONDS:
        notes["no time: charged nothing"] += 1
        seconds = 0.0
    status, reason = _verdict(success, value, row, notes, metric)
    return ForeignTrial(
        key=_key(row),
        method=method.strip(),
        seed=seed,
        tid=tid,
        params=_params(config or {}, notes),
        status=status,
        reason=reason[:_MAX_REASON],
        value=float(value) if status == "ok" and value is not None else None,
        seconds=float(seconds),
        ended=_time(row.get("timestamp")),
        source=_source(row.get("source"), notes),
        llm_ratio=_ratio(row.get("llm_ratio")),
        model=_line(row.get("model")),
        attributes=_attributes(row.get("attributes")),
    )


def _params(config: Mapping[str, Any], notes: Counter[str]) -> dict[str, Any]:
    params = {}
    for name, value in config.items():
        if len(name) > _LONGEST_NAME or printable(name) != name:
            notes["a hyperparameter left out whose name is too long or can't be printed"] += 1
        elif value is not None:
            params[name] = value
    return params


def _line(value: Any) -> str:
    """Return a text in one line that is fit to be printed; empty if it is none."""
    if not isinstance(value, str):
        return ""
    return printable(" ".join(value[: 2 * _MAX_REASON].split()))[:_MAX_REASON]


def _source(value: Any, notes: Counter[str]) -> str:
    """Return who proposed a trial, in our terms."""
    source = _line(value).lower()
    if source in ("", *SOURCES):
        return source
    known = LLM if re.search(r"llm|language.model", source) else BASE
    notes[f"source {source[:40]!r}: taken as {known}"] += 1
    return known


def _ratio(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 1 else None


def _attributes(given: Any) -> dict[str, Any]:
    """Return what else is kept of a trial: texts in one line, and its memory."""
    if not isinstance(given, dict):
        return {}
    texts = {name: _line(given.get(name)) for name in ("commit", "decision", "description")}
    found: dict[str, Any] = {name: text for name, text in texts.items() if text}
    memory = given.get("peak_memory_mb")
    if isinstance(memory, float) and is_finite(memory):
        found["peak_memory_mb"] = memory
    return found


def _verdict(
    success: bool, value: float | None, row: Mapping[str, Any], notes: Counter[str], metric: str
) -> tuple[str, str]:
    """Class and reason of a trial. A success is one that measured something."""
    error = row.get("error") or row.get("reason")
    stands_for_failure = metric == METRIC.name and value == FAILURE_VALUE
    if success and value is not None and is_measured(value) and not stands_for_failure:
        return "ok", ""
    if success and value is None:
        notes["a success without a value: taken as a failure, no-metric"] += 1
        return "no-metric", "reported as a success, but without val_bpb"
    if success and not is_measured(value or 0.0):
        notes["a success whose value isn't finite: taken as a failure, nan"] += 1
        return "nan", f"reported as a success, but val_bpb is {value}"
    if success:
        notes[f"a success of {FAILURE_VALUE:g}, the failure value: taken as a failure"] += 1
        return "crash", f"reported as a success, but val_bpb is the failure value {value}"
    # However deep it is: a text of an object is never needed.
    reason = _line(error)
    status = row.get("status")
    if isinstance(status, str) and status in FAILURES:
        return status, reason
    if not reason:
        notes["a failure without a reason: its class is unknown"] += 1
        return _UNKNOWN, ""
    for pattern, status in _CLASSES.items():
        if re.search(pattern, reason, re.IGNORECASE):
            return status, reason
    return "crash", reason


def _key(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"(seed)?[_ -]?\d+", value.strip(), re.IGNORECASE):
        value = _whole(re.sub(r"\D", "", value))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_finite(value):
        return None
    return int(value) if value == int(value) and 0 <= value <= _LARGEST_INTEGER else None


def _time(value: Any) -> datetime | None:
    """Naive local time, as Optuna has it, of ISO 8601 or seconds since 1970."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value)
        elif isinstance(value, str):
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        else:
            return None
        if moment.tzinfo is not None:
            moment = moment.astimezone(tz=None).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if _FIRST_YEAR <= moment.year <= _LAST_YEAR else None


def _kind(value: Any) -> str:
    names = {list: "array", dict: "object without a method", str: "string", bool: "truth value"}
    return names.get(type(value), "number" if value is not None else "null")
