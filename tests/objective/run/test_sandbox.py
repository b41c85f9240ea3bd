"""Each test attacks one property of the sandbox, with every kind of it that works here."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from objective.run import sandbox as sandbox_module
from objective.run.processor_time import process_tree
from objective.run.sandbox import find_sandbox
from objective.run.sandbox import proportional_memory_mb
from objective.run.sandbox import require_sandbox
from objective.run.sandbox import Sandbox
from objective.run.sandbox import SandboxError
from objective.run.sandbox import usage
from tests.conftest import gone
from tests.objective.run.conftest import attack
from tests.objective.run.conftest import kind_id
from tests.objective.run.conftest import KINDS
from tests.objective.run.conftest import LIMITED
from tests.objective.run.conftest import problem_of
from tests.objective.run.conftest import start


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def test_the_strongest_kind_that_works_is_found() -> None:
    found = find_sandbox()
    assert found in KINDS
    if os.geteuid() == 0 and found is not None and problem_of(KINDS[0]) is None:
        assert found == KINDS[0]


def test_a_system_without_any_kind_is_told_what_would_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox_module, "find_sandbox", lambda: None)
    with pytest.raises(SandboxError, match="install bubblewrap.*--unsafe"):
        require_sandbox()


def test_nothing_outside_its_folder_can_be_written(
    sandbox: Sandbox, folder: Path, tmp_path: Path
) -> None:
    output = attack(
        sandbox,
        folder,
        f"""
        import os, sys
        try:
            open({str(tmp_path / "new-file")!r}, "w")  # at most in memory: looked at below
        except OSError:
            pass
        places = ["/", "/usr", "/usr/bin", "/etc", "/dev", "/proc/sys/kernel", "/sys/devices"]
        places += [sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)]
        for place in places:
            for name in ("hostname", "core_pattern", "new-file"):
                try:
                    open(os.path.join(place, name), "w").write("mine")
                    print("WROTE", place, name)
                except OSError:
                    pass
        print("done")
        """,
    )
    assert output == "done\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trial"]


def test_its_files_cannot_be_changed_replaced_or_removed(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        """
        import os
        open("own.txt", "w").write("allowed")
        attempts = {
            "write": lambda n: open(n, "w").write("changed"),
            "append": lambda n: open(n, "a").write("changed"),
            "remove": os.remove,
            "replace": lambda n: os.replace("own.txt", n),
            "chmod": lambda n: os.chmod(n, 0o777),
        }
        for name in ("train.py", "prepare.py"):
            for what, attempt in attempts.items():
                try:
                    attempt(name)
                    print("DID", what, name)
                except OSError:
                    pass
            print(open(name).read(), end="")
        """,
    )
    assert output == "original = True\n" * 2
    assert sorted(p.name for p in folder.iterdir()) == ["prepare.py", "train.py"]


def test_home_and_temporary_files_of_others_are_hidden(
    sandbox: Sandbox, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = [tmp_path / "home" / ".ssh" / "id", tmp_path / "home" / ".netrc", tmp_path / "key"]
    for secret in secrets:
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("SECRET")
        secret.chmod(0o644)
    cache = tmp_path / "home" / ".cache" / "autoresearch" / "tokenizer"
    cache.mkdir(parents=True)
    (cache / "vocabulary").write_text("PUBLIC\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    output = attack(
        sandbox,
        folder,
        f"""
        for path in {[*map(str, secrets), "/etc/shadow", "/etc/ssl/private", "/run", "/var"]!r}:
            try:
                print(open(path).read())
            except FileNotFoundError:
                pass
        print(open({str(cache / "vocabulary")!r}).read(), end="")
        """,
    )
    assert output == "PUBLIC\n"


def test_what_is_shown_besides_is_read_only(
    sandbox: Sandbox, folder: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "text").write_text("words\n")
    (corpus / "text").chmod(0o666)
    corpus.chmod(0o777)
    argv = ["sh", "-c", f"cat {corpus}/text; echo more >> {corpus}/text; touch {corpus}/new"]
    command = sandbox.command(argv, folder=folder, read_only=[corpus])
    output = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    assert output == "words\n"
    assert (corpus / "text").read_text() == "words\n"
    assert [p.name for p in corpus.iterdir()] == ["text"]


@pytest.mark.parametrize("above", ["home", "trial", "/"])
def test_a_place_that_would_uncover_what_is_hidden_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere" / "me"))
    places = {"home": tmp_path / "elsewhere", "trial": folder.parent, "/": Path("/")}
    with pytest.raises(SandboxError, match="must not contain .* name one further down"):
        KINDS[-1].command(["true"], folder=folder, read_only=[places[above]])
    link = tmp_path / "link"
    link.symlink_to(places[above])
    with pytest.raises(SandboxError, match="must not contain"):
        KINDS[-1].command(["true"], folder=folder, read_only=[link])


def test_what_is_hidden_in_a_place_that_is_shown_is_empty(
    sandbox: Sandbox, folder: Path, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    (shown / "answers").mkdir(parents=True)
    for name in ("answers/text", "answer", "question"):
        (shown / name).write_text(f"{name}\n")
    argv = ["sh", "-c", f"cat {shown}/*; ls {shown}/answers; echo x > {shown}/answers/new"]
    hidden = [shown / "answers", shown / "answer"]
    command = sandbox.command(argv, folder=folder, read_only=[shown], hidden=hidden)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stdout == "question\n"
    assert "Read-only file system" in done.stderr


def test_a_full_disk_is_its_own(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    output = attack(
        sandbox,
        folder,
        """
        import os
        home, written = os.path.expanduser("~"), 0
        block = bytes(1 << 20)
        for place in (".", "/tmp", "/dev/shm"):
            try:
                for number in range(40):
                    with open(f"{place}/{number}", "wb") as file:
                        file.write(block)
                    written += 1
            except OSError as error:
                print(error.strerror)
        print(written <= 3 * 8)
        """,
        disk_mb=8,
    )
    assert output == "No space left on device\n" * 3 + "True\n"
    assert sorted(p.name for p in folder.iterdir()) == ["prepare.py", "train.py"]


def test_a_single_file_cannot_grow_past_its_limit(sandbox: Sandbox, folder: Path) -> None:
    # SIGXFSZ is ignored by Python, so the write says it.
    script = """
        import os
        fd = os.open("hoard", os.O_CREAT | os.O_WRONLY)
        try:
            os.ftruncate(fd, 64 << 20)  # a hole, which takes no room
        except OSError as error:
            print(error.strerror)
    """
    assert attack(sandbox, folder, script, disk_mb=8) == "File too large\n"


def test_no_packet_leaves(sandbox: Sandbox, folder: Path, listener: socket.socket) -> None:
    # 192.0.2.1 is an address for documentation (RFC 5737): nobody is there.
    output = attack(
        sandbox,
        folder,
        f"""
        import socket
        for address in (("127.0.0.1", {listener.getsockname()[1]}), ("192.0.2.1", 80)):
            try:
                socket.create_connection(address, timeout=2)
                print("CONNECTED", address)
            except OSError as error:
                print(type(error).__name__)
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))
            print("SENT")
        except OSError as error:
            print(type(error).__name__)
        try:
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            print("RAW")
        except OSError as error:
            print(type(error).__name__)
        print(sorted(name for _, name in socket.if_nameindex() if name not in ("sit0", "tunl0")))
        """,
    )
    # A loopback of its own that is down in one kind and up, with nobody listening, in the other.
    first, rest = output.split("\n", 1)
    assert first in ("ConnectionRefusedError", "OSError")
    assert rest == "OSError\nOSError\nOSError\n['lo']\n"
    with pytest.raises(TimeoutError):
        listener.accept()


def test_sockets_of_the_system_are_out_of_reach(
    sandbox: Sandbox, folder: Path, tmp_path: Path
) -> None:
    path, abstract = str(tmp_path / "daemon"), f"\0sandbox-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        for server, name in ((one, path), (other, abstract)):
            server.bind(name)
            server.listen()
        output = attack(
            sandbox,
            folder,
            f"""
            import socket
            for name in {[path, abstract]!r}:
                try:
                    socket.socket(socket.AF_UNIX).connect(name)
                    print("CONNECTED")
                except OSError as error:
                    print(type(error).__name__)
            """,
        )
    assert output == "FileNotFoundError\nConnectionRefusedError\n"


def test_other_processes_are_invisible(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        """
        import os
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        print(len(pids) <= 3, max(pids) < 20)
        for pid in pids:
            try:
                print("AUTORESEARCH_TEST_SECRET" in open(f"/proc/{pid}/environ").read())
            except OSError:
                print(False)
        """,
    )
    lines = output.splitlines()
    assert lines[0] == "True True" and set(lines[1:]) == {"False"}


def test_it_has_no_rights_and_cannot_gain_any(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        """
        import os
        lines = [line.split(":\\t", 1) for line in open("/proc/self/status")]
        status = dict(pair for pair in lines if len(pair) == 2)
        print(int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"].strip())
        other = 1 if os.getuid() == 0 else 0
        for attempt in (lambda: os.setuid(other), lambda: os.chroot("/tmp")):
            try:
                attempt()
                print("DID")
            except OSError:
                print("refused")
        """,
    )
    assert output == "0 0 1\nrefused\nrefused\n"


@pytest.mark.parametrize("sandbox", LIMITED, indirect=True, ids=kind_id)
def test_a_fork_bomb_hits_the_limit_on_processes(sandbox: Sandbox, folder: Path) -> None:
    output = attack(
        sandbox,
        folder,
        """
        import os, time
        born = 0
        try:
            while born < 200:
                if os.fork() == 0:
                    time.sleep(30)
                    os._exit(0)
                born += 1
        except BlockingIOError:
            pass
        print(born < 40)
        """,
        max_tasks=40,
    )
    assert output == "True\n"


def test_the_whole_tree_is_counted_and_dies_with_its_first(sandbox: Sandbox, folder: Path) -> None:
    process = start(
        sandbox,
        folder,
        """
        import mmap, os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        file = open("/dev/shm/shared", "w+b")
        file.truncate(64 << 20)
        shared = mmap.mmap(file.fileno(), 64 << 20)  # shared memory: no resource limit counts it
        shared.write(bytes(64 << 20))
        for _ in range(10):
            if os.fork() == 0:
                os.setsid()  # leaves the process group
                if os.fork():
                    os._exit(0)  # and its child its parent
                time.sleep(60)
        print("ready", flush=True)
        time.sleep(60)
        """,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        tree = [p.pid for p in process_tree(process.pid)]
        used = usage(process_tree(process.pid))
        assert 12 <= used.tasks <= 25
        assert used.memory_mb > 64
        assert 64 < proportional_memory_mb(process.pid) < 64 + 200
    finally:
        process.kill()
    assert all(gone(pid) for pid in tree[1:])
    process.wait()


# The main thread ends, and leaves another one and its memory.
THREAD_LEFT = """
import ctypes, os, threading, time
def go_on():
    while open("/proc/self/stat").read().rpartition(") ")[2][0] != "Z":
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(60)
hoard = bytearray(150 << 20)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit
"""
# The youngest process has ended, and nobody takes note. An ordinary user's script owns the folders
# above its own.
OUT_OF_REACH = """
import contextlib, os
if os.fork() == 0:
    os._exit(0)
open("hoard", "wb").write(bytes(150 << 20))
above = "/".join(os.getcwd().split("/")[:3])
os.chdir("/tmp")
for _ in range(20):
    os.mkdir("x" * 250)
    os.chdir("x" * 250)
with contextlib.suppress(OSError):  # it is another user's
    os.rename(above, "below")
    os.chmod("/tmp", 0)
"""
# A page of them, and nothing else, for each 2 MB.
PAGE_TABLES = """
import mmap
pages = mmap.mmap(-1, 75 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)
for number in range(0, 75 << 30, 2 << 20):
    pages[number]
"""


@pytest.mark.parametrize(
    ("what", "script", "memory_mb"),
    [
        ("files", "for i in range(1_100): open(f'/dev/shm/{i}', 'w').close()", None),
        ("sockets", "import socket\nkept = [socket.socketpair() for _ in range(505)]", None),
        ("memory", "open('/tmp/hoard', 'wb').write(bytes(150 << 20))", 30),
        (
            "memory",
            "f = open('hoard', 'wb', 0); import os; os.remove('hoard'); f.write(bytes(150 << 20))",
            30,
        ),
        ("memory", THREAD_LEFT, 30),
        ("memory", OUT_OF_REACH, 30),
        ("memory", PAGE_TABLES, 30),
    ],
)
def test_what_counts_as_no_process_of_its_own_is_counted(
    sandbox: Sandbox,
    folder: Path,
    what: str,
    script: str,
    memory_mb: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox_module, "MAX_FILES", 1_000)
    wait = "import gc, time; gc.collect(); print('ready', flush=True); time.sleep(60)"
    process = start(sandbox, folder, f"{script}\n{wait}", disk_mb=512)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert sandbox.excess(process.pid, memory_mb) == what
        assert sandbox.excess(process.pid, 10_000) in ("", "files", "sockets")
    finally:
        process.kill()


def test_files_of_this_machine_that_a_sandbox_begins_with_are_not_counted() -> None:
    assert sandbox_module._files_in_memory(os.getpid()) == (0.0, 0)


def test_what_was_swapped_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {
        "status": {"Threads": 1, "RssAnon": 1024, "VmSwap": 2048},
        "smaps_rollup": {"Pss_Anon": 1024, "SwapPss": 1024},
    }
    tree = [psutil.Process()]
    monkeypatch.setattr(sandbox_module, "_kernel_fields", lambda thread, name: fields[name])
    monkeypatch.setattr(sandbox_module, "process_tree", lambda pid: tree)
    assert usage(tree).memory_mb == 3
    assert proportional_memory_mb(tree[0].pid) == 2


def test_it_ends_when_its_runner_is_killed(sandbox: Sandbox, folder: Path) -> None:
    lifeline, write_end = os.pipe()
    command = sandbox.command(["sleep", "60"], folder=folder, lifeline=lifeline)
    # The runner has the write end, the sandbox must not have it.
    script = f"""
        import os, subprocess
        os.set_inheritable({write_end}, False)
        p = subprocess.Popen({command!r}, pass_fds=[{lifeline}])
        os.close({lifeline})
        print(p.pid, flush=True)
        p.wait()
    """
    runner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[lifeline, write_end],
    )
    os.close(lifeline)
    os.close(write_end)
    assert runner.stdout is not None
    pid = int(runner.stdout.readline())
    deadline = time.monotonic() + 10
    while "sleep" not in _commands(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    tree = [p.pid for p in process_tree(pid)]
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert all(gone(pid) for pid in tree)


def _commands(pid: int) -> str:
    found = ""
    for process in process_tree(pid):
        try:
            found += process.cmdline()[0]
        except (psutil.Error, IndexError):
            continue
    return found


def test_the_exit_status_and_open_pipes_are_passed_through(sandbox: Sandbox, folder: Path) -> None:
    read_end, write_end = os.pipe()
    argv = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import os; os.write({write_end}, b'42'); os._exit(7)",
    ]
    done = subprocess.run(
        sandbox.command(argv, folder=folder), pass_fds=[write_end], capture_output=True, timeout=20
    )
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        assert pipe.read() == "42"
    assert done.returncode == 7


def test_memory_that_runs_out_is_taken_from_the_sandbox_first(
    sandbox: Sandbox, folder: Path
) -> None:
    assert (
        attack(sandbox, folder, "print(open('/proc/self/oom_score_adj').read())").strip() == "1000"
    )
