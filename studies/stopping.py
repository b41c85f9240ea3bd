"""Signals that end a process that trains: at once, or after the running trials.

The system may deliver two signals at the same moment, and a handler may be interrupted by another:
so what a process is told by one signal must not depend on another one that was sent before it.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


REQUEUE = "requeue"
FINISH = "finish"
FINISH_SIGNAL = signal.SIGUSR1
STOP_SIGNAL = signal.SIGUSR2  # of a command to its workers

_AGAIN_SECONDS = 0.05
_told_to_finish = False
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
    global _on_stop, _told_to_finish
    _on_stop = on_stop
    _told_to_finish = False

    def finish(number: int, frame: FrameType | None) -> None:
        global _told_to_finish
        if own and not _told_to_finish:
            os.write(2, _FINISHING.encode())  # `print` must not be used in the middle of another
        _told_to_finish = True

    def stop(number: int, frame: FrameType | None) -> None:
        global _told_to_finish
        if on_stop == FINISH and not _told_to_finish and number != STOP_SIGNAL:
            finish(number, frame)
            return
        # Should the exception be lost, this process begins no other trial.
        _told_to_finish |= number == STOP_SIGNAL
        for handled in (signal.SIGINT, signal.SIGTERM, STOP_SIGNAL):
            signal.signal(handled, signal.SIG_IGN)
        raise KeyboardInterrupt

    def stop_again(dropped: sys.UnraisableHookArgs) -> None:
        # Python drops what is raised while it frees an object, as a signal's handler may.
        if dropped.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            sys.__unraisablehook__(dropped)

    sys.unraisablehook = stop_again
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    # Not SIG_IGN, which trainings would inherit.
    signal.signal(signal.SIGINT, stop if own else lambda number, frame: None)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(STOP_SIGNAL, stop)
    if on_stop is not None:
        signal.signal(FINISH_SIGNAL, finish)


_FINISHING = "the running trials are finished first; once more (Ctrl-C) stops them\n"


def on_stop() -> str | None:
    """Return the ``on_stop`` that `stop_by_signal` was given."""
    return _on_stop


def finishing() -> bool:
    """Return whether a signal asked to finish the running trials and begin no others."""
    return _told_to_finish


def stop_now() -> None:
    """Stop this process as a signal would, from another of its threads."""
    os.kill(os.getpid(), STOP_SIGNAL)
