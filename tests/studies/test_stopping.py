"""The effect of signals on a process that works."""

from __future__ import annotations

import subprocess
import sys


def test_a_signal_stops_a_process_also_while_it_frees_an_object() -> None:
    """Python drops the exception of a handler that runs at that moment."""
    script = (
        "import os, signal, time\n"
        "from studies.stopping import stop_by_signal\n"
        "class Freed:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "stop_by_signal()\n"
        "try:\n"
        "    Freed()\n"
        "    time.sleep(30)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("stopped\n", "")
