"""Isolation for scripts that a language model wrote: what the system offers, strongest first.

    bubblewrap   bwrap(1): the usual tool, also in containers and for ordinary users
    namespaces   unshare(1) of util-linux, with objective/run/confine.py to lay out the files
    none         nothing works here; model-written code is then only run if the user insists

Both give the script

- a view of the system by allow-list, read-only: the system's programs and libraries, this Python,
  the caches with the corpus. Not there: the home folder, other users, /run with its sockets, /etc
  but for the loader's files. Its own folder, /tmp and the home folder are memory of limited size,
  which is gone when the run ends; train.py and prepare.py lie in the folder, read-only;
- no network: a network namespace whose only interface is its own loopback, and sockets of no
  families but UNIX, IP and IPv6 (and of netlink, the list of interfaces);
- a PID namespace: it sees no other process, and all of its own end with its first, also those that
  left the process group or ignore signals. The first ends with the runner, however that ends;
- no capabilities, no_new_privs, and, if the runner is root, a user id that owns nothing, so that
  the limit on processes holds (the kernel exempts root from it);
- a filter of system calls (libseccomp), which refuses what no training needs: further namespaces,
  mounts, other processes' memory, keyrings, io_uring, and memory that counts as no process's;
- limits: processes, size of a file, open files, CPU time, no core dumps; and from outside
  :meth:`Sandbox.excess`, four times a second, for what no limit of a single process can hold: the
  number, memory, files and sockets of all together.

docs/safety.md has the table of what is claimed, by which mechanism, and what is not covered.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import functools
import json
import logging
import os
from pathlib import Path
import re
import secrets
import shutil
import site
import subprocess
import sys
import tempfile

import psutil

from objective.run.processor_time import process_tree


_logger = logging.getLogger(__name__)

BUBBLEWRAP = "bubblewrap"
NAMESPACES = "namespaces"
NONE = "none"

CONFINE = Path(__file__).with_name("confine.py")
# A script, its threads and torch's compiler workers. No more than these need: until they are
# killed, those of a fork bomb take their share of the processor from whoever is to kill them.
MAX_TASKS = 64 + 16 * (os.cpu_count() or 1)
MAX_OPEN_FILES = 1024
DISK_MB = 512
MAX_FILES = 100_000  # in all places that can be written; each takes a kilobyte of the kernel's
MAX_SOCKETS = 1000  # each may hold a fifth of a megabyte on its way, which counts as nobody's
# What the processes of a sandbox that hold the limit may use besides: launcher, watcher, stacks.
_OVERHEAD_MB = 100
# User ids that Debian's policy and systemd leave alone; one per run, since the limit on processes
# counts those of a user.
_UIDS = range(64_000, 65_000)

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/passwd",
    "/sys/devices",
    "/sys/bus/pci",
    "/sys/module/nvidia",
)
# Under the home folder: corpora and tokenizers of karpathy/autoresearch, and kernels that were
# fetched before. Not all of .cache/huggingface: it holds a token.
_CACHES = (
    ".cache/autoresearch",
    ".cache/huggingface/hub",
)
# Root may write these by its user id alone, without any capability, from any namespace.
_KERNEL_SETTINGS = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus")
# Besides the home folder, and the folder of the trial's own folder.
_NEVER_SHOWN = ("/tmp", "/run", "/var", "/etc", "/dev", "/proc", "/sys", "/root", "/home")
# Of keys, of the kernel's memory and of other processes' timers.
_KERNEL_SECRETS = (
    *("/proc/keys", "/proc/key-users", "/proc/kcore", "/proc/kallsyms"),
    *("/proc/timer_list", "/proc/sched_debug"),
)
_GPU_DEVICES = ("nvidia*", "dri", "kfd", "dxg")
# CUDA shares memory of no file with its driver. (Not tried: there was no GPU where this was written.)
_CUDA_DEVICE = "/dev/nvidiactl"


# Can it import, write its folder, and (with another user's rights) read the caches?
_PROBE = """
import json, os, sys, zlib
open("own", "w").close()
for folder in filter(os.path.exists, sys.argv[1:]):
    for path in (folder, *(os.path.join(folder, name) for name in os.listdir(folder))):
        if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            sys.exit(f"{path} is not readable")
print(os.listdir("."))
"""


class SandboxError(RuntimeError):
    """Model-written code can't be run here safely; the message says what would help."""


@dataclass(frozen=True)
class Usage:
    """The resources that a process and its descendants use together.

    Attributes:
        tasks: Processes and threads.
        memory_mb: Resident and not of a file: anonymous and shared; and what was swapped out, and
            page tables. Pages that processes share count for each; see
            :func:`proportional_memory_mb`.
        files_mb: Size of their files in memory.
        files: Number of these.
        sockets: Open sockets of their network namespace.
    """

    tasks: int
    memory_mb: float
    files_mb: float = 0.0
    files: int = 0
    sockets: int = 0


@dataclass(frozen=True)
class Sandbox:
    """One way to isolate a command; made by :func:`find_sandbox`.

    Attributes:
        name: ``bubblewrap`` or ``namespaces``; recorded on a trial as ``isolation``.
        user_namespace: Whether it needs a user namespace (ordinary users do; root does without).
    """

    name: str
    user_namespace: bool

    def command(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        read_only: Iterable[Path] = (),
        hidden: Iterable[Path] = (),
        wall_seconds: float = 3600.0,
        disk_mb: int = DISK_MB,
        max_tasks: int = MAX_TASKS,
        lifeline: int | None = None,
    ) -> list[str]:
        """Return the command that runs ``argv`` in the sandbox and passes open files on.

        Args:
            argv: The command.
            folder: Its working folder. The files that lie in it are there read-only, and what the
                command writes beside them is gone afterwards.
            read_only: Further files and folders to show, e.g. the corpus.
            hidden: Files and folders to show empty where they lie in others that are shown.
            wall_seconds: What the caller will end it after; here it only bounds the CPU time.
            disk_mb: Size of each place that can be written, and of one file.
            max_tasks: Processes and threads.
            lifeline: Read end of a pipe whose write end only the caller has: when the caller
                closes it or dies, all is over.

        Raises:
            SandboxError: A place to be shown contains one that is never shown.
        """
        folder = folder.resolve()
        limits = {
            "NPROC": max_tasks,
            "FSIZE": disk_mb * 2**20,
            "NOFILE": MAX_OPEN_FILES,
            "CPU": int(wall_seconds * (os.cpu_count() or 1)) + 10,
            "CORE": 0,
        }
        spec: dict[str, object] = {"limits": limits, "lifeline": lifeline}
        spec["cuda"] = os.path.exists(_CUDA_DEVICE)
        if not self.user_namespace:
            spec["uid"] = secrets.choice(_UIDS)
        mounts = _mounts(folder, read_only, hidden, disk_mb)
        confine = [sys.executable, "-I", "-S", str(CONFINE)]
        if self.name == BUBBLEWRAP:
            options = _bubblewrap_options(mounts, self.user_namespace)
            return [
                "bwrap",
                *options,
                "--chdir",
                str(folder),
                "--",
                *confine,
                json.dumps(spec),
                *argv,
            ]
        spec |= {"root": str(_empty_folder()), "mounts": mounts}
        spec["user_namespace"] = self.user_namespace
        options = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL"]
        if self.user_namespace:
            options += ["--user", "--map-root-user"]
        # The working folder is the child's, who sets it by the folder that it was started in.
        start = ["unshare", *options, f"--wd={folder}", "--"]
        return [*start, *confine, json.dumps(spec), *argv]

    def excess(self, pid: int, memory_mb: int | None) -> str:
        """Name what all processes together have too much of.

        That is ``processes``, ``files``, ``sockets`` or ``memory``.

        Args:
            pid: Of the process that :meth:`command` became.
            memory_mb: The limit of their memory, with that of their files, which are in memory
                too; None is none.

        Returns:
            An empty text if it is neither.
        """
        # About to meet the limit, where they can still spin. Many processes are soon counted, but
        # long looked at: beside a fork bomb that took seconds.
        most, tree = 0.9 * MAX_TASKS, process_tree(pid)
        if len(tree) > most or (used := usage(tree)).tasks > most:
            return "processes"
        if used.files > MAX_FILES:
            return "files"
        if used.sockets > MAX_SOCKETS:
            return "sockets"
        if memory_mb is not None and used.memory_mb + used.files_mb > memory_mb + _OVERHEAD_MB:
            # Only now: telling shared pages apart takes the kernel a while.
            if proportional_memory_mb(pid, used.files_mb) > memory_mb + _OVERHEAD_MB:
                return "memory"
        return ""


def _mounts(
    folder: Path, read_only: Iterable[Path], hidden: Iterable[Path], disk_mb: int
) -> list[tuple[str, str, str]]:
    """Return the file system of a sandbox in the order of its making: (kind, path, detail).

    Raises:
        SandboxError: See :meth:`Sandbox.command`.
    """
    home = Path.home()
    size = f"{disk_mb * 2**20}"
    mounts: list[tuple[str, str, str]] = []
    for path in _SYSTEM:
        if os.path.islink(path) and not path.startswith("/etc"):
            mounts.append(("link", path, os.readlink(path)))
        elif os.path.exists(path):
            mounts.append(("ro", path, ""))
    mounts.append(("proc", "/proc", ""))
    mounts += [("hidden", path, "") for path in _KERNEL_SECRETS if os.path.exists(path)]
    mounts += [("ro", path, "") for path in _KERNEL_SETTINGS if os.path.exists(path)]
    mounts += [("devices", "/dev", ""), ("tmpfs", "/dev/shm", size)]
    if not os.path.exists(_CUDA_DEVICE):
        # Reads the same, but can't be mapped: shared, that would be memory of no file.
        mounts.append(("dev", "/dev/zero", "/dev/full"))
    for pattern in _GPU_DEVICES:
        mounts += [("dev", str(path), "") for path in sorted(Path("/dev").glob(pattern))]
    mounts.append(("tmpfs", "/tmp", size))
    if home != Path("/"):
        mounts.append(("tmpfs", str(home), size))
    shown = [*_python_folders(), CONFINE.with_name("launch.py"), CONFINE]
    shown += [home / name for name in _CACHES]
    shown += [Path(os.path.abspath(path)) for path in read_only]
    seen = {path for _, path, _ in mounts}
    # What a link leads to is shown under both names.
    for place in sorted({*shown, *(p.resolve() for p in shown)}):
        inside_system = any(place.is_relative_to(p) for p in ("/usr", "/opt", "/nix/store"))
        if (
            place.exists()
            and not place.is_symlink()
            and not inside_system
            and str(place) not in seen
        ):
            _check_uncovers_nothing(place, folder)
            mounts.append(("ro", str(place), ""))
    inside = [Path(path) for kind, path, _ in mounts if kind == "ro"]
    for place in {p for name in hidden for p in (Path(os.path.abspath(name)), name.resolve())}:
        if place.exists() and any(place.is_relative_to(shown_one) for shown_one in inside):
            mounts.append(("hidden", str(place), ""))
    mounts.append(("tmpfs", str(folder), size))
    mounts += [("ro", str(path), "") for path in sorted(folder.iterdir()) if path.exists()]
    return list(_with_parents(mounts))


def _check_uncovers_nothing(place: Path, folder: Path) -> None:
    for covered in (Path.home(), *map(Path, _NEVER_SHOWN), folder.parent):
        if covered.is_relative_to(place) or covered.resolve().is_relative_to(place.resolve()):
            raise SandboxError(
                f"A folder that a sandbox shows must not contain {covered}, but {place} does: "
                "name one further down in AUTORESEARCH_CACHE, AUTORESEARCH_CORPUS, CUDA_HOME, "
                "HF_HOME or LD_LIBRARY_PATH."
            )


def _with_parents(mounts: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """Precede each mount by the folders it lies in, which bubblewrap would make root's alone."""
    made, shown = {"/"}, set[str]()
    for kind, path, detail in mounts:
        parents = [str(parent) for parent in reversed(Path(path).parents)]
        if not shown.intersection(parents):  # else it is there already, and can't be made
            for parent in parents:
                if parent not in made:
                    made.add(parent)
                    yield "dir", parent, ""
        made.add(path)
        if kind == "ro":
            shown.add(path)
        yield kind, path, detail


def _python_folders() -> list[Path]:
    """List the folders of this Python and its packages."""
    folders = [sys.prefix, sys.exec_prefix, sys.base_prefix, *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    # Of another environment, by a .pth file; what else one names may be anybody's work.
    folders += [path for path in sys.path if path.endswith(("/site-packages", "/dist-packages"))]
    folders += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [Path(os.path.abspath(folder)) for folder in folders if folder]


def _bubblewrap_options(mounts: Iterable[tuple[str, str, str]], user_namespace: bool) -> list[str]:
    options = ["--die-with-parent", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    options += ["--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    if user_namespace:
        # confine.py is the first process: bubblewrap's own would have the script's user id, and no
        # filter. (Root's is another user's, and may end when its parent does.)
        options += ["--unshare-user", "--as-pid-1"]
        if _can_disable_user_namespaces():
            options.append("--disable-userns")
    else:
        # Root: confine.py needs these two to become another user, and loses them by that.
        options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    kinds = {"ro": "--ro-bind", "dev": "--dev-bind"}
    for kind, path, detail in mounts:
        if kind == "link":
            options += ["--symlink", detail, path]
        elif kind in kinds:
            options += [kinds[kind], detail or path, path]
        elif kind == "dir":
            options += ["--perms", "0755", "--dir", path]
        elif kind == "proc":
            options += ["--proc", path]
        elif kind == "devices":
            options += ["--dev", path]
        elif kind == "hidden":
            if Path(path).is_dir():
                options += ["--perms", "0555", "--size", "4096", "--tmpfs", path]
                options += ["--remount-ro", path]
            else:
                options += ["--ro-bind", "/dev/null", path]
        else:
            options += ["--perms", "1777", "--size", detail, "--tmpfs", path]
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/"]


@functools.cache
def _can_disable_user_namespaces() -> bool:
    """Return whether bubblewrap is of version 0.8 or later."""
    done = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, timeout=10)
    return "--disable-userns" in done.stdout + done.stderr


def _empty_folder() -> Path:
    """Return a folder of the user's own to build a file system on; it stays empty."""
    # Not in the cache that the sandbox shows: it would be mounted into itself.
    path = Path.home() / ".cache" / "optuna-autoresearch-sandbox"
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.lru_cache(maxsize=1)
def find_sandbox() -> Sandbox | None:
    """Return the strongest isolation in which Python runs here; ``None`` if there is none."""
    is_root = os.geteuid() == 0
    for sandbox in [
        *([Sandbox(BUBBLEWRAP, False), Sandbox(NAMESPACES, False)] if is_root else []),
        Sandbox(BUBBLEWRAP, True),
        Sandbox(NAMESPACES, True),
    ]:
        problem = _problem(sandbox)
        if problem is None:
            return sandbox
        _logger.debug("%s does not work here: %s", sandbox, problem)
    return None


def require_sandbox() -> Sandbox:
    """Return what :func:`find_sandbox` finds, and raise if it finds none.

    Raises:
        SandboxError: nothing on this system isolates a process.
    """
    sandbox = find_sandbox()
    if sandbox is None:
        raise SandboxError(
            "Code written by a model must be isolated, but neither bubblewrap nor unshare works "
            "here: install bubblewrap and libseccomp (and allow user namespaces). `agent "
            "--unsafe` takes the risk."
        )
    return sandbox


def _problem(sandbox: Sandbox) -> str | None:
    """Try a sandbox, and say why it doesn't work here; ``None`` if it does."""
    program = "bwrap" if sandbox.name == BUBBLEWRAP else "unshare"
    if sys.platform != "linux" or shutil.which(program) is None:
        return f"{program} is not installed"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # World-readable like a trial's: with another user id it has to be.
        script = folder / "probe.py"
        script.write_text(_PROBE)
        script.chmod(0o644)
        try:
            argv = [sys.executable, "probe.py", *(str(Path.home() / name) for name in _CACHES)]
            command = sandbox.command(argv, folder=folder, wall_seconds=10)
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=20,
                env={},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode or "own" not in done.stdout:
            return done.stderr.strip()[-300:] or f"exit status {done.returncode}"
    return None


def usage(tree: Sequence[psutil.Process]) -> Usage:
    """Return what a process and all below it use; the files and sockets are of their sandbox."""
    tasks, memory = 0, 0.0
    for process in tree:
        fields = _kernel_fields(_living_thread(process.pid), "status")
        tasks += fields.get("Threads", 1)  # one that has ended until its parent takes note
        memory += sum(fields.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap", "VmPTE"))
    # The first inside, which is there as long as any. (The youngest may be about to end.)
    inside = tree[1].pid if len(tree) > 1 else 0
    files_mb, files = _files_in_memory(inside)
    return Usage(tasks, memory / 1024, files_mb, files, _sockets(inside))


def proportional_memory_mb(pid: int, files_mb: float = 0.0) -> float:
    """Return the memory of a process and all below it, each shared page counted once.

    Pages of their files in memory may be mapped or not, and are told from other shared ones by
    nothing that is cheap to read: the larger sum counts.
    """
    anonymous, shared = 0.0, 0.0
    for process in process_tree(pid):
        thread = _living_thread(process.pid)
        fields = _kernel_fields(thread, "smaps_rollup") | _kernel_fields(thread, "status")
        anonymous += sum(fields.get(name, 0) for name in ("Pss_Anon", "SwapPss", "VmPTE"))
        shared += fields.get("Pss_Shmem", 0)
    return anonymous / 1024 + max(shared / 1024, files_mb)


def _files_in_memory(pid: int) -> tuple[float, int]:
    """Return the size (MB) and number of the files in a process's file systems in memory.

    Files that were removed and are still open count: the file system says what it holds. A script
    may shut or move the folders above its own: so that is looked at as the working folder, too.
    """
    size, files = 0, 0
    try:
        paths = (Path(f"/proc/{process}/mountinfo") for process in (pid, "self"))
        mounts, ours = (path.read_text(errors="replace") for path in paths)
    except OSError:
        return 0.0, 0
    # Device and mount point, see proc_pid_mountinfo(5). It begins with ours.
    found = re.findall(r"^\d+ \d+ (\S+) / (\S+) .* - tmpfs ", mounts, re.M)
    left = {device: place for device, place in found if f" {device} " not in ours}
    # Blanks and the like are written as octal numbers.
    names = [re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), p) for p in left.values()]
    for place in (*(f"/proc/{pid}/root{name}" for name in names), f"/proc/{pid}/cwd"):
        with contextlib.suppress(OSError):
            device, state = os.stat(place).st_dev, os.statvfs(place)
            if left.pop(f"{os.major(device)}:{os.minor(device)}", None):
                size += (state.f_blocks - state.f_bfree) * state.f_frsize
                files += state.f_files - state.f_ffree
    return size / 2**20, files


def _sockets(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/net/sockstat").read_text()
    except OSError:
        return 0
    match = re.match(r"sockets: used (\d+)", text)
    return int(match[1]) if match else 0


def _living_thread(pid: int) -> int:
    """Return the id of a thread of a process that hasn't ended, or 0 if all have.

    The first may end before the others: then it tells nothing of the memory that they go on using.
    """
    with contextlib.suppress(OSError):  # the process has just ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # the thread has
                # Behind the name, which may be anything, see proc_pid_stat(5).
                stat = Path(f"/proc/{pid}/task/{thread}/stat").read_bytes().rpartition(b") ")[2]
                if stat[:1] not in b"ZX":
                    return int(thread)
    return 0


def _kernel_fields(pid: int, name: str) -> dict[str, int]:
    """Return the numbers of a file of /proc/PID; none if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return {}
    return {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+)(?: kB)?$", text, re.M)}
