"""Numbers in what a script prints: its metric, others by their names, its progress.

Read are, anywhere in a line, ``name: 0.5``, ``name=0.5`` and the items of JSON objects and Python
dictionaries; the metric also as ``name 0.5``, ``name -> 0.5`` and in a table's cells. The number may
be a tensor's or an array's only one; of a line's numbers of one name the last counts, but one behind
"best" or such a word only if no other has the name. Colours are taken off, and a
line ends at a carriage return, too, so that progress bars don't hide what follows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import csv
from dataclasses import dataclass
import json
import re
from typing import Any


# With thousands separated by commas: "2,634.5" must not be taken for 2, nor "0,532" for 532, nor a
# date for its year. Words in ASCII: without regard to case an i is also a Turkish one without its
# dot, but no float has that.
_NUMBER = (
    r"[-+]?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?"
    r"|(?a:nan|inf(?:inity)?))(?![\w,]*\d|(?:[.:-]|e[-+]|/\d+/)\d)(?!(?<=[a-z])\w)"
)
_NAME = r"(?<![\w./-])[A-Za-z][\w./-]{0,63}"
# What may stand in front of a number that follows a colon: tensor(0.5), np.float64(0.5), [0.5].
_OPENING = r"""(?:["']|[a-z_][\w.]*\((?!\[)|(?:[a-z_][\w.]*\()?\[(?=[^],]*\]))?"""
_CELL = re.compile(rf"\s*{_OPENING}{_NUMBER}", re.I)
# Values of other steps or trials, which many scripts repeat beside those of this one.
_ELSEWHERE = r"(\b(?:best|lowest|highest|min(?:imum)?|max(?:imum)?|prev(?:ious)?)\b[\s:]+)?"
_PAIR = re.compile(
    rf"""{_ELSEWHERE}(["']?)({_NAME})\2\s*[:=]\s*{_OPENING}({_NUMBER})(?![:/-])""", re.I
)
# Searched of a line, at both of its ends: some patterns take the square of that. JSON is longer.
_MATCHED_CHARS = 300
# The line up to where a name or a number ends for certain; a comma may stand within one.
_WHOLE = re.compile(r".*(?=[\s;|]|,\D)")
_NAME_CHARS = 250  # databases hold 512
_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_SHARE = re.compile(rf"\bstep\s+\d+\s+\(\s*({_NUMBER})%\)", re.I)
_STEP = re.compile(
    r"\b(?:global_)?(?:step|iter|iteration|epoch|batch)s?\b[\"']?[\s:=#\[(]*(\d+)\b"
    r"(?:\s*(?:/|of)\s*(\d+)\b)?",
    re.I,
)
_LOSS = re.compile(rf"loss\b[\"']?\s*[:=]?\s*({_NUMBER})", re.I)


def plain(line: str) -> str:
    """Return a line without colours and the white space at its end."""
    return _COLOUR.sub("", line).rstrip()


def to_number(text: str) -> float:
    """Read a number as scripts print it."""
    return float(text.replace(",", ""))


def number_alone(text: str) -> float | None:
    """Read a text that is nothing but a number; None if it is anything else."""
    found = re.fullmatch(rf"\s*({_NUMBER})\s*", text, re.I)
    return to_number(found[1]) if found else None


def decimals_of(text: str) -> int:
    """Return the number of decimals of a printed number, 0 if it has an exponent."""
    return len(text.partition(".")[2]) if "e" not in text.lower() else 0


class Reader:
    """Finds a metric, and other numbers, in lines.

    Args:
        metric: The metric's name.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        name = re.escape(metric).replace(r"\ ", r"\s+")
        cell = r"[\s|│┃:=]*"
        self._named = re.compile(
            rf"""{_ELSEWHERE}(?<![\w./-]){name}(?![\w/-])["'*`]*"""
            rf"""(?:\s*(?:[:=]|[-=]>|→|\bis\b)[\s*`]*{_OPENING}|{cell}["']?)({_NUMBER})""",
            re.I,
        )

    def metric(self, line: str) -> str | None:
        """Return the text of the number that counts of those with the metric's name in a line."""
        value = _in_json(line).get(self._metric)
        if value is not None:
            return repr(value)
        found = _by_weight(self._named.findall(_searched(line)))
        return found[-1][-1] if found else None

    def numbers(self, line: str) -> dict[str, float]:
        """Return all numbers of a line that have names."""
        found = _by_weight(_PAIR.findall(_searched(line)))
        return _in_json(line) or {name: to_number(number) for *_, name, number in found}


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: A percentage of the training, or a step's number if nothing says of how many.
        is_share: Whether it is a percentage.
        loss: The loss that stands beside it; None if none does.
    """

    step: float
    is_share: bool
    loss: float | None


def progress_of(line: str) -> Progress | None:
    """Return the progress that a line tells of, if any."""
    line = _searched(line)
    loss = _LOSS.search(line)
    value = to_number(loss[1]) if loss else None
    if share := _SHARE.search(line):
        return Progress(to_number(share[1]), True, value)
    if step := _STEP.search(line):
        if step[2] and 0 < float(step[1]) <= float(step[2]):
            return Progress(100 * float(step[1]) / float(step[2]), True, value)
        return Progress(float(step[1]), False, value)
    return None


def _by_weight(found: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return a line's numbers with their names, those that count last."""
    return sorted(found, key=lambda m: (not m[0], not m[0].lower().startswith("prev")))


def _searched(line: str) -> str:
    """Return a line, or both ends of a long one, of which no name or number that was cut is taken."""
    if len(line) <= 2 * _MATCHED_CHARS:
        return line
    whole = _WHOLE.match(line[:_MATCHED_CHARS])
    return f"{whole[0] if whole else ''} ...{line[-_MATCHED_CHARS:]}"


def lines_of_file(text: str) -> list[str]:
    """Return a file's lines as if they were printed: of JSON objects; of a table its last numbers."""
    lines = text.strip("\ufeff \r\n").splitlines()
    try:
        value = json.loads("\n".join(lines))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list):  # a list of a training's steps
        return [json.dumps(item) for item in value]
    if isinstance(value, dict):
        return [json.dumps(value)]
    return lines + _last_numbers(lines)


def _last_numbers(lines: list[str]) -> list[str]:
    """Return the last number of each column with its name; nothing if it is no table.

    Many a table has rows of training, of validation, and one that is half written.
    """
    if not lines:
        return []
    if not any(number_alone(line) is None for line in lines[1:]):
        return [f"{lines[0].strip()}: {line.strip()}" for line in lines[1:][-1:]]
    for separator in ",;\t":
        if separator not in lines[0]:
            continue
        try:
            names, *rows = csv.reader(lines, delimiter=separator)
        except csv.Error:  # a cell too long, say
            continue
        # A text is none of a column's numbers, even if it has some.
        last = {
            name: cell
            for cells in rows
            if len(cells) == len(names)
            for name, cell in zip(names, cells)
            if _CELL.match(cell)
        }
        # Pairs of a name and a number look like a table, too, but have no names above the numbers.
        if any(number_alone(name) is None for name in last):
            return [f"{name.strip()}: {cell.strip()}" for name, cell in last.items()]
    return []


def _in_json(line: str) -> dict[str, float]:
    """Return the numbers of a line that is a JSON object; those within objects by their paths.

    A path too long for a name is not followed: a line's many leaves would each repeat it.
    """
    if not (line.startswith("{") and line.endswith("}")):
        return {}
    try:
        return dict(_leaves(json.loads(line)))
    except (ValueError, RecursionError):
        return {}


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        if len(prefix) + len(key) > _NAME_CHARS or not key.isprintable():
            continue  # no database takes it
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                yield f"{prefix}{key}", float(value)
            except OverflowError:  # an integer of hundreds of digits
                continue
