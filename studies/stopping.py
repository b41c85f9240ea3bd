"""Signals that end a process that trains: at once, or after the running trials.

The system may deliver two signals at the same moment, and a handler may be interrupted by another:
so what a process is told by one signal must not depend on another one that was sent before it.

Stopping is an exception in the middle of whatever runs, and some of it drops exceptions: Python
while it frees an object, libraries that put another error in its place. So it is raised again and
again until somebody handles it. What must not be left half done is `held` together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
import signal
import sys
import time
from types import FrameType


REQUEUE = "requeue"
FINISH = "finish"
FINISH_SIGNAL = signal.SIGUSR1
STOP_SIGNAL = signal.SIGUSR2  # of a command to its workers

_AGAIN_SECONDS = 0.2
_HOLD_SECONDS = 5.0  # a storage that is away must not keep a process
_told_to_finish = False
_told_to_stop = False
_held_until = 0.0  # of the monotonic clock
_on_stop: str | None = None


def stop_by_signal(on_stop: str | None = None, *, own: bool = True) -> None:
    """Make SIGTERM the same as Ctrl-C, and say what they do.

    What stops the work does so once, with all its cleaning up: an impatient second signal would
    leave a training running and a trial unfinished.

    Args:
        on_stop: ``requeue``: stop now, and let the next worker repeat the running trial.
            ``finish``: let the running trial finish first, unless there is a second signal. With
            either of them, ``FINISH_SIGNAL`` lets it finish. ``None`` is ``requeue`` without it,
            for work that knows nothing of `finishing`. ``STOP_SIGNAL`` always stops now.
        own: Whether Ctrl-C is this process's own. A terminal sends it to the processes that the
            command has started, too; those wait for what the command tells them.
    """
    global _on_stop, _told_to_finish, _told_to_stop
    _on_stop = on_stop
    _told_to_finish = _told_to_stop = False

    def finish(number: int, frame: FrameType | None) -> None:
        global _told_to_finish
        if own and not _told_to_finish:
            os.write(2, _FINISHING.encode())  # `print` must not be used in the middle of another
        _told_to_finish = True

    def stop(number: int, frame: FrameType | None) -> None:
        global _told_to_stop
        if on_stop == FINISH and not _told_to_finish and number != STOP_SIGNAL:
            finish(number, frame)
            return
        for handled in (signal.SIGINT, signal.SIGTERM, STOP_SIGNAL):
            signal.signal(handled, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
        _told_to_stop = True
        if time.monotonic() >= _held_until:
            raise KeyboardInterrupt

    def stop_again(number: int, frame: FrameType | None) -> None:
        if time.monotonic() >= _held_until:
            _stop_unless_stopping()  # whatever this handler interrupts

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(what)

    sys.unraisablehook = dropped
    signal.signal(signal.SIGALRM, stop_again)
    # Not SIG_IGN, which trainings would inherit.
    signal.signal(signal.SIGINT, stop if own else lambda number, frame: None)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(STOP_SIGNAL, stop)
    if on_stop is not None:
        signal.signal(FINISH_SIGNAL, finish)


_FINISHING = "the running trials are finished first; once more (Ctrl-C) stops them\n"


def is_stop(error: BaseException | None) -> bool:
    """Return whether an exception is the one of a signal, or was raised while that was handled."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


@contextmanager
def held() -> Iterator[None]:
    """Let a stop come before or after what is done within, unless that takes many seconds."""
    global _held_until
    _held_until = time.monotonic() + _HOLD_SECONDS
    try:
        yield
    finally:
        _held_until = 0.0
        if _told_to_stop:
            _stop_unless_stopping()


def _stop_unless_stopping() -> None:
    if not is_stop(sys.exc_info()[1]):
        raise KeyboardInterrupt


def acknowledge() -> None:
    """Stop raising the exception: the caller has caught it, and ends the work."""
    global _told_to_stop
    _told_to_stop = False
    signal.setitimer(signal.ITIMER_REAL, 0)


def on_stop() -> str | None:
    """Return the ``on_stop`` that `stop_by_signal` was given."""
    return _on_stop


def finishing() -> bool:
    """Return whether a signal asked to finish the running trials and begin no others."""
    return _told_to_finish


def stop_now() -> None:
    """Stop this process as a signal would, from another of its threads."""
    os.kill(os.getpid(), STOP_SIGNAL)
