"""The effect of signals on a process that works."""

from __future__ import annotations

import subprocess
import sys

import pytest

from studies.stopping import FINISH
from studies.stopping import FINISH_SIGNAL
from studies.stopping import REQUEUE
from studies.stopping import STOP_SIGNAL


def stopped(on_stop: str | None, work: str) -> list[str]:
    """Print what a process says that does some work and then sleeps."""
    script = (
        "import os, signal, time\n"
        "from studies import stopping\n"
        "def tell(number): os.kill(os.getpid(), number)\n"
        f"stopping.stop_by_signal({on_stop!r}, own=False)\n"
        "try:\n"
        f"{work}"
        "    time.sleep(5)\n"
        "    print('finished', stopping.finishing())\n"
        "except KeyboardInterrupt:\n"
        "    stopping.acknowledge()\n"
        "    time.sleep(0.5)\n"
        "    print('stopped')\n"
        "time.sleep(0.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_signal_stops_a_process_also_while_it_frees_an_object() -> None:
    """Python drops the exception of a handler that runs at that moment."""
    work = (
        "    class Freed:\n"
        "        def __del__(self):\n"
        "            tell(signal.SIGTERM)\n"
        "    Freed()\n"
    )
    assert stopped(None, work) == ["stopped"]


@pytest.mark.parametrize("on_stop", [None, REQUEUE, FINISH])
def test_a_worker_is_stopped_by_one_signal_whatever_it_was_told_before(
    on_stop: str | None,
) -> None:
    assert stopped(on_stop, f"    tell({int(STOP_SIGNAL)})\n") == ["stopped"]


@pytest.mark.parametrize(
    "what_a_library_does",
    ["pass", "raise ValueError", "raise ValueError from None", "return"],
)
def test_a_stop_that_a_library_drops_comes_again(what_a_library_does: str) -> None:
    work = (
        "    def library():\n"
        f"        try: tell({int(STOP_SIGNAL)})\n"
        f"        except KeyboardInterrupt: {what_a_library_does}\n"
        "    try: library()\n"
        "    except ValueError: pass\n"
    )
    assert stopped(REQUEUE, work) == ["stopped"]


def test_a_stop_does_not_interrupt_what_is_done_because_of_it() -> None:
    work = (
        "    def put_back():\n"
        "        try: raise ValueError\n"
        "        except ValueError: time.sleep(0.5)\n"
        "        print('done')\n"
        f"    try: tell({int(STOP_SIGNAL)})\n"
        "    except KeyboardInterrupt:\n"
        "        put_back()\n"
        "        raise\n"
    )
    assert stopped(REQUEUE, work) == ["done", "stopped"]


def test_a_process_ends_though_a_lock_keeps_it_from_ending_properly() -> None:
    script = (
        "import os, threading\n"
        "from studies import stopping\n"
        "stopping._GIVE_UP_SECONDS = 0.5\n"
        "stopping.stop_by_signal(own=False)\n"
        "lock = threading.Lock()\n"
        "lock.acquire()\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(STOP_SIGNAL)})\n"
        "finally:\n"
        "    lock.acquire()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 128 + STOP_SIGNAL
    assert done.stderr.startswith("it couldn't end properly") and done.stderr.count("\n") == 1


def test_what_is_held_together_is_stopped_before_or_after() -> None:
    work = (
        "    with stopping.held():\n"
        f"        tell({int(STOP_SIGNAL)})\n"
        "        with stopping.held(): time.sleep(0.5)\n"
        "        print('whole')\n"
        "    print('more')\n"
    )
    assert stopped(REQUEUE, work) == ["whole", "stopped"]
    raised = work.replace("print('whole')", "raise ValueError")  # which isn't to hide the stop
    assert stopped(REQUEUE, raised) == ["stopped"]
    for_long = "    stopping._HOLD_SECONDS = 0.3\n" + work.replace("0.5", "60")
    assert stopped(REQUEUE, for_long) == ["stopped"]


def test_a_signal_to_stop_counts_in_the_middle_of_one_to_finish() -> None:
    """The system may deliver both at once, and then one handler interrupts the other."""
    work = (
        f"    handler = signal.getsignal({int(FINISH_SIGNAL)})\n"
        "    def interrupted(number, frame):\n"
        f"        tell({int(STOP_SIGNAL)})\n"
        "        handler(number, frame)\n"
        f"    signal.signal({int(FINISH_SIGNAL)}, interrupted)\n"
        f"    tell({int(FINISH_SIGNAL)})\n"
    )
    assert stopped(FINISH, work) == ["stopped"]
    told = work.replace(f"tell({int(STOP_SIGNAL)})", "pass")
    assert stopped(FINISH, told) == ["finished", "True"]
