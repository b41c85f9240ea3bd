"""Signals that end a process that trains: at once, or after the running trials.

The system may deliver two signals at the same moment, and a handler may be interrupted by another:
so what a process is told by one signal must not depend on another one that was sent before it.

Stopping is an exception in the middle of whatever runs, and some of it drops exceptions: Python
while it frees an object, libraries that put another error in its place. So it is raised again and
again until somebody handles it. What must not be left half done is `held` together. Where it is
handled the process may meet a lock that nobody will give back: after a while it ends all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
import signal
import sys
import threading
import time
from types import FrameType


REQUEUE = "requeue"
FINISH = "finish"
FINISH_SIGNAL = signal.SIGUSR1
STOP_SIGNAL = signal.SIGUSR2  # of a command to its workers

_AGAIN_SECONDS = 0.2
_HOLD_SECONDS = 5.0  # a storage that is away must not keep a process
_GIVE_UP_SECONDS = 60.0
_GAVE_UP = (
    "it couldn't end properly after a signal to stop; the same command goes on all the same\n"
)
_FINISHING = "the running trials are finished first; once more (Ctrl-C) stops them\n"


class _Told:
    """What signals have told this process, and whether it may stop now.

    Args:
        on_stop: As in `stop_by_signal`.
        own: As there.
    """

    def __init__(self, on_stop: str | None = None, own: bool = True) -> None:
        self.on_stop = on_stop
        self.to_finish = False
        self.number: int = signal.SIGINT  # of the last signal; Python's own handler keeps none
        self.held_until = 0.0  # of the monotonic clock
        self._own = own
        self._to_stop = False
        self._give_up_at = 0.0

    def finish(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal to finish the running trials."""
        if self._own and not self.to_finish:
            os.write(2, _FINISHING.encode())  # `print` must not be used in the middle of another
        self.to_finish = True
        self.number = number

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal to stop."""
        if self.on_stop == FINISH and not self.to_finish and number != STOP_SIGNAL:
            self.finish(number, frame)
            return
        for handled in (signal.SIGINT, signal.SIGTERM, STOP_SIGNAL):
            signal.signal(handled, signal.SIG_IGN)
        self.number = number
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
        self._to_stop = True
        self._give_up_at = time.monotonic() + _GIVE_UP_SECONDS
        if time.monotonic() >= self.held_until:
            raise KeyboardInterrupt

    def stop_again(self, number: int, frame: FrameType | None) -> None:
        """Handle the timer: the exception may have been dropped."""
        if time.monotonic() >= self._give_up_at:
            os.write(2, _GAVE_UP.encode())
            os._exit(exit_status())  # whoever watches over a training ends it then
        self.raise_again()  # whatever this handler interrupts

    def raise_again(self) -> None:
        """Raise the exception of a stop that was dropped, or came while it was held off."""
        if self._to_stop and time.monotonic() >= self.held_until:
            if not is_stop(sys.exc_info()[1]):
                raise KeyboardInterrupt

    def acknowledge(self) -> None:
        self._to_stop = False
        signal.setitimer(signal.ITIMER_REAL, 0)


_told = _Told()


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
    global _told
    _told = _Told(on_stop, own)

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(what)

    sys.unraisablehook = dropped
    signal.signal(signal.SIGALRM, _told.stop_again)
    # Not SIG_IGN, which trainings would inherit.
    signal.signal(signal.SIGINT, _told.stop if own else lambda number, frame: None)
    signal.signal(signal.SIGTERM, _told.stop)
    signal.signal(STOP_SIGNAL, _told.stop)
    if on_stop is not None:
        signal.signal(FINISH_SIGNAL, _told.finish)


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
    if threading.current_thread() is not threading.main_thread():  # no signal interrupts others
        yield
        return
    told = _told
    around = told.held_until
    told.held_until = max(around, time.monotonic() + _HOLD_SECONDS)
    try:
        yield
    finally:
        told.held_until = around
        told.raise_again()


def acknowledge() -> None:
    """Stop raising the exception: the caller has caught it, and ends the work."""
    _told.acknowledge()


def exit_status() -> int:
    """Return the exit status of a process that a signal has ended, as shells write it."""
    return 128 + _told.number


def on_stop() -> str | None:
    """Return the ``on_stop`` that `stop_by_signal` was given."""
    return _told.on_stop


def finishing() -> bool:
    """Return whether a signal asked to finish the running trials and begin no others."""
    return _told.to_finish


def stop_now() -> None:
    """Stop this process as a signal would, from another of its threads."""
    os.kill(os.getpid(), STOP_SIGNAL)
