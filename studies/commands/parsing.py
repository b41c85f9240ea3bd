"""Reading of the values of options: durations, times, sizes, lists."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from datetime import timedelta
import math
import re
from typing import TypeVar

import typer

from studies.errors import Misuse


T = TypeVar("T")

WORST = "worst"  # as in `objective.failure`, which takes a while to import

_MOST = 1e12  # of any unit: what is more is a mistake
_MOST_SEEDS = 10_000  # of one range
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MEGABYTES = {"": 1, "M": 1, "MB": 1, "G": 1024, "GB": 1024}


def parse_duration(text: str) -> float:
    """Read seconds from ``90s``, ``30m``, ``24h``, ``2d`` or a plain number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if match is None or not 0 < float(match[1]) < _MOST:
        raise typer.BadParameter(
            f"A duration must be a number above 0 with s, m, h or d, like 90s, but got {text!r}."
        )
    return float(match[1]) * _SECONDS[match[2]]


def parse_moment(text: str) -> float:
    """Read a time of day (the next one), or a date and time, as seconds since 1970."""
    now = datetime.now()
    try:
        if match := re.fullmatch(r"(\d{1,2}):(\d\d)(?::(\d\d))?", text.strip()):
            hour, minute, second = (int(part or 0) for part in match.groups())
            moment = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
            if moment <= now:
                moment += timedelta(days=1)
        else:
            moment = datetime.fromisoformat(text.strip())
        seconds = moment.timestamp()
    except (ValueError, OverflowError):  # some years have none
        raise typer.BadParameter(
            f"A time must be like 08:00 or 2026-12-01T08:00, but got {text!r}."
        ) from None
    if seconds <= now.timestamp():
        raise typer.BadParameter(f"A time must be in the future, but {text!r} is over.")
    return seconds


def parse_memory(text: str) -> int:
    """Read megabytes from ``1500M``, ``2G`` or a plain number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG]B?|)", text.strip().upper())
    number = float(match[1]) if match else math.nan
    megabytes = int(number * _MEGABYTES[match[2]]) if match and number < _MOST else 0
    if megabytes == 0:
        raise typer.BadParameter(
            f"A memory limit must be a number above 0 with M or G, like 1500M, but got {text!r}."
        )
    return megabytes


def parse_failure_value(text: str) -> str | float:
    """Read ``worst`` or a number."""
    if text == WORST:
        return WORST
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"A failure value must be worst or a number, but got {text!r}.")
    return value


def parse_seeds(text: str) -> list[int]:
    """Read seeds from ``0-7``, ``0,3,5`` or both: ``0-3,8``.

    Raises:
        Misuse: If it is anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= last - first < _MOST_SEEDS:
            raise Misuse(f"--seeds must be like 0-7 or 0,3,5, but got {text!r}.")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def split(option: str, text: str | None, read: Callable[[str], T]) -> list[T]:
    """Read the values of an option, separated by commas, each once.

    Raises:
        Misuse: If one can't be read.
    """
    try:
        words = (word.strip() for word in (text or "").split(","))
        return list(dict.fromkeys(read(word) for word in words if word))
    except ValueError:
        raise Misuse(f"{option} must be numbers separated by commas, but got {text!r}.") from None
