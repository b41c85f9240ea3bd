"""Runs inside the sandbox, before anything that a model wrote: give up rights, then run a command.

`python -I -S confine.py JSON COMMAND...` with JSON keys, each may be missing:

    limits   resource limits, a name without RLIMIT_ to a number (see setrlimit(2))
    uid      the user and group id to become (root only); it owns nothing outside
    mounts   a file system to build and move into, for a sandbox made by unshare(1), which gives
             the namespaces but no view of the files; bubblewrap does this part itself
    root     an empty folder to build it on
    lifeline a pipe to read from; at its end all is over
    cuda     whether memory of no file may be shared, as CUDA does with its driver

If it is the first process of a PID namespace, it stays that as the parent of the command. It has an
empty session keyring, and a filter of system calls (libseccomp), which holds for all that it starts.
Nothing of the project is imported here, and only the standard library.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
import threading


# From linux/mount.h, linux/prctl.h, linux/securebits.h; old libcs wrap none of it.
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, AT_RECURSIVE, AT_FDCWD = 1, 2, 0x8000, -100
SYS_MOUNT_SETATTR = 442  # the same number on every architecture since Linux 5.12
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 28, 38
SECBIT_NOROOT_LOCKED = 0b11
DEVICES = ("null", "zero", "full", "random", "urandom")
MAX_FILES = 100_000  # of a file system in memory: each takes a kilobyte of the kernel's

# linux/seccomp.h, sched.h, seccomp.h of libseccomp (SCMP_ACT_*, enum scmp_compare), keyctl.h
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO = 0x7FFF0000, 0x50000
SCMP_CMP_NE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_MASKED_EQ = 1, 4, 5, 7
KEYCTL_JOIN_SESSION_KEYRING = 1
# Flags of clone(2) that make a name space. In a new user name space a process has all rights over
# the other ones, among them to mount a file system of any size.
CLONE_NEW = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
# Calls that send a signal, and which of their arguments it is.
SIGNALLING = {
    **{"kill": 1, "tkill": 1, "rt_sigqueueinfo": 1, "pidfd_send_signal": 1},
    **{"tgkill": 2, "rt_tgsigqueueinfo": 2},
}
F_SETSIG = 10
SOCKET_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
# System calls that no training needs. ("No such call" where programs have another way then.)
REFUSED = {
    errno.EPERM: (
        # name spaces and mounts
        *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree"),
        *("open_tree_attr", "move_mount", "mount_setattr", "fsopen", "fsconfig", "fsmount"),
        *("fspick", "swapon", "swapoff", "quotactl", "quotactl_fd"),
        # other processes
        *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"),
        *("process_madvise", "perf_event_open"),
        # keys of the kernel, its programs, modules, clocks and log
        *("keyctl", "add_key", "request_key", "bpf", "init_module", "finit_module"),
        *("delete_module", "kexec_load", "kexec_file_load", "reboot", "acct", "syslog"),
        *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname"),
        *("setdomainname", "iopl", "ioperm", "modify_ldt", "vhangup", "fanotify_init"),
        # files by handle, beside the view of the file system
        *("open_by_handle_at", "name_to_handle_at"),
        # where much of the kernel's trouble was
        *("userfaultfd", "vmsplice"),
        # memory that counts as no process's: System V, message queues
        *("shmget", "msgget", "semget", "mq_open", "memfd_secret"),
    ),
    errno.ENOSYS: (
        "clone3",  # its flags lie in memory, where a filter can't look; clone(2) does the same
        *("io_uring_setup", "io_uring_enter", "io_uring_register"),
        "memfd_create",  # memory that counts as no process's
    ),
}


class MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


class ArgCompare(ctypes.Structure):
    """struct scmp_arg_cmp of libseccomp; a masked comparison has the mask first."""

    _fields_ = [
        *(("arg", ctypes.c_uint), ("op", ctypes.c_int)),
        *(("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64)),
    ]


libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode() if kind else None)
    check(libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def read_only(target: str) -> None:
    """Make a mount and all below it read-only, without a look at the flags that they must keep."""
    attr = MountAttr(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    arguments = (AT_FDCWD, target.encode(), AT_RECURSIVE, ctypes.byref(attr), size)
    check(libc.syscall(SYS_MOUNT_SETATTR, *arguments), f"read-only {target}")


def make_target(path: str, like: str) -> None:
    """Make an empty folder or file to mount on, of the same sort as what will be mounted."""
    if os.path.isdir(like):
        os.makedirs(path, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w"):
            pass


def build_root(root: str, mounts: list[list[str]]) -> None:
    """Make the file system of `mounts` (kind, path, detail) on `root`, and move into it."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for kind, path, detail in mounts:
        target = root + path
        if kind == "dir":
            os.makedirs(target, exist_ok=True)
        elif kind == "link":
            os.symlink(detail, target)
        elif kind in ("ro", "dev"):
            make_target(target, like=path)
            mount(detail or path, target, None, MS_BIND | MS_REC)
            if kind == "ro":
                read_only(target)
        elif kind == "hidden":
            if os.path.isdir(target):
                mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=555")
                read_only(target)
            else:
                mount("/dev/null", target, None, MS_BIND)
        else:
            os.makedirs(target, exist_ok=True)
            if kind == "proc":
                mount("proc", target, "proc", MS_NOSUID | MS_NODEV)
            elif kind == "devices":
                build_devices(target)
            elif kind == "tmpfs":
                data = f"size={detail},nr_inodes={MAX_FILES},mode=1777"
                mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, data)
    for path in ("/", "/dev"):
        # Only these two themselves: what is mounted below them has its own rights.
        mount("none", root + path, None, MS_BIND | 0x20 | 1 | MS_NOSUID | MS_NODEV)
    os.chdir(root)
    check(libc.syscall(pivot_root_number(), b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def build_devices(target: str) -> None:
    mount("tmpfs", target, "tmpfs", MS_NOSUID, "size=64k,mode=755")
    for name in DEVICES:
        make_target(f"{target}/{name}", like="/dev/null")
        mount(f"/dev/{name}", f"{target}/{name}", None, MS_BIND)
    os.symlink("/proc/self/fd", f"{target}/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{target}/{name}")
    os.mkdir(f"{target}/shm")


def pivot_root_number() -> int:
    return {"x86_64": 155, "aarch64": 41, "riscv64": 41}[os.uname().machine]


def give_up_rights(uid: int | None) -> None:
    """Drop all capabilities for good, and become another user if one is named."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # beyond the last one that this kernel knows, or none of them was there to drop
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    # In a user namespace of its own it is "root" still: without this, exec gives the rights back.
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED, 0, 0, 0)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def forbid_user_namespaces() -> None:
    """Allow no user name space below this one. The filter forbids them too."""
    try:
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
    except OSError:  # the machine's own, which is not ours to change
        pass


def leave_keyrings() -> None:
    """Replace the session keyring, which is inherited from the login, by an empty one."""
    number = load_seccomp().seccomp_syscall_resolve_name(b"keyctl")
    if libc.syscall(number, KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        # Without keys in the kernel, or where an outer filter forbids them, there is none to see.
        if ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
            check(-1, "session keyring")


def load_seccomp() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise OSError("libseccomp must be installed (Debian: libseccomp2)") from None
    library.seccomp_init.restype = ctypes.c_void_p
    return library


def filter_system_calls(cuda: bool) -> None:
    """Refuse, from now on and for all children, what no training needs (CUDA needs more)."""
    library = load_seccomp()
    # What isn't named is allowed; calls of another architecture (32 bits) end the process.
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(SCMP_ACT_ALLOW)))

    def refuse(name: str, number: int, *when: ArgCompare) -> None:
        call = library.seccomp_syscall_resolve_name(name.encode())
        if call == -1:  # unknown to this libseccomp, as a new call is
            return
        action = ctypes.c_uint32(SCMP_ACT_ERRNO | number)
        compare = (ArgCompare * max(1, len(when)))(*when)
        result = library.seccomp_rule_add_array(rules, action, call, len(when), compare)
        if result < 0:
            raise OSError(-result, f"filter of {name}: {os.strerror(-result)}")

    for number, names in REFUSED.items():
        for name in names:
            refuse(name, number)
    for flag in CLONE_NEW:
        refuse("clone", errno.EPERM, ArgCompare(0, SCMP_CMP_MASKED_EQ, flag, flag))
    for family in range(64):
        if family not in SOCKET_FAMILIES:
            refuse("socket", errno.EAFNOSUPPORT, ArgCompare(0, SCMP_CMP_EQ, family, 0))
        if family != socket.AF_UNIX:  # some modules, TIPC's for one, make pairs too
            refuse("socketpair", errno.EAFNOSUPPORT, ArgCompare(0, SCMP_CMP_EQ, family, 0))
    # Also what has bits above the 32 that the kernel looks at.
    for call in ("socket", "socketpair"):
        refuse(call, errno.EAFNOSUPPORT, ArgCompare(0, SCMP_CMP_GE, 64, 0))
    if not cuda:
        # Memory that is shared without a file stays when processes let go of it (madvise(2)), and
        # counts as nobody's then. (MAP_SHARED_VALIDATE has the bit of MAP_SHARED, too.)
        shared = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
        refuse("mmap", errno.EPERM, ArgCompare(3, SCMP_CMP_MASKED_EQ, shared, shared))
    # Whoever measures must not be stopped for a while, nor kept from opening files.
    refuse("prlimit64", errno.EPERM, ArgCompare(0, SCMP_CMP_NE, 0, 0))
    for call, argument in SIGNALLING.items():
        stop = ArgCompare(argument, SCMP_CMP_MASKED_EQ, 0xFFFFFFFF, signal.SIGSTOP)
        refuse(call, errno.EPERM, stop)
    # Nor by a file that sends it for its owner, who may be anybody.
    refuse("fcntl", errno.EPERM, ArgCompare(1, SCMP_CMP_MASKED_EQ, 0xFFFFFFFF, F_SETSIG))
    # NETLINK_ROUTE, which is 0, tells libraries of the network's interfaces.
    netlink = ArgCompare(0, SCMP_CMP_EQ, socket.AF_NETLINK, 0)
    refuse("socket", errno.EAFNOSUPPORT, netlink, ArgCompare(2, SCMP_CMP_GE, 1, 0))
    result = library.seccomp_load(rules)
    if result < 0:
        raise OSError(-result, f"filter of system calls: {os.strerror(-result)}")


def supervise(lifeline: int | None) -> None:
    """Be the first process of a PID namespace; returns in its child, which becomes the command.

    It reaps orphans and passes the command's status on. When it ends, the kernel ends all others
    of the namespace. (It ignores signals without a handler, so it must not be the command itself.)
    """
    child = os.fork()
    if child == 0:
        return
    # Its children have the same user id: without this they could write into its memory.
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")

    def wait_for_end() -> None:
        poll.poll()
        os._exit(128 + signal.SIGKILL)

    if lifeline is not None:
        # Only for its end: what is written to it is for others to read.
        poll = select.poll()
        poll.register(lifeline, 0)
        threading.Thread(target=wait_for_end, daemon=True).start()
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def main() -> None:
    spec, command = json.loads(sys.argv[1]), sys.argv[2:]
    folder = os.getcwd()
    try:
        # Should memory run out all the same, the kernel ends what runs here first.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass
    if "mounts" in spec:
        build_root(spec["root"], spec["mounts"])
        os.chdir(folder)
    if spec.get("user_namespace"):
        forbid_user_namespaces()
    leave_keyrings()
    for name, limit in spec.get("limits", {}).items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    give_up_rights(spec.get("uid"))
    # Only now: becoming another user clears it.
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    filter_system_calls(spec.get("cuda", False))
    if os.getpid() == 1:
        supervise(spec.get("lifeline"))
    # getpass.getuser(), which torch calls, needs a name, and this user id has none.
    os.environ.setdefault("LOGNAME", "trial")
    os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"confine: {error}")
