"""Runs inside the process of a training: sets the limits, watches over it, runs the script.

``python launch.py '{"lifeline": 3, ...}'`` in the script's working directory. This file imports
nothing of the project, and nothing but the standard library before the limits hold. It forks:

* The *watcher* outlives a crashed or runaway script. It adopts every orphan of the training
  (Linux: ``PR_SET_CHILD_SUBREAPER``) and, when the training ends or the runner's end of the
  *lifeline* pipe closes (by intent, or because the runner died, be it of ``kill -9``), kills all
  that is left. A byte on the lifeline asks the training to end: SIGTERM.
* Its child becomes the training, in a process group of its own. The evaluator, a function
  of ``prepare.py``, is wrapped, so that what the evaluator returned goes to the runner by the *metric* pipe: that
  counts, whatever the script prints. Each message bears a *nonce*, which the runner wrote to the
  lifeline before anything else and which is neither in the arguments nor in the environment, so
  that a script that finds the pipe and writes to it is not believed.

What this doesn't cover: script and evaluator share one process. Code that reads the wrapper's
variables out of the interpreter can learn the nonce, and code that changes what the evaluator
calls (torch itself, say) changes its result. studies/code_agent/validator.py refuses the ordinary ways to do
either, by their names; a determined author can spell them otherwise. The evaluator of the
embedded testbed takes logits, not losses, and refuses a model that looks ahead; others may not.

A Python script is run in this process, and any other command takes its place, with the same limits
but without a wrapped evaluator.

Options: ``lifeline`` and ``metric`` (file descriptors), ``command`` (words; a first ``python`` is
this interpreter), ``folder`` (that a script's path is relative to), ``evaluator`` (name of the
function) and ``name`` (of what it measures), ``train_seconds`` and ``memory_mb`` (null: as they
are).
"""

from __future__ import annotations

from collections.abc import Callable
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
import traceback
from typing import Any
from typing import NoReturn


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, Windows's in WSL


def main() -> None:
    options = json.loads(sys.argv[1])
    lifeline, metric = options["lifeline"], options["metric"]
    nonce = os.read(lifeline, 32).decode()
    # No core dumps: a crashed training of several gigabytes would leave one each.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    watcher = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(lifeline)
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != watcher:  # it died before we asked to die with it
            os._exit(1)
        _train(metric, nonce, options)
    else:
        try:
            os.setpgid(child, child)  # whoever comes first; the group must exist before a kill
        except OSError:
            pass
        _watch(child, lifeline, metric, nonce)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


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
    try:
        while ended := os.waitpid(-1, os.WNOHANG):
            if not ended[0]:
                break
            if ended[0] == child:
                status = ended[1]
    except ChildProcessError:  # none left
        pass
    return status


def _kill_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM if all that is left are zombies
        pass


def _kill_orphans() -> None:
    """Kill adopted processes (Linux), also those that made a session of their own.

    The children of a killed one are adopted in turn, so this goes on until there are none.
    """
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (pids := children.read_text().split()):
        for pid in map(int, pids):
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


# The training -----------------------------------------------------------------------------------


def _train(metric: int, nonce: str, options: dict[str, Any]) -> None:
    folder = options["folder"]
    python, *arguments = options["command"]
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
        sys.argv = arguments
        if os.path.exists(os.path.join(sys.path[0], "prepare.py")):
            _set_up_prepare(metric, nonce, options)
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


def _limit_memory(memory_mb: int) -> None:
    """Make allocations beyond the limit fail: of the GPU if training is on one, else of the host.

    RLIMIT_DATA counts what a process may really write to, so that PyTorch's CPU allocator fails
    where RLIMIT_AS would count mere reservations. CUDA's own bookkeeping in host memory would meet
    it, so that on a machine with a GPU it holds until PyTorch starts CUDA. Then the device that the
    script is on is limited instead. (Untested with a GPU: there was none where this was written.
    Other frameworks' trainings on a GPU keep the limit of the host's memory.)
    """
    limit = memory_mb * 2**20
    on_gpu = any(map(os.path.exists, GPU_DEVICES))
    if on_gpu and os.environ.get("AUTORESEARCH_DEVICE", "auto") in ("auto", "cuda"):
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


def _set_up_prepare(metric: int, nonce: str, options: dict[str, Any]) -> None:
    """Set the time budget before the script imports it, and listen to the evaluator."""
    prepare: Any = importlib.import_module("prepare")
    train_seconds, evaluator = options["train_seconds"], options["evaluator"]
    if train_seconds is not None:
        # An int where it is one: scripts may print or count with it.
        whole = float(train_seconds).is_integer()
        prepare.TIME_BUDGET = int(train_seconds) if whole else train_seconds
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
        report(_only_number(value, name))
        return value

    return reporting


def _only_number(value: Any, name: str) -> float | None:
    """Return the number that an evaluator returned: alone, under the metric's name, or with others
    that are none."""
    if isinstance(value, dict):
        value = value[name] if name in value else list(value.values())
    if isinstance(value, (list, tuple)):
        numbers = [item for item in value if _to_float(item) is not None]
        value = numbers[0] if len(numbers) == 1 else None
    return _to_float(value)


def _to_float(value: Any) -> float | None:
    if isinstance(value, (bool, str, bytes)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return None


def _report(metric: int, message: dict[str, Any]) -> None:
    try:
        os.write(metric, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:  # the runner has died
        pass


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
