"""Runs inside the process of a training: sets the limits, watches over it, runs the script.

``python launch.py '{"lifeline": 3, ...}'`` in the script's working directory. This file imports
nothing of the project, and nothing but the standard library before the limits hold. It forks:

* The *watcher* outlives a crashed or runaway script. It adopts every orphan of the training
  (Linux: ``PR_SET_CHILD_SUBREAPER``) and, when the training ends or the runner's end of the
  *lifeline* pipe closes (by intent, or because the runner died, be it of ``kill -9``), kills all
  that is left. A byte on the lifeline asks the training to end: SIGTERM.
* Its child becomes the training, in a process group of its own.
* If ``prepare.py`` defines ``evaluate_program``, another child becomes the *evaluator*, which does
  what that function says with the bytes that the training hands over, once, by a pipe. It alone has
  the *metric* pipe to the runner, and the file of what was held out, where the runner gives it. It
  and the watcher can't be looked into by the training, though it has their user id
  (``PR_SET_DUMPABLE``).
* Otherwise the evaluator, a function of ``prepare.py``, is wrapped in the training's own process,
  and what it returned goes to the runner by the metric pipe: that counts, whatever the script
  prints. Each message bears a *nonce*, which the runner wrote to the lifeline before anything else
  and which is neither in the arguments nor in the environment, so that a script that finds the
  pipe and writes to it is not believed. But code that reads the wrapper's variables out of the
  interpreter can learn the nonce, and code that changes what the evaluator calls changes its
  result. studies/code_agent/validator.py refuses the ordinary ways to do either, by their names;
  a determined author can spell them otherwise. docs/safety.md has all that remains.

A Python script is run in the training's process, and any other command takes its place, with the
same limits but without an evaluator.

Options: ``lifeline``, ``metric`` and ``held_out`` (file descriptors; the last may be null),
``command`` (words; a first ``python`` is this interpreter), ``folder`` (that a script's path is
relative to), ``evaluator`` (name of the function) and ``name`` (of what it measures),
``train_seconds`` and ``memory_mb`` (null: as they are), ``frozen`` (whether ``prepare`` may not be
written to).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import ctypes
import functools
import importlib
import importlib.abc
import importlib.util
import json
import os
from pathlib import Path
import resource
import runpy
import select
import signal
import sys
import threading
import time
import traceback
import types
from typing import Any
from typing import NoReturn


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
# NVIDIA's, AMD's, and NVIDIA's in WSL, where /dev/dxg is there for any maker's.
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/usr/lib/wsl/lib/libcuda.so.1")
_APART = "evaluate_program"  # of prepare.py: evaluates what a training hands over
_MAX_PROGRAM_BYTES = 2**32
# What can be ignored of what stops a process; SIGSTOP is refused by a sandbox's filter.
_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_COUNT_SECONDS = 0.25  # between two looks at how many processes were started


def main() -> None:
    options = json.loads(sys.argv[1])
    lifeline, metric = options["lifeline"], options["metric"]
    nonce = os.read(lifeline, 32).decode()
    # No core dumps: a crashed training of several gigabytes would leave one each.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    watcher = os.getpid()
    # Before the forks, so that no training is early enough to stop those who measure.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _STOPS}
    exchange = _start_evaluator(options, nonce) if _is_evaluated_apart(options) else None
    child = os.fork()
    if child == 0:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(lifeline)
        os.setpgid(0, 0)
        _die_with(watcher)
        if exchange is not None:
            os.close(metric)
        if options["held_out"] is not None:
            os.close(options["held_out"])
        # Nothing secret is left here, and the runner has to see how much memory is used.
        _prctl(_PR_SET_DUMPABLE, 1)
        _train(metric, nonce, options, exchange)
    else:
        for end in exchange or ():
            os.close(end)
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # whoever comes first; the group must exist before a kill
        _watch(child, lifeline, metric, nonce)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with(watcher: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != watcher:  # it died before we asked to die with it
        os._exit(1)


# The evaluator ----------------------------------------------------------------------------------


def _is_evaluated_apart(options: dict[str, Any]) -> bool:
    python, script = (*options["command"], "", "")[:2]
    if python != "python" or "/" in script or not script.endswith(".py"):
        return False
    try:
        prepare = Path(options["folder"], "prepare.py")
        return f"\ndef {_APART}(" in prepare.read_text(errors="replace")
    except OSError:
        return False


def _start_evaluator(options: dict[str, Any], nonce: str) -> tuple[int, int]:
    """Start the evaluator; return where to write a program to, and to read the answer from."""
    sys.path[0] = options["folder"]
    if sys.platform == "linux":
        # Once for all three processes: torch takes seconds. Elsewhere a fork with it isn't safe.
        with contextlib.suppress(Exception):  # which the training is to meet
            importlib.import_module("prepare")
    program, program_end = os.pipe()
    answer, answer_end = os.pipe()
    watcher = os.getpid()
    if os.fork():
        os.close(program)
        os.close(answer_end)
        return program_end, answer
    # From here on the evaluator; the training is no child of it.
    for fd in (program_end, answer, options["lifeline"]):
        os.close(fd)
    _die_with(watcher)
    try:
        _evaluate(program, answer_end, nonce, options)
    finally:
        os._exit(0)


def _evaluate(program: int, answer: int, nonce: str, options: dict[str, Any]) -> None:
    """Read what is handed over, evaluate it, and tell the runner and the training."""
    metric, held_out = options["metric"], options["held_out"]
    if options["frozen"]:
        # What is imported later must not come from where the training can write.
        sys.path = [p for p in sys.path if os.path.isdir(p) and not os.access(p, os.W_OK)]
    started = _Started()
    _report(metric, {"nonce": nonce, "evaluator": True})
    with os.fdopen(program, "rb") as pipe:
        size = int.from_bytes(pipe.read(8), "big")
        data = pipe.read(size) if size <= _MAX_PROGRAM_BYTES else b""
    if len(data) != size or not size:  # the training has ended
        return
    counted = {"since": os.getpid(), "started": started.count()}
    _report(metric, {"nonce": nonce, "trained": True, **counted})
    try:
        if options["memory_mb"] is not None:
            _limit_memory(options["memory_mb"])
        prepare: Any = importlib.import_module("prepare")
        if held_out is None:
            value = prepare.evaluate_program(data)
        else:
            with os.fdopen(held_out, "rb") as file:
                value = prepare.evaluate_program(data, file)
        message: dict[str, Any] = {"value": float(value)}
        _report(metric, {"nonce": nonce, **message})
    except Exception as error:  # of what was handed over, so it is the training's to raise
        message = {"error": f"{type(error).__name__}: {error}"[:1000]}
    os.write(answer, json.dumps(message).encode())


class _Started:
    """Counts the processes and threads that were started in this PID namespace after this one.

    Linux numbers them one by one. It is read often, so that the numbers can't go round between.
    Without such numbers (macOS) the count stays 0.
    """

    def __init__(self) -> None:
        self._newest, self._count, self._most = os.getpid(), 0, 1
        with contextlib.suppress(OSError):
            self._most = int(Path("/proc/sys/kernel/pid_max").read_text())
        self._lock = threading.Lock()
        threading.Thread(target=self._go_on, daemon=True).start()

    def count(self) -> int:
        with self._lock, contextlib.suppress(OSError):
            newest = int(Path("/proc/loadavg").read_text().split()[-1])
            self._count += (newest - self._newest) % self._most
            self._newest = newest
        return self._count

    def _go_on(self) -> None:
        while True:
            self.count()
            time.sleep(_COUNT_SECONDS)


def _hand_over(exchange: tuple[int, int]) -> Callable[[bytes], float]:
    """Return what takes the place of the evaluation in the training's process."""
    program, answer = exchange

    def evaluate(data: bytes) -> float:
        try:
            with os.fdopen(program, "wb") as pipe:
                pipe.write(len(data).to_bytes(8, "big") + data)
            with os.fdopen(answer, "rb") as reply:
                message = json.loads(reply.read() or b'{"error": "the evaluation was killed"}')
        except OSError:
            raise ValueError("A model is evaluated once, at the end of its training.") from None
        if "error" in message:
            kind, _, text = message["error"].partition(": ")
            raise MemoryError(text) if kind == "MemoryError" else ValueError(message["error"])
        return float(message["value"])

    return evaluate


# The watcher ------------------------------------------------------------------------------------


def _watch(child: int, lifeline: int, metric: int, nonce: str) -> NoReturn:
    """Wait for the end of the training, kill what it left behind, say so, end as it ended."""
    wakeup, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    status = _reap(child)  # it may have ended before the handler was there
    while status is None:
        ready, _, _ = select.select([lifeline, wakeup], [], [])
        if lifeline in ready:
            if not os.read(lifeline, 1):
                break
            _kill_group(child, signal.SIGTERM)
        if wakeup in ready:
            os.read(wakeup, 512)
            status = _reap(child)
    _kill_group(child, signal.SIGKILL)
    if status is None:
        status = os.waitpid(child, 0)[1]
    elif select.select([], [metric], [], 1)[1]:  # else the script has filled it
        # Without this message the runner knows that the watcher itself was killed.
        _report(metric, {"nonce": nonce, "ended": True})
    _kill_orphans()
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _reap(child: int) -> int | None:
    """Collect every process that has ended; the wait status if the training is one of them."""
    status = None
    with contextlib.suppress(ChildProcessError):  # none left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                status = ended[1]
    return status


def _kill_group(group: int, number: int) -> None:
    # macOS: EPERM if all that is left are zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_orphans() -> None:
    """Kill adopted processes (Linux), also those that made a session of their own.

    The children of a killed one are adopted in turn, so this goes on until there are none.
    """
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (pids := children.read_text().split()):
        for pid in map(int, pids):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


# The training -----------------------------------------------------------------------------------


def _train(
    metric: int, nonce: str, options: dict[str, Any], exchange: tuple[int, int] | None
) -> None:
    folder = options["folder"]
    python, *arguments = options["command"]
    if exchange is None:
        os.set_inheritable(metric, False)
    try:
        if options["memory_mb"] is not None:
            _limit_memory(options["memory_mb"])
        if python != "python":
            _become(python, [python, *arguments])
        if not arguments[0].endswith(".py"):
            _become(sys.executable, [sys.executable, "-u", *arguments])
        script = os.path.join(folder, arguments[0])
        sys.path[0] = os.path.dirname(script)
        sys.argv = [os.path.relpath(script), *arguments[1:]]
        if os.path.exists(os.path.join(sys.path[0], "prepare.py")):
            prepare: Any = importlib.import_module("prepare")
            if (seconds := options["train_seconds"]) is not None:
                # An int where it is one: scripts may print or count with it.
                prepare.TIME_BUDGET = int(seconds) if float(seconds).is_integer() else seconds
            if exchange is not None:
                setattr(prepare, _APART, _hand_over(exchange))
            else:
                _listen(prepare, metric, nonce, options)
            if options["frozen"]:
                prepare.__class__ = _Frozen
        runpy.run_path(script, run_name="__main__")
    except Exception as error:  # whatever a script raises is its failure, and has to be classed
        _fail(error, folder)


def _become(program: str, words: list[str]) -> NoReturn:
    """Let a program take the place of this process."""
    try:
        os.execvp(program, words)
    except OSError as error:
        os.write(2, f"{program}: {error.strerror}\n".encode())
        os._exit(127)


def has_gpu() -> bool:
    """Tell whether this machine has a GPU for CUDA or ROCm, without loading torch."""
    return any(map(os.path.exists, GPU_FILES))


def _limit_memory(memory_mb: int) -> None:
    """Make allocations beyond the limit fail: of the GPU if training is on one, else of the host.

    RLIMIT_DATA counts what a process may really write to, so that PyTorch's CPU allocator fails
    where RLIMIT_AS would count mere reservations. CUDA's own bookkeeping in host memory would meet
    it, so that on a machine with a GPU it holds until PyTorch starts CUDA. Then the device that the
    script is on is limited instead. (Untested with a GPU: there was none where this was written.
    Other frameworks' trainings on a GPU keep the limit of the host's memory.)
    """
    limit = memory_mb * 2**20
    if has_gpu() and os.environ.get("AUTORESEARCH_DEVICE", "auto") in ("auto", "cuda"):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
        sys.meta_path.insert(0, _AfterTorch(memory_mb))
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class _AfterTorch(importlib.abc.MetaPathFinder):
    """Prepares the limit of a GPU's memory when the script imports torch.

    Not by importing it earlier: it reads its allocator's settings then, which the script may set.
    """

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                self._prepare(module)

            loader.exec_module = exec_module
        return spec

    def _prepare(self, torch: Any) -> None:
        start = getattr(torch._C, "_cuda_init", None)
        if start is None:  # a build without CUDA
            return

        def start_cuda() -> None:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
            start()

        def limit() -> None:
            # Of no other device: to limit one makes a context there, of hundreds of megabytes.
            device = torch.cuda.current_device()
            total = torch.cuda.get_device_properties(device).total_memory
            fraction = min(1.0, self._memory_mb * 2**20 / total)
            torch.cuda.set_per_process_memory_fraction(fraction, device)

        torch._C._cuda_init = start_cuda
        torch.cuda._lazy_call(limit)


class _Frozen(types.ModuleType):
    """A module whose names can't be given other values from outside."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self.__name__}.{name} is not to be changed.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self.__name__}.{name} is not to be changed.")


def _listen(prepare: Any, metric: int, nonce: str, options: dict[str, Any]) -> None:
    """Let the runner know what the evaluator returns."""
    evaluator = options["evaluator"]
    if hasattr(prepare, evaluator):

        def report(value: float | None) -> None:
            # Without a number, what the script prints is believed.
            message = {"nonce": nonce, "evaluator": value is not None, "value": value}
            _report(metric, message)

        _report(metric, {"nonce": nonce, "evaluator": True})
        evaluate = getattr(prepare, evaluator)
        setattr(prepare, evaluator, _reporting(evaluate, options["name"], report))


def _reporting(
    evaluate: Callable[..., Any], name: str, report: Callable[[float | None], None]
) -> Callable[..., Any]:
    @functools.wraps(evaluate)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        value = evaluate(*args, **kwargs)
        number = None
        with contextlib.suppress(Exception):  # the script, which runs alone, must get its value
            number = _only_number(value, name)
        report(number)
        return value

    return reporting


def _only_number(value: Any, name: str) -> float | None:
    """Return the number that an evaluator returned: the one under the metric's name, or the only one.

    None if it isn't clear which one it is. Nothing that the script gets is changed or used up.
    """
    named = list(_under(value, name))
    for found in (named, [value]):
        numbers = [number for item in found for number in _numbers(item)]
        if len(numbers) == 1:
            return numbers[0]
    return None


def _under(value: Any, name: str) -> Iterator[Any]:
    """Yield what bears the name: items of dictionaries, and attributes, of named tuples too."""
    if isinstance(value, Mapping):
        if name in value:
            yield value[name]
        parts: Iterable[Any] = value.values()
    else:
        own = hasattr(value, "__dict__") or hasattr(value, "_fields")
        if own and (found := getattr(value, name, None)) is not None:
            yield found
        parts = value if isinstance(value, (list, tuple)) else ()
    for part in parts:
        yield from _under(part, name)


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers in what an evaluator returned; an array counts if it holds just one."""
    if isinstance(value, (Mapping, list, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(part)
        return
    with contextlib.suppress(Exception):  # each library has its own for what is no number
        item = value.item() if hasattr(value, "item") else value
        if not isinstance(item, (bool, str, bytes)):
            yield float(item)


def _report(metric: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the runner has died
        os.write(metric, json.dumps(message).encode() + b"\n")


def _fail(error: Exception, folder: str) -> NoReturn:
    """Print the traceback as if train.py had been started directly, and end with status 1."""
    frames = error.__traceback__
    while frames and not frames.tb_frame.f_code.co_filename.startswith(folder):
        frames = frames.tb_next
    try:
        sys.stdout.flush()
        traceback.print_exception(type(error), error, frames)
        sys.stderr.flush()
    except MemoryError:  # a limit so low that not even this fits
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    sys.exit(1)


if __name__ == "__main__":
    main()
