"""Each test attacks one property of the sandbox, with every kind of it that works here."""

from __future__ import annotations

from collections.abc import Iterator
import functools
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
from objective.run.sandbox import BUBBLEWRAP
from objective.run.sandbox import find_sandbox
from objective.run.sandbox import NAMESPACES
from objective.run.sandbox import process_tree
from objective.run.sandbox import proportional_memory_mb
from objective.run.sandbox import require_sandbox
from objective.run.sandbox import Sandbox
from objective.run.sandbox import SandboxError
from objective.run.sandbox import usage
from tests.conftest import not_here


KINDS = [
    Sandbox(name, user_namespace)
    for name in (BUBBLEWRAP, NAMESPACES)
    for user_namespace in (False, True)
    # Without a namespace of one's own it takes root.
    if user_namespace or os.geteuid() == 0
]
# In a namespace that root makes, root's own processes are exempt from the kernel's limit on them:
# only the runner's watch holds these (a fork bomb in tests/studies/code_agent/test_agent.py).
LIMITED = [kind for kind in KINDS if not (kind.user_namespace and os.geteuid() == 0)]


@functools.cache
def _problem(kind: Sandbox) -> str | None:
    return sandbox_module._problem(kind)


def _id(kind: Sandbox) -> str:
    return f"{kind.name}-{'user' if kind.user_namespace else 'root'}"


@pytest.fixture(params=KINDS, ids=_id)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    kind: Sandbox = request.param
    problem = _problem(kind)
    if problem:
        # bubblewrap may not be installed, and kernels may forbid user namespaces. The program
        # itself uses what there is, or refuses to run a model's code.
        not_here(f"not offered by this system: {problem}")
    return kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "trial"
    path.mkdir()
    for name in ("train.py", "prepare.py"):
        (path / name).write_text("original = True\n")
    return path


def start(
    sandbox: Sandbox, folder: Path, script: str, disk_mb: int = 64, max_tasks: int = 200
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", "-S", "-c", textwrap.dedent(script)]
    return subprocess.Popen(
        sandbox.command(
            argv, folder=folder, wall_seconds=20, disk_mb=disk_mb, max_tasks=max_tasks
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"]},
        start_new_session=True,
    )


def run(sandbox: Sandbox, folder: Path, script: str, **options: int) -> str:
    process = start(sandbox, folder, script, **options)
    try:
        return process.communicate(timeout=20)[0]
    finally:
        process.kill()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def test_the_strongest_kind_that_works_is_found() -> None:
    found = find_sandbox()
    assert found in KINDS
    if os.geteuid() == 0 and found is not None and _problem(KINDS[0]) is None:
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
    output = run(
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
    output = run(
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
    output = run(
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


def test_a_full_disk_is_its_own(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    output = run(
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
    # SIGXFSZ is ignored by Python, so the write says it. A memfd is no file of any file system.
    script = """
        import os
        fd = os.memfd_create("hoard")
        try:
            os.ftruncate(fd, 64 << 20)
        except OSError as error:
            print(error.strerror)
    """
    assert run(sandbox, folder, script, disk_mb=8) == "File too large\n"


def test_no_packet_leaves(sandbox: Sandbox, folder: Path, listener: socket.socket) -> None:
    # 192.0.2.1 is an address for documentation (RFC 5737): nobody is there.
    output = run(
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
    assert rest == "OSError\nOSError\nPermissionError\n['lo']\n"
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
        output = run(
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
    output = run(
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
    output = run(
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


@pytest.mark.parametrize("sandbox", LIMITED, indirect=True, ids=_id)
def test_a_fork_bomb_hits_the_limit_on_processes(sandbox: Sandbox, folder: Path) -> None:
    output = run(
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
        shared = mmap.mmap(-1, 64 << 20)  # shared memory: no resource limit counts it
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
        used = usage(process.pid)
        assert 12 <= used.tasks <= 25
        assert used.memory_mb > 64
        assert 64 < proportional_memory_mb(process.pid) < 64 + 200
    finally:
        process.kill()
    deadline = time.monotonic() + 10
    while alive := [pid for pid in tree[1:] if _is_running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)
    process.wait()


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
    while alive := [pid for pid in tree if _is_running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)


def _commands(pid: int) -> str:
    found = ""
    for process in process_tree(pid):
        try:
            found += process.cmdline()[0]
        except (psutil.Error, IndexError):
            continue
    return found


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
    assert run(sandbox, folder, "print(open('/proc/self/oom_score_adj').read())").strip() == "1000"
