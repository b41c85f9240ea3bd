"""Run a training script in a process of its own, under limits, and classify how it ended.

:func:`run_script` starts ``launch.py`` (which see) in the folder of the script, reads what it
prints and what its evaluator returned, and classifies the end:

========== =====================================================================================
ok         exit 0 and a finite metric, but no traceback as the last words after a printed one
oom        out of memory: an exception or message that says so, or killed by the system for it
nan        a metric that isn't finite, or the script's own stop at a NaN or exploding loss, be it
           an exception that names the loss
timeout    killed after ``wall_seconds``
killed     by SIGKILL and not for its memory: by itself, or by a process beside it
crash      any other end; the reason is the exception's line
no-metric  exit 0 and no metric; the reason shows what was looked for and the last lines
pruned     ended by ``on_progress``
========== =====================================================================================

This alone isolates accidents, not attacks: the environment is an allow-list, and nothing survives
the end of a run, but the script has the user's files and network. With a sandbox (``sandbox.py``,
which see) it has neither, and the run also ends when all its processes together are too many, hold
too many files or sockets (crash) or use too much memory (oom). Reading what a script writes takes
time in proportion to its length, which is limited, and bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum
import errno
import json
import os
from pathlib import Path
import re
import secrets
import selectors
import shutil
import subprocess
import sys
import time
from typing import Any
from typing import Protocol
from typing import TYPE_CHECKING

from objective.run.environment import script_environment
from objective.run.launch import has_gpu
from objective.run.outcome import classify
from objective.run.outcome import differ
from objective.run.outcome import one_line
from objective.run.outcome import OnProgress
from objective.run.outcome import Output
from objective.run.outcome import RunResult
from objective.run.processor_time import ProcessorTime
from objective.run.processor_time import UnaccountedTime
from objective.testbed.data import Data
from objective.testbed.data import is_evaluated_apart
from objective.testbed.metric import METRIC
from objective.testbed.metric import Metric


if TYPE_CHECKING:
    from objective.run.outcome import Limits


# Variables that name folders with data, which a sandbox shows read-only, and folders to write to,
# which it hides: without these variables their users write to its own /tmp and home folder.
_CORPORA = ("AUTORESEARCH_CACHE", "AUTORESEARCH_CORPUS")
_SCRATCH = ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")

_WATCH_SECONDS = 0.25  # between two looks at what a sandbox uses
_EVALUATION_SECONDS = 4.0  # that are never charged, however short the training was
_PIPE_BYTES = 2**20  # that a pipe holds at most, unless the system's administrator allows more
_DISK_FULL_BYTES = 2**20  # less than this free: it is the disk, not the script
_REASON_CHARS = 300  # of why a training failed: enough for a long path and what to do about it


# What programs say of a full disk; the last one is PyTorch, of a file that it saves.
_OUT_OF_SPACE = re.compile(
    "No space left on device|Dis[ck] quota exceeded|PytorchStreamWriter failed writing"
)


class RunError(RuntimeError):
    """The run could not be made or recorded, so that there is nothing to measure: a full disk, no
    process. Not for what the script itself does wrong."""


class DiskFull(RunError):
    """A training was cut off by a disk that is full, maybe by what it wrote itself."""


class Isolation(Protocol):
    """A way to isolate a script, such as `objective.run.sandbox.Sandbox`, which documents these.

    Nothing here imports that one: who runs scripts that are trusted does without.
    """

    @property
    def name(self) -> str: ...

    def command(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        read_only: Iterable[Path],
        hidden: Iterable[Path],
        wall_seconds: float,
        lifeline: int,
    ) -> list[str]: ...

    def excess(self, pid: int, memory_mb: int | None) -> str: ...


def run_script(
    folder: Path,
    *,
    limits: Limits,
    command: Sequence[str] = ("python", "train.py"),
    metric: Metric = METRIC,
    on_progress: OnProgress | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    sandbox: Isolation | None = None,
    data: Data = Data(),
    python: Sequence[str] = (sys.executable,),
    cwd: Path | None = None,
    shown: Iterable[Path] = (),
) -> RunResult:
    """Run a script to its end, or to the first limit.

    Args:
        folder: Working directory of the script, with the script and what it imports.
        limits: See :class:`Limits`.
        command: The words that start it; a first ``python`` is that of ``python``.
        metric: The value to look for in the output.
        on_progress: Called with what each progress line says, such as
            ``step 00012 (34.5%) | loss: 3.210000``; true ends the run.
        environment: Variables on top of the allow-list (`objective.run.environment`).
        log: Where the output goes; by default beside the folder, as ``<folder>.log``.
        sandbox: Isolates the script; None is for scripts that are trusted.
        data: What a sandbox shows and hides of the testbed's data.
        python: Command that starts Python.
        cwd: Working directory of the script, if it is not the folder.
        shown: What a sandbox shows, read-only, beside the folder.

    Returns:
        Never raises for what the script does; see :class:`RunResult`.

    Raises:
        DiskFull: If a disk that the script or its log is written to is full.
        RunError: If no process could be started.
        KeyboardInterrupt: After the run was killed.
    """
    log = folder.with_name(f"{folder.name}.log") if log is None else log
    output = Output(metric, on_progress)
    # Scripts write it to where they work, or to where they lie.
    places = [] if metric.file is None else [(cwd or folder) / metric.file, folder / metric.file]
    before = [_changed(place) for place in places]
    start = time.monotonic()
    kills_before = _oom_kills()
    stop = ""
    with ExitStack() as opened:
        file = opened.enter_context(_Log(log, limits.log_bytes))
        process = opened.enter_context(
            _Process(
                folder,
                command,
                limits,
                metric,
                script_environment(environment),
                sandbox,
                python,
                cwd or folder,
                shown,
                data,
            )
        )
        clock = _TrainingClock(process, sandbox is not None)

        def handle(channel: str, chunk: bytes) -> None:
            if channel == "metric":
                output.feed_metric(chunk, process.nonce)
                clock.note(output)
            else:
                file.write(chunk)
                output.feed(chunk)

        deadline = start + limits.wall_seconds
        while True:
            for channel, chunk in process.read(max(0.0, deadline - time.monotonic())):
                handle(channel, chunk)
            if process.ended:
                break
            if stop in ("", "timeout"):  # the other limits hold until it has ended
                stop = process.excess(limits, clock.look) or stop
                if output.bytes_read > limits.output_mb * 2**20:
                    stop = "output"
            if stop and stop != "timeout":
                process.kill()
                break
            if time.monotonic() >= deadline:
                if stop:
                    process.kill()
                    break
                stop, deadline = "timeout", time.monotonic() + limits.grace_seconds
                process.terminate()
            elif output.pruned and not stop:
                stop = "pruned"
                clock.stop(as_printed=not is_evaluated_apart(folder))
                process.kill()
                break
        returncode = process.kill()
        for channel, chunk in process.drain():
            handle(channel, chunk)
        output.feed(b"\n")  # the last line may lack its end
    written = [place for place, was in zip(places, before) if _changed(place) != was]
    if written:
        output.read_file(written[0])
    seconds = time.monotonic() - start
    oom_kills = None if kills_before is None else (_oom_kills() or 0) - kills_before
    status, reason = classify(output, stop, returncode, limits, oom_kills)
    if _OUT_OF_SPACE.search(reason):
        if shutil.disk_usage(folder).free < _DISK_FULL_BYTES:
            raise DiskFull(f"The disk of {folder} is full.")
        if sandbox is None:  # which is a disk of its own, in memory
            said = one_line(reason, _REASON_CHARS)
            raise DiskFull(f"A disk that the script writes to is full ({said}).")
    return RunResult(
        status=status,
        reason=one_line(reason, _REASON_CHARS),
        value=output.value,
        printed=output.printed,
        mismatch=output.has_evaluator and differ(output.value, output.printed, output.decimals),
        summary=output.summary,
        seconds=seconds,
        returncode=returncode,
        log=log,
        trained_seconds=clock.seconds,
    )


def _changed(path: Path) -> int | None:
    """Return when a file was changed, in nanoseconds; None if it isn't there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


class _Phase(Enum):
    BEFORE = "before the training"
    TRAINING = "training"
    EVALUATION = "evaluation"
    AFTER = "after the evaluation, or once the training was pruned"


class _TrainingClock:
    """Measures a training that hands over what is to be evaluated, from its start to that.

    On a GPU that is time; on the processor it is the time of all its processes and threads, for
    each core that they may use, so that other load doesn't count and further processes do. In a
    sandbox those that came and went unseen count with the most that they can have taken.

    An evaluation that takes longer than the training is charged for the rest: what is handed over
    may compute anything, also what a training does, but does it again for each batch.
    """

    def __init__(self, process: _Process, in_sandbox: bool) -> None:
        self._process = process
        self._time = ProcessorTime(process.pid)
        counts = in_sandbox and not process.is_on_gpu
        self._machine = UnaccountedTime(process.pid) if counts else None
        self._phase = _Phase.BEFORE
        self._since = self._real_since = 0.0  # when the phase began
        self._seconds = 0.0

    @property
    def seconds(self) -> float | None:
        """What the training took; None if it wasn't seen to end."""
        return self._seconds if self._phase in (_Phase.EVALUATION, _Phase.AFTER) else None

    def look(self) -> None:
        self._time.look()

    def note(self, output: Output) -> None:
        """Look whether the next phase has begun, or the next ones."""
        if self._phase is _Phase.BEFORE and output.has_evaluator:
            self._enter(_Phase.TRAINING)
        if self._phase is _Phase.TRAINING and output.trained:
            self._seconds = self._spent() + self._unseen(output)
            self._enter(_Phase.EVALUATION)
        if self._phase is _Phase.EVALUATION and output.measured is not None:
            self._seconds += max(0.0, self._spent() - max(self._seconds, _EVALUATION_SECONDS))
            self._enter(_Phase.AFTER)

    def stop(self, as_printed: bool) -> None:
        """Take the training for ended, if it has begun and hasn't ended before.

        Args:
            as_printed: Measure real time, as scripts do that print how long they trained.
        """
        if self._phase is _Phase.TRAINING:
            self._seconds = time.monotonic() - self._real_since if as_printed else self._spent()
            self._enter(_Phase.AFTER)

    def _enter(self, phase: _Phase) -> None:
        self._phase, self._since, self._real_since = phase, self._now(), time.monotonic()

    def _spent(self) -> float:
        return max(0.0, self._now() - self._since)

    def _now(self) -> float:
        if self._process.is_on_gpu:
            return time.monotonic()
        return self._time.look() / self._process.cores

    def _unseen(self, output: Output) -> float:
        if self._machine is None or output.started is None:
            return 0.0
        since, counted = output.started
        started, most = self._machine.started(counted), self._machine.most()
        return self._time.unseen(since, started, most) / self._process.cores


def _is_on_gpu(variables: Mapping[str, str]) -> bool:
    there_is_one = sys.platform == "darwin" or has_gpu()
    return there_is_one and variables.get("AUTORESEARCH_DEVICE") != "cpu"


def _oom_kills() -> int | None:
    """Return how many processes Linux has ended for their memory since it started."""
    try:
        match = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.M)
    except OSError:
        return None
    return None if match is None else int(match[1])


class _Process:
    """A running launcher with its pipes. Leaving the context kills whatever is left of it."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        limits: Limits,
        metric: Metric,
        variables: dict[str, str],
        sandbox: Isolation | None,
        python: Sequence[str],
        cwd: Path,
        shown: Iterable[Path],
        data: Data,
    ) -> None:
        self._sandbox = sandbox
        self._has_parent = sandbox is not None or len(python) > 1
        self._next_look = 0.0
        self._lifeline = -1
        self._selector = selectors.DefaultSelector()
        # What the process is given is closed here in any case, the other ends if it can't start.
        with ExitStack() as unstarted, ExitStack() as given:
            unstarted.callback(self._selector.close)
            lifeline, self._lifeline = os.pipe()
            given.callback(os.close, lifeline)
            unstarted.callback(os.close, self._lifeline)
            measured, metric_end = os.pipe()
            given.callback(os.close, metric_end)
            unstarted.callback(os.close, measured)
            output, output_end = os.pipe()
            given.callback(os.close, output_end)
            unstarted.callback(os.close, output)
            held_out = None
            if sandbox is not None and data.held_out is not None:
                held_out = os.open(data.held_out, os.O_RDONLY)
                given.callback(os.close, held_out)
            options = {
                "lifeline": lifeline,
                "held_out": held_out,
                "metric": metric_end,
                "command": list(command),
                "evaluator": metric.evaluator,
                "name": metric.name,
                "train_seconds": limits.train_seconds,
                "memory_mb": limits.memory_mb,
                "folder": str(folder.resolve()),
                "frozen": sandbox is not None,
            }
            self.nonce = secrets.token_hex(16)
            self.is_on_gpu = _is_on_gpu(variables)
            # OpenMP reads a number for each level of nesting, such as 4,2.
            threads = re.match(r"\s*\d{1,6}", variables.get("OMP_NUM_THREADS", ""))
            self.cores = max(1, int(threads[0])) if threads else 1
            launcher = Path(__file__).with_name("launch.py")
            argv = [*python, "-u", str(launcher), json.dumps(options)]
            if sandbox is not None:
                if data.shown is not None:
                    variables = {k: v for k, v in variables.items() if k not in _CORPORA}
                    variables["AUTORESEARCH_PREPARED"] = str(data.shown)
                    shown = [*shown, data.shown]
                names = [name for name in ("CUDA_HOME", *_CORPORA) if name in variables]
                shown = [*shown, *(Path(variables[name]).expanduser() for name in names)]
                if "HF_HOME" in variables:  # it may hold a token too
                    shown.append(Path(variables["HF_HOME"]).expanduser() / "hub")
                variables = {k: v for k, v in variables.items() if k not in _SCRATCH}
                argv = sandbox.command(
                    argv,
                    folder=folder,
                    read_only=shown,
                    hidden=[] if data.hidden is None else [data.hidden],
                    wall_seconds=limits.wall_seconds + limits.grace_seconds,
                    lifeline=lifeline,
                )
            try:
                self._process = subprocess.Popen(
                    argv,
                    cwd=cwd,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output_end,
                    stderr=output_end,
                    pass_fds=(lifeline, metric_end, *([] if held_out is None else [held_out])),
                    start_new_session=True,
                )
            except OSError as error:
                raise RunError(f"{argv[0]} must start, but: {error.strerror}.") from None
            unstarted.pop_all()
        try:
            os.write(self._lifeline, self.nonce.encode())
        except BrokenPipeError:  # it has ended already
            pass
        for fd, channel in ((measured, "metric"), (output, "output")):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ, channel)

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Return whether it has ended and everything that it wrote was read."""
        return not self._selector.get_map()

    def read(self, timeout: float) -> Iterator[tuple[str, bytes]]:
        """Return new data of the channels "metric" and "output", after ``timeout`` s at most."""
        # Read before looking: what was written before its end is there after it.
        ended = self._process.poll() is not None
        for key, _ in self._selector.select(0 if ended else min(timeout, _WATCH_SECONDS)):
            data = os.read(key.fd, 2**16)
            if data:
                yield key.data, data
            else:
                self._close(key.fd)
        if ended and not self._selector.select(0):
            # A process that escaped (only where there is no subreaper) may hold the other ends.
            for key in list(self._selector.get_map().values()):
                self._close(key.fd)

    def drain(self) -> Iterator[tuple[str, bytes]]:
        """Yield what the pipes hold after :meth:`kill`, and no more than they can.

        A process that escaped (only without a sandbox) may go on writing for ever.
        """
        left = len(self._selector.get_map()) * _PIPE_BYTES
        while not self.ended and left > 0:
            for channel, data in self.read(0):
                left -= len(data)
                yield channel, data

    def _close(self, fd: int) -> None:
        self._selector.unregister(fd)
        os.close(fd)

    def terminate(self) -> None:
        """Ask the script to end."""
        try:
            os.write(self._lifeline, b"t")
        except BrokenPipeError:  # it just did
            pass

    def excess(self, limits: Limits, look: Callable[[], object]) -> str:
        """Name the resource whose limit the processes of a sandbox exceed together; "" if none.

        Args:
            limits: Its limits.
            look: Called whenever it looks, which it does now and then.
        """
        if self._sandbox is None or time.monotonic() < self._next_look:
            return ""
        self._next_look = time.monotonic() + _WATCH_SECONDS
        excess = self._sandbox.excess(self._process.pid, limits.memory_mb)
        if not excess:  # else every moment counts: a fork bomb leaves us little of the processor
            look()
        return excess

    def kill(self) -> int:
        """Cut the lifeline, so that the watcher kills all and ends; return the exit code."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        try:
            # In a sandbox the watcher may be outnumbered or stopped, but what is outside of it
            # ends all that is inside, at once.
            code = self._process.wait(timeout=10 if self._sandbox is None else 1)
        except subprocess.TimeoutExpired:  # a stopped watcher; its child dies with it on Linux
            self._process.kill()
            code = self._process.wait()
        # Sandboxes and launchers tell of a signal as shells do.
        return 128 - code if self._has_parent and 128 < code < 128 + 65 else code


class _Log:
    """A file that keeps the first and the last half of at most ``limit`` bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._half = limit // 2
        self._room = self._half  # left for the first half
        self._tail = bytearray()
        self._dropped = 0
        self._file = self._checked(lambda: open(path, "wb", buffering=0))

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._cut()
        try:
            if self._dropped:
                self._put(f"\n[... {self._dropped} bytes left out ...]\n".encode())
            self._put(bytes(self._tail))
        finally:
            self._file.close()

    def write(self, data: bytes) -> None:
        head, rest = data[: self._room], data[self._room :]
        self._room -= len(head)
        self._put(head)
        self._tail += rest
        if len(self._tail) > 2 * self._half:  # twice, so that each byte is moved once at most
            self._cut()

    def _cut(self) -> None:
        excess = max(0, len(self._tail) - self._half)
        del self._tail[:excess]
        self._dropped += excess

    def _put(self, data: bytes) -> None:
        while data:
            written = self._checked(lambda: self._file.write(data))
            data = data[written:]

    def _checked(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"The disk of {self._path} is full.") from None
            raise RunError(f"{self._path} must be writable, but: {error.strerror}.") from None
