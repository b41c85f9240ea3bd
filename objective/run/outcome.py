"""From a script's output and its use of resources to the status, reason and value of a run."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
import json
import math
import os
from pathlib import Path
import re
import signal

from objective.failure import is_measured
from objective.run.printed import decimals_of
from objective.run.printed import lines_of_file
from objective.run.printed import number_alone
from objective.run.printed import plain
from objective.run.printed import progress_of
from objective.run.printed import Reader
from objective.run.printed import to_number
from objective.testbed.metric import Metric


_OUT_OF_MEMORY = re.compile(
    r"MemoryError|OutOfMemory|out of memory|can(?:'|no)t allocate memory|std::bad_alloc"
    r"|Memory allocation (?:still )?failed|failed to allocate",
    re.I,
)

# A fork that met a limit on processes. Many processes may say so at once, line by line.
_NO_PROCESS = re.compile(r"BlockingIOError: .{0,80}Resource temporarily unavailable")

# What a lack of memory looks like where something else reports it; only believed under a limit.
_STARVED = re.compile(
    r"can't start new thread|Resource temporarily unavailable|(?:failed to|cannot) map"
    r"|SystemError: error return without exception set"  # an import that found no memory
)
_DIVERGED = re.compile(r"\b(?:nan|inf|non-?finite|diverged|exploded|exploding)\b", re.I)
_LOSS = re.compile(r"\bloss(?:es)?\b", re.I)
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_TRACEBACK = "Traceback (most recent call"
# Where the class of an exception is defined: who reads a line has room for what was wrong.
_MODULES = re.compile(r"^(?:[\w<>]+\.)+(?=[A-Z]\w*(?::|$))")
# What Python and its libraries print of errors that end nothing, at a script's end as well.
_HARMLESS = re.compile(
    r"^Exception (?:ignored|in thread)|^Error in |^Task exception|^--- Logging error"
    r"|/resource_tracker\.py"
)
_LINE_END = re.compile(rb"[\r\n]")
# What the processes of a sandbox can have too much of, besides memory.
_EXCESSES = {
    "processes": "it started too many processes",
    "files": "it made too many files",
    "sockets": "it opened too many sockets",
}
# Bounds on what a script may make us look at, so that reading it stays linear: some patterns take
# the square of a line's length.
_LINE_BYTES = 2_000  # of a line that are kept, from both of its ends
_OBJECT_BYTES = 2**16  # of one that may be a JSON object
_CUT = " ... "
_DIGITS = "0123456789.,eE+-"
_MESSAGE_BYTES = 300  # the longest line of the metric pipe that is read; ours have under 100
_TAIL_LINES = 400  # kept for the classification
_MOST_NUMBERS = 60  # of a script's output that are kept by their names
_FILE_BYTES = 2**21  # of a metric's file, from each of its ends
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}

# Takes a step or a percentage, the loss or metric there, and whether it is a percentage; returns
# whether to end the training.
OnProgress = Callable[[float, float, bool], bool]


@dataclass(frozen=True)
class Limits:
    """The limits of one run.

    Attributes:
        wall_seconds: From start to end, set-up and evaluation included; killed when over.
        train_seconds: Becomes ``prepare.TIME_BUDGET``; None leaves that as it is.
        memory_mb: Of writable memory (CPU, MPS) or of the GPU's; None is no limit.
        grace_seconds: Between asking an overdue script to end (SIGTERM) and killing it.
        log_bytes: Of output that are kept, the first and the last half; the rest is dropped.
        output_mb: Of output; killed when over. To read it costs us processor time.
    """

    wall_seconds: float
    train_seconds: float | None = None
    memory_mb: int | None = None
    grace_seconds: float = 3.0
    log_bytes: int = 2 * 2**20
    output_mb: int = 512


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        status: See the module's table.
        reason: One line of at most 200 characters; empty if ok.
        value: Of the metric: what the evaluator returned, or what was printed if the testbed has
            no evaluator; None if neither. May be NaN.
        printed: The value that was printed last, or written to the metric's file.
        mismatch: Both are there and differ by more than the rounding of the printed one.
        summary: The last number that was printed by each name.
        seconds: From start to end.
        returncode: Negative: the signal that ended it. 0 to 255: the exit status.
        log: File with what was printed.
        trained_seconds: What the training took until it was evaluated or pruned, measured by the
            runner; None if only the script can tell.
    """

    status: str
    reason: str
    value: float | None
    printed: float | None
    mismatch: bool
    summary: dict[str, float]
    seconds: float
    returncode: int
    log: Path
    trained_seconds: float | None = None

    @property
    def charged_seconds(self) -> float:
        """Training time that counts against a budget: the whole run's if it failed.

        As far as it was measured, that counts, whatever the script says; of one that was pruned, up
        to there.
        """
        if self.status in ("ok", "pruned") and self.trained_seconds is not None:
            return self.trained_seconds
        trained = self.summary.get("training_seconds", math.nan)
        return trained if self.status == "ok" and 0 <= trained <= self.seconds else self.seconds


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, which may be a pipe that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)


def one_line(text: str, limit: int = 200) -> str:
    """Return text of unknown origin as one line without control characters, cut to ``limit``."""
    text = " ".join(_CONTROL.sub(" ", text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass
class Output:
    """Parses what the script prints and what its evaluator returns, as it comes."""

    metric: Metric
    on_progress: OnProgress | None
    summary: dict[str, float] = field(default_factory=dict)
    printed: float | None = None  # value of the metric
    decimals: int = 0  # of it
    measured: float | None = None
    first_line: str | None = None  # of the metric's file; None if the script wrote none
    has_evaluator: bool = False
    pruned: bool = False
    loss: float = 0.0  # the last one printed
    bytes_read: int = 0
    trained: bool = False  # the training has handed over what is to be evaluated
    started: tuple[int, int] | None = None  # see `ProcessorTime.unseen`
    watcher_reported: bool = False  # the wrapper's own account of the training's end came
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    _reports_metric: bool | None = None  # and not the loss; None before the first report
    _line: bytearray = field(default_factory=bytearray)
    _metric_rest: bytes = b""

    def __post_init__(self) -> None:
        self._reader = Reader(self.metric.name)

    @property
    def value(self) -> float | None:
        """The value that counts: the evaluator's, or the printed one if there is no evaluator."""
        return self.measured if self.has_evaluator else self.printed

    def feed(self, data: bytes) -> None:
        self.bytes_read += len(data)
        *lines, rest = _LINE_END.split(data)
        for part in lines:
            self._append(part)
            self._take(self._line)
            self._line = bytearray()
        self._append(rest)

    def _append(self, part: bytes) -> None:
        """Add to the line that hasn't ended yet; of a very long one both ends are kept."""
        self._line += part
        if len(self._line) > 2 * _OBJECT_BYTES:  # twice, so that it is seldom moved
            del self._line[_LINE_BYTES:-_OBJECT_BYTES]  # which leaves too much for an object

    def feed_metric(self, data: bytes, nonce: str) -> None:
        self.bytes_read += len(data)
        *lines, self._metric_rest = (self._metric_rest + data).split(b"\n")
        self._metric_rest = self._metric_rest[: _MESSAGE_BYTES + 1]  # too long stays too long
        for line in lines:
            if len(line) > _MESSAGE_BYTES:
                continue
            try:
                message = json.loads(line)
                if message.get("nonce") != nonce:
                    continue  # not of the wrapper's
                if "evaluator" in message:
                    self.has_evaluator = bool(message["evaluator"])
                self.trained |= bool(message.get("trained"))
                if "started" in message:
                    self.started = int(message["since"]), int(message["started"])
                self.watcher_reported |= bool(message.get("ended"))
                if message.get("value") is not None:
                    self.measured = float(message["value"])
            except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
                continue

    def reads(self, line: str) -> bool:
        """Return whether a line tells of the metric."""
        return self._reader.metric(line) is not None

    def read_file(self, path: Path) -> None:
        """Take the metric from the file that the script wrote it to."""
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                size = os.fstat(file.fileno()).st_size  # 0 of a device, which may have no end
                start = file.read(min(size, _FILE_BYTES))
                file.seek(max(len(start), size - _FILE_BYTES))
                end = file.read(min(size, _FILE_BYTES))
        except OSError:  # it wrote none
            return
        encoding = _UTF_16.get(start[:2], "utf-8")
        if size <= 2 * _FILE_BYTES:
            text = (start + end).decode(encoding, errors="replace")
        else:
            text = start.decode(encoding, errors="replace").rstrip(_DIGITS) + _CUT
            text += end.decode(encoding, errors="replace").lstrip(_DIGITS)
        lines = lines_of_file(text)
        self.first_line = lines[0] if lines else ""
        for line in lines:
            self._note(plain(line), self._reader.metric(line))
        if self.printed is None and len(lines) == 1:
            self.printed = number_alone(lines[0][:_LINE_BYTES])

    def _take(self, data: bytearray) -> None:
        shown = plain(_ends(data).decode(errors="replace"))
        if not shown:
            return
        self.tail.append(shown)
        is_object = data.startswith(b"{") and len(data) <= _OBJECT_BYTES
        line = plain(data.decode(errors="replace")) if is_object else shown
        text = None if self.metric.file else self._reader.metric(line)
        self._note(line, text)
        progress = progress_of(line)
        if progress is None:
            return
        if progress.loss is not None:
            self.loss = progress.loss
        value = progress.loss if text is None else to_number(text)
        # A loss is no measure of what is to be maximized, and the two must not be mixed.
        is_measure = text is not None or self.metric.direction == "minimize"
        if self.on_progress is None or value is None or not is_measure or self.pruned:
            return
        if self._reports_metric in (None, text is not None):
            self._reports_metric = text is not None
            self.pruned = self.on_progress(progress.step, value, progress.is_share)

    def _note(self, line: str, text: str | None) -> None:
        """Keep a line's numbers, ``text`` being the metric's."""
        for name, number in self._reader.numbers(line).items():
            is_new = name not in self.summary
            if not is_new or len(self.summary) < _MOST_NUMBERS:
                self.summary[name] = number
        if text is not None:
            self.printed, self.decimals = to_number(text), decimals_of(text)


def _ends(line: bytearray) -> bytearray:
    """Return a line, or both ends of one that is too long, without numbers that were cut."""
    if len(line) <= _LINE_BYTES:
        return line
    half = _LINE_BYTES // 2
    digits = _DIGITS.encode()
    return line[: half - len(_CUT)].rstrip(digits) + _CUT.encode() + line[-half:].lstrip(digits)


def differ(measured: float | None, printed: float | None, decimals: int) -> bool:
    """Return whether the printed metric isn't the measured one, rounded."""
    if measured is None or printed is None:
        return printed is not None
    if math.isnan(measured) or math.isnan(printed):
        return math.isnan(measured) != math.isnan(printed)
    return not abs(measured - printed) <= 10.0**-decimals


def classify(
    output: Output, stop: str, returncode: int, limits: Limits, oom_kills: int | None = None
) -> tuple[str, str]:
    """Return the status and reason of a run by the first rule that fits.

    Args:
        output: What was read of it.
        stop: The limit for which the runner ended it; empty if it ended by itself.
        returncode: See :class:`RunResult`.
        limits: Its limits.
        oom_kills: Processes that the system ended for their memory while it ran, of whatever
            program; None if the system doesn't count them.
    """
    if stop in _EXCESSES:
        return "crash", f"killed: {_EXCESSES[stop]}"
    if stop == "output":
        return "crash", f"killed: it wrote more than {limits.output_mb} MB of output"
    if stop == "memory":
        return "oom", f"killed: its processes used more than the limit of {limits.memory_mb} MB"
    if stop == "timeout":
        return "timeout", f"killed after {limits.wall_seconds:g} s of wall-clock time"
    if stop == "pruned":
        return "pruned", ""
    if returncode != 0 or _has_given_up(output):
        return _classify_failure(output, returncode, limits, oom_kills)
    metric = output.metric
    value = output.value
    if value is None and output.printed is not None:
        reason = f"{metric.name} was printed, but prepare.{metric.evaluator} did not return"
        return "no-metric", reason
    if value is None:
        return "no-metric", _missing(output)
    if not is_measured(value):
        return "nan", f"{metric.name} is {value}"
    return "ok", ""


def _has_given_up(output: Output) -> bool:
    """Return whether a script caught the exception that ended it: what it printed is no result."""
    if output.value is not None and (output.has_evaluator or output.metric.file):
        return False
    lines = list(output.tail)
    if any(map(_HARMLESS.search, lines)) or not any(x.startswith(_TRACEBACK) for x in lines):
        return False
    said = _exception(lines).splitlines()
    return len(said) == 1 and not output.reads(said[0])


def _missing(output: Output) -> str:
    """Say what was looked for, and what was there instead."""
    name, file, begins = output.metric.name, output.metric.file, output.first_line
    where = "was printed" if file is None else f"is in {file}, which "
    if file is not None:
        where += f"begins with `{one_line(begins, 60)}`" if begins else "is empty"
    parts = [f"no `{name}: NUMBER`, `{name}=NUMBER` or JSON {where}"]
    if file is not None and begins is None:
        parts = [f"the script wrote no file {file} where it works, or in its own folder"]
    if output.summary:
        parts.append(f"numbers found: {', '.join(list(output.summary)[-6:])}")
    if output.tail:
        parts.append(f"last lines: {' | '.join(list(output.tail)[-2:])}")
    return "; ".join(parts)


def _classify_failure(
    output: Output, returncode: int, limits: Limits, oom_kills: int | None
) -> tuple[str, str]:
    lines = list(output.tail)
    exception = _exception(lines)
    said = exception or "\n".join(lines[-20:])
    limit = "" if limits.memory_mb is None else f" (limit {limits.memory_mb} MB)"
    if match := _OUT_OF_MEMORY.search(said):
        line = next(line for line in said.splitlines() if match[0] in line)
        return "oom", f"out of memory{limit}: {line}"
    if match := _NO_PROCESS.search(said):
        return "crash", match[0]
    if limits.memory_mb is not None and (match := _STARVED.search(said)):
        return "oom", f"out of memory{limit}: {match[0]}"
    if returncode == -signal.SIGKILL:
        if oom_kills:
            return "oom", f"killed by the system for its memory{limit}"
        if not output.watcher_reported:
            return "killed", "the process that watches over the training was killed (SIGKILL)"
        if oom_kills is None:
            return "oom", f"killed by the system (SIGKILL), most likely for its memory{limit}"
        return "killed", "killed by itself or from outside (SIGKILL), not for its memory"
    raised = _MODULES.sub("", exception.partition("\n")[0])
    # Python itself speaks of nan and inf in exceptions that are bugs, but never of a loss.
    diverged = _LOSS.search(raised) and _DIVERGED.search(raised)
    if raised.startswith("FloatingPointError") or diverged:
        return "nan", raised
    if not exception and returncode > 0:
        if "FAIL" in lines[-5:] or not math.isfinite(output.loss):
            return "nan", "the script stopped itself: the loss is NaN or exploded"
        if lines and _DIVERGED.search(lines[-1]):
            return "nan", lines[-1]
    if exception:
        return "crash", raised
    last = f": {lines[-1]}" if lines else ""
    if returncode < 0:
        return "crash", f"killed by {signal_name(-returncode)}{last}"
    return "crash", f"exit status {returncode}{last}"


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGKILL; most of the real-time ones have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _exception(lines: list[str]) -> str:
    """Return the exception that ends a printed traceback, ``Type: message``; "" if none does."""
    starts = [i for i, line in enumerate(lines) if line.startswith(_TRACEBACK)]
    after = starts[-1] + 1 if starts else len(lines)
    for i in range(after, len(lines)):
        if not lines[i].startswith(" "):
            return "\n".join(lines[i:])
    # A syntax error has no frames to trace back.
    if lines and re.match(r"(?:Syntax|Indentation|Tab|Memory)Error\b", lines[-1]):
        return lines[-1]
    return ""
