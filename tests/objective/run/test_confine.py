"""Each test asks the kernel for what a training never needs, in every kind of sandbox."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
import subprocess
import sys

import pytest

from objective.run.sandbox import Sandbox
from tests.conftest import not_here
from tests.objective.run.conftest import attack
from tests.objective.run.conftest import kind_id
from tests.objective.run.conftest import KINDS


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


# What a script asks of the kernel, and what it is answered.
ASKED = {
    # In one of its own a process has all rights: to mount its own file system, for instance.
    "no further name space": (
        """
flags = {"user": 0x10000000, "mount": 0x20000, "net": 0x40000000, "pid": 0x20000000}
for flag in [*flags.values(), 0x2000000, 0x4000000, 0x8000000]:
    print(call(272 if x86 else 97, flag), call(56 if x86 else 220, flag | 17, 0, 0, 0, 0))
print(call(272 if x86 else 97, 0x80))  # of time; clone(2) has a signal there
# clone3 has its flags in memory.
print(call(435, ctypes.create_string_buffer((0x10000000).to_bytes(8, "little") + bytes(80)), 88))
for opened in (os.open("/proc/self/ns/user", os.O_RDONLY), os.pidfd_open(os.getpid())):
    print(call(308 if x86 else 268, opened, 0x10000000))
""",
        "EPERM EPERM\n" * 7 + "EPERM\nENOSYS\nEPERM\nEPERM\n",
    ),
    # Not even who measures: itself, whom it may send anything else.
    "no stop": (
        """
me, pidfd = os.getpid(), os.pidfd_open(os.getpid())
numbers = (62, 200, 234, 129, 297) if x86 else (129, 130, 131, 138, 240)
kill, tkill, tgkill, queue, queue_to_thread = numbers
for stop in (19, 19 | 1 << 32):
    print(call(kill, me, stop), call(tkill, me, stop), call(tgkill, me, me, stop))
    print(call(queue, me, stop, bytes(128)), call(queue_to_thread, me, me, stop, bytes(128)))
    print(call(424, pidfd, stop, None, 0))
print(call(kill, me, 0), call(kill, me, 18))
# Nor by a file, whose owner gets the signal that was set for it.
fcntl = 72 if x86 else 25
print(call(fcntl, pidfd, 10, 19), call(fcntl, pidfd, 10 | 1 << 32, 19), call(fcntl, pidfd, 1))
""",
        "EPERM EPERM EPERM\nEPERM EPERM\nEPERM\n" * 2 + "DID DID\nEPERM EPERM DID\n",
    ),
    # A process that can open no file counts nothing.
    "no limits of others": (
        """
import resource
number, limit = (302 if x86 else 261), ctypes.create_string_buffer((3).to_bytes(8, "little") * 2)
for pid in (1, os.getppid(), os.getpid(), 1 << 32):
    print(call(number, pid, resource.RLIMIT_NOFILE, limit, None))
print(call(number, 0, resource.RLIMIT_NOFILE, None, limit))
""",
        "EPERM\n" * 4 + "DID\n",
    ),
    "no mount": (
        """
print(call(165 if x86 else 40, b"none", b"/tmp", b"tmpfs", 0, b"size=8g"))
print(call(430, b"tmpfs", 0), call(428, -100, b"/", 1), call(429, -100, b"/tmp", -100, b"/", 0))
print(call(161 if x86 else 51, b"/tmp"), call(155 if x86 else 41, b"/tmp", b"/tmp"))
""",
        "EPERM\nEPERM EPERM EPERM\nEPERM EPERM\n",
    ),
    "few families of sockets": (
        """
number, pair = (41, 53) if x86 else (198, 199)
print([family for family in range(50) if call(number, family, 3 if family == 16 else 1, 0) == "DID"])
print({call(number, 16, 3, protocol) for protocol in (6, 12, 15, 1 << 32)})
# The kernel looks at 32 bits of the 64.
print({call(number, family | 1 << 32, 2, 0) for family in (17, 38, 40)})
two = ctypes.create_string_buffer(8)
print([family for family in range(50) for kind in (1, 2, 5) if call(pair, family, kind, 0, two) == "DID"])
print({call(pair, family, 1, 0, two) for family in (2, 10, 16, 30, 30 | 1 << 32)})
""",
        "[1, 2, 10, 16]\n{'EAFNOSUPPORT'}\n{'EAFNOSUPPORT'}\n[1, 1, 1]\n{'EAFNOSUPPORT'}\n",
    ),
    "no memory that counts as no process's": (
        """
print(call(319 if x86 else 279, b"hoard", 0), call(29 if x86 else 194, 0, 1 << 20, 0o1600))
print(call(68 if x86 else 186, 0, 0o1600), call(240 if x86 else 180, b"hoard", 0o102, 0o600, None))
print(call(447, 0), call(425, 8, ctypes.create_string_buffer(120)))
number, zero = 9 if x86 else 222, os.open("/dev/zero", os.O_RDWR)
for flags in (0x21, 0x21 | 1 << 32, 0x40023):  # MAP_SHARED, and MAP_SHARED_VALIDATE of a huge page
    print(call(number, 0, 4096, 3, flags, -1, 0))
print(os.read(zero, 2), call(number, 0, 4096, 3, 1, zero, 0))
""",
        "ENOSYS EPERM\nEPERM EPERM\nEPERM ENOSYS\n" + "EPERM\n" * 3 + "b'\\x00\\x00' ENODEV\n",
    ),
    "no other process, key, program or module of the kernel": (
        """
numbers = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "perf_event_open": (298, 241),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "init_module": (175, 105), "kexec_load": (246, 104), "userfaultfd": (323, 282),
    "name_to_handle_at": (303, 264), "fanotify_init": (300, 262), "vmsplice": (278, 75),
}
print({call(pair[not x86], 0, 0, 0, 0, 0, 0) for pair in numbers.values()})
""",
        "{'EPERM'}\n",
    ),
    "no call of another architecture": (
        """
import mmap
def i386():
    # mov eax, 310 (unshare); mov ebx, CLONE_NEWUSER; int 0x80; ret
    code = bytes.fromhex("53 b836010000 bb00000010 cd80 5b c3")
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    page.write(code)
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
for ask in (lambda: call(0x40000000 + 272, 0x10000000), i386):  # unshare of x32
    if not x86:
        print(-31)
        continue
    child = os.fork()
    if child == 0:
        ask()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        "-31\n-31\n",  # SIGSYS
    ),
    # It has the same user id, and whoever gets code into it is the first.
    "no way into the first process": (
        """
for name in ("mem", "fd/0", "environ", "root", "cwd", "maps"):
    try:
        open(f"/proc/1/{name}", "rb+" if name in ("mem", "fd/0", "root", "cwd") else "rb")
        print("DID", name)
    except OSError as error:
        print(type(error).__name__)
""",
        "PermissionError\n" * 6,
    ),
    "a filter for every thread and child": (
        """
import threading
def modes():
    return {line.split()[1] for task in os.listdir("/proc/self/task")
            for line in open(f"/proc/self/task/{task}/status") if line.startswith("Seccomp:")}
thread = threading.Thread(target=lambda: print(modes(), flush=True))
thread.start(); thread.join()
if os.fork() == 0:
    print(modes(), flush=True); os._exit(0)
os.wait()
first = dict(line.split(":\\t", 1) for line in open("/proc/1/status") if ":\\t" in line)
# bubblewrap's own is root's, out of this user's reach.
print(first["Seccomp"].strip() == "2" or first["Uid"].split()[0] != str(os.getuid()))
""",
        "{'2'}\n{'2'}\nTrue\n",
    ),
}


@pytest.mark.parametrize(("asked", "answered"), ASKED.values(), ids=ASKED)
def test_what_no_training_needs_is_refused(
    sandbox: Sandbox,
    folder: Path,
    asked: str,
    answered: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("objective.run.sandbox._CUDA_DEVICE", "/dev/none")
    assert attack(sandbox, folder, CALL + asked) == answered


@pytest.mark.parametrize("sandbox", KINDS[:1], ids=kind_id, indirect=True)
def test_cuda_may_share_memory_of_no_file(
    sandbox: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objective.run.sandbox._CUDA_DEVICE", "/dev/null")
    share = "import mmap, os\nfor fd in (-1, os.open('/dev/zero', os.O_RDWR)): mmap.mmap(fd, 4096)"
    assert attack(sandbox, folder, f"{share}\nprint('DID')") == "DID\n"


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
