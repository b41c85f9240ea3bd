"""Each test asks the kernel for what a training never needs, in every kind of sandbox."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
import subprocess
import sys

from objective.run.sandbox import Sandbox
from tests.conftest import not_here
from tests.objective.run.conftest import attack


# Calls by number, as code does that means to get past a library.
CALL = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    arguments = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return "DID" if result >= 0 else errno.errorcode[ctypes.get_errno()]
x86 = platform.machine() == "x86_64"
"""


def test_no_further_name_space_can_be_made(sandbox: Sandbox, folder: Path) -> None:
    """In one of its own a process has all rights: to mount its own file system, for instance."""
    output = attack(
        sandbox,
        folder,
        CALL
        + """
flags = {"user": 0x10000000, "mount": 0x20000, "net": 0x40000000, "time": 0x80}
for flag in flags.values():
    print(call(272 if x86 else 97, flag), call(56 if x86 else 220, flag | 17, 0, 0, 0, 0))
# clone3 has its flags in memory.
print(call(435, ctypes.create_string_buffer((0x10000000).to_bytes(8, "little") + bytes(80)), 88))
print(call(308 if x86 else 268, os.open("/proc/self/ns/user", os.O_RDONLY), 0))
""",
    )
    assert output == "EPERM EPERM\n" * 4 + "ENOSYS\nEPERM\n"


def test_nothing_can_be_mounted(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        CALL
        + """
print(call(165 if x86 else 40, b"none", b"/tmp", b"tmpfs", 0, b"size=8g"))
print(call(430, b"tmpfs", 0), call(428, -100, b"/", 1))
print(call(161 if x86 else 51, b"/tmp"))
""",
    )
    assert output == "EPERM\nEPERM EPERM\nEPERM\n"


def test_sockets_are_of_few_families(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        CALL
        + """
import socket
number = 41 if x86 else 198
print([family for family in range(50) if call(number, family, 3 if family == 16 else 1, 0) == "DID"])
print({call(number, 16, 3, protocol) for protocol in (6, 12, 15, 1 << 32)})
# The kernel looks at 32 bits of the 64.
print({call(number, family | 1 << 32, 2, 0) for family in (17, 38, 40)})
""",
    )
    assert output == "[1, 2, 10, 16]\n{'EAFNOSUPPORT'}\n{'EAFNOSUPPORT'}\n"


def test_memory_that_counts_as_no_processs_is_refused(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        CALL
        + """
print(call(319 if x86 else 279, b"hoard", 0), call(29 if x86 else 194, 0, 1 << 20, 0o1600))
print(call(68 if x86 else 186, 0, 0o1600), call(240 if x86 else 180, b"hoard", 0o102, 0o600, None))
print(call(447, 0), call(425, 8, ctypes.create_string_buffer(120)))
""",
    )
    assert output == "ENOSYS EPERM\nEPERM EPERM\nEPERM ENOSYS\n"


def test_calls_of_another_architecture_end_the_process(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        CALL
        + """
if not x86:
    print(-31)
else:
    child = os.fork()
    if child == 0:
        call(0x40000000 + 272, 0x10000000)  # unshare of x32
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
    )
    assert output == "-31\n"  # SIGSYS


def test_the_first_process_cannot_be_written_into(sandbox: Sandbox, folder: Path) -> None:
    """It has the same user id, and whoever gets code into it is the first."""
    output = attack(
        sandbox,
        folder,
        """
        import os
        for name in ("mem", "fd/0", "environ", "root"):
            try:
                open(f"/proc/1/{name}", "rb" if name == "environ" else "rb+")
                print("DID", name)
            except OSError as error:
                print(type(error).__name__)
        """,
    )
    assert output == "PermissionError\n" * 4


def test_it_sees_no_keyring(sandbox: Sandbox, folder: Path) -> None:
    machine = {"x86_64": (248, 250), "aarch64": (217, 219)}
    numbers = machine.get(os.uname().machine)
    if numbers is None or ctypes.CDLL(None).syscall(numbers[1], 1, b"test") < 0:
        not_here("this kernel has no keyrings, or their numbers are not known")
    plant = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None);"
        f"libc.syscall({numbers[1]}, 1, b'test-ring');"
        f"libc.syscall({numbers[0]}, b'user', b'planted-secret', b'hunter2', 7, -3);"
        "print('planted' if 'planted-secret' in open('/proc/keys').read() else 'none', flush=True);"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    script = (
        "import ctypes\n"
        "try: print('planted-secret' in open('/proc/keys').read())\n"
        "except OSError: print(False)\n"
        f"print(ctypes.CDLL(None).syscall({numbers[1]}, 10, -3, b'user', b'planted-secret', 0))"
    )
    argv = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(
        [sys.executable, "-c", plant, *sandbox.command(argv, folder=folder)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout == "planted\nFalse\n-1\n", done.stderr


def test_the_filter_holds_for_every_thread_and_child(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        """
        import os, threading
        def modes():
            return {line.split()[1] for task in os.listdir("/proc/self/task")
                    for line in open(f"/proc/self/task/{task}/status") if line.startswith("Seccomp:")}
        thread = threading.Thread(target=lambda: print(modes(), flush=True))
        thread.start(); thread.join()
        if os.fork() == 0:
            print(modes(), flush=True); os._exit(0)
        os.wait()
        first = dict(line.split(":\t", 1) for line in open("/proc/1/status") if ":\t" in line)
        # bubblewrap's own is root's, out of this user's reach.
        print(first["Seccomp"].strip() == "2" or first["Uid"].split()[0] != str(os.getuid()))
        """,
    )
    assert output == "{'2'}\n{'2'}\nTrue\n"
