"""Real services for the tests: database servers of the session's own, and Chromium."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
import fcntl
import glob
import multiprocessing
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import NoReturn
from typing import TYPE_CHECKING
import uuid

import optuna
import psutil
import pytest
import sqlalchemy


if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page

# Set by .ci/run, where a missing service is a broken set-up and not a reason to test less.
REQUIRE_SERVICES = bool(os.environ.get("AUTORESEARCH_REQUIRE_SERVICES"))


def not_here(reason: str) -> NoReturn:
    """End a test that needs what this machine doesn't offer.

    In .ci/run that is a failure. `make test` is for users, too, whose machines may lack a database
    server, a browser or bubblewrap; the summary tells them the reason and which package to install.
    """
    if REQUIRE_SERVICES:
        pytest.fail(reason)
    # Reached on a user's machine alone, for .ci/run has failed above: a red `make test` would tell
    # them that the code is broken, where all that is missing is a package.
    pytest.skip(reason=reason)


def _missing(what: str, package: str) -> NoReturn:
    not_here(f"needs {what}: apt-get install {package}")


@pytest.fixture(autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def gone(pid: int, seconds: float = 10) -> bool:
    """Return whether a process ends, or only waits to be collected, within a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes that run these tests, for what one of them makes for all."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process after the other do something."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def in_a_process_that_dies(work: Callable[[], object]) -> None:
    """Do something that ends in :func:`die`, in a copy of this process."""

    def run() -> None:
        work()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def die(*args: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class PostgresServer:
    """A server of our own, which a test may stop and start.

    Args:
        bin_: Folder of its programs.
        folder: For everything that it writes.
    """

    def __init__(self, bin_: Path, folder: Path) -> None:
        self._bin = bin_
        self._folder = folder
        # PostgreSQL refuses to run as root, so root hands the folder to the package's own user.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}"  # without a database
        data = str(folder / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            cwd=self._folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=600,
        )

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-t", "600", *arguments)

    def start(self, *settings: str) -> None:
        """With more settings of its configuration, such as ``max_connections=200``."""
        more = "".join(f" -c {setting}" for setting in settings)
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("-o", options + more, "-l", f"{self._folder}/log", "start")

    def stop(self, mode: str = "fast") -> None:
        """``fast`` ends its connections, ``immediate`` is as a crash."""
        self._control("-m", mode, "stop")

    def is_up(self) -> bool:
        return _answers(self.port)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that dies with the session. Who stops it starts it again."""
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    on_path = shutil.which("initdb")
    if not binaries and not on_path:
        _missing("a PostgreSQL server", "postgresql")
    bin_ = Path(binaries[-1] if binaries else os.path.dirname(on_path or ""))
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = PostgresServer(bin_, folder)
    server.start()
    try:
        yield server
    finally:
        if server.is_up():
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    plain = postgres_server.url.replace("+psycopg", "")
    with psycopg.connect(f"{plain}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield f"{postgres_server.url}/{name}"
    if postgres_server.is_up():  # it has room for a hundred connections of all tests together
        with psycopg.connect(f"{plain}/postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class MariaDBServer:
    """A server of our own, which a test may kill and start.

    Args:
        binary: The program.
        install: The program that makes its folder.
        folder: For everything that it writes.
    """

    def __init__(self, binary: str, install: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        # Nor does MariaDB run as root by itself.
        user = ["--user=mysql"] if os.geteuid() == 0 else []
        if user:
            shutil.chown(folder, "mysql")
        self._common = ["--no-defaults", f"--datadir={folder}/data", *user]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"mysql+pymysql://root@127.0.0.1:{self.port}"  # without a database
        subprocess.run(
            [install, *self._common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=600,
        )

    def start(self) -> None:
        options = [
            f"--port={self.port}",
            f"--socket={self._folder}/socket",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2",  # what is committed outlasts the process
            "--innodb-snapshot-isolation=ON",  # the default from 11.6 on, and the harder case
        ]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [self._binary, *self._common, *options], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 600
        while not _answers(self.port):
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """A MariaDB server that dies with the session. Who kills it starts it again."""
    # Debian has it where only root looks for programs.
    places = f"{os.environ['PATH']}:/usr/sbin"
    binary = shutil.which("mariadbd", path=places)
    install = shutil.which("mariadb-install-db", path=places)
    if binary is None or install is None:
        _missing("a MariaDB server", "mariadb-server")
    folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
    server = MariaDBServer(str(binary), str(install), folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> str:
    """The URL of an empty MariaDB database."""
    return make_mariadb(mariadb_server.url, "utf8mb4")


def make_mariadb(server: str, character_set: str) -> str:
    """Make a database, and return its URL."""
    name = f"t{uuid.uuid4().hex}"
    engine = sqlalchemy.create_engine(server)
    with engine.connect() as connection:
        connection.execute(
            sqlalchemy.text(f"CREATE DATABASE {name} CHARACTER SET {character_set}")
        )
    engine.dispose()
    return f"{server}/{name}"


@pytest.fixture(params=["postgres", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database on each kind of server in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def serve_storage(url: str, port: int, *options: str) -> subprocess.Popen[str]:
    """Start a gRPC proxy for a database at a port, and wait until it says so."""
    command = ["-m", "studies", "serve-storage", url, "--port", str(port), *options]
    server = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None and f"grpc://127.0.0.1:{port}" in server.stdout.readline()
    return server


Serve = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve_storage`, for as long as the test lasts."""
    servers = []

    def start(url: str, port: int, *options: str) -> subprocess.Popen[str]:
        servers.append(serve_storage(url, port, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
        server.communicate()


# The program starts as root: another user may not be allowed to start this Python, nor to import
# what `socket.create_connection` does.
_RELAY = """
import os, select, socket, sys
os.setuid(65534)
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    ends = {}
    while True:
        for ready in select.select([server, *ends], [], [])[0]:
            if ready is server:
                near, far = server.accept()[0], socket.socket()
                far.connect(("127.0.0.1", int(sys.argv[1])))
                ends[near], ends[far] = far, near
            elif ready in ends:
                try:
                    data = ready.recv(65536)
                    ends[ready].sendall(data)
                except OSError:
                    data = b""
                if not data:
                    other = ends.pop(ready)
                    ends.pop(other)
                    ready.close()
                    other.close()
"""


@pytest.fixture
def as_another_user() -> Iterator[Callable[[int], int]]:
    """Given a port of this machine, return one where another user (`nobody`) passes all on to it."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        not_here("only root can be another user, and only Linux says whose a connection is")
    relays = []

    def relay(port: int) -> int:
        program = [sys.executable, "-I", "-S", "-c", _RELAY, str(port)]
        relays.append(subprocess.Popen(program, stdout=subprocess.PIPE, text=True))
        assert relays[-1].stdout is not None
        return int(relays[-1].stdout.readline())

    yield relay
    for process in relays:
        process.kill()
        process.communicate()


StorageFactory = Callable[[], str | optuna.storages.BaseStorage | None]


@pytest.fixture(params=["memory", "sqlite", "journal"])
def own_storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageFactory:
    """Each kind of storage that needs no server; a database on one is read as SQLite's is.

    Call it again for another process's view of the same storage. (The in-memory storage is one
    object, whoever asks.)
    """
    return _own_storage(request.param, tmp_path)


@pytest.fixture(params=["memory", "sqlite", "journal", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StorageFactory:
    """As `own_storage`, and PostgreSQL, whose workers meet in other ways."""
    if request.param != "postgres":
        return _own_storage(request.param, tmp_path)
    url = request.getfixturevalue("postgres_url")
    return lambda: url


def _own_storage(kind: str, tmp_path: Path) -> StorageFactory:
    if kind == "memory":
        memory = optuna.storages.InMemoryStorage()
        return lambda: memory
    if kind == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/test.db"
    from optuna.storages.journal import JournalFileBackend

    return lambda: optuna.storages.JournalStorage(JournalFileBackend(f"{tmp_path}/j.log"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium that Playwright can drive."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        _missing("Chromium", "chromium")
    return str(path)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    # The browser's own services may have no network; the pages need none.
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield launched
        launched.close()


@contextmanager
def watched_page(browser: Browser, width: int = 1280, height: int = 1500) -> Iterator[Page]:
    """An empty page; an error of any script that it comes to run is one here."""
    errors: list[str] = []
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(60_000)
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched_page(browser) as opened:
        yield opened
