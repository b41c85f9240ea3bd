"""Opens storages: Optuna's, made to survive killed workers, with a folder of artifacts beside."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextlib import contextmanager
import functools
import gc
import os
from pathlib import Path
import sqlite3
import time
from typing import Any
from typing import BinaryIO
from typing import TypeVar
from urllib.parse import quote
import uuid

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
import sqlalchemy
from sqlalchemy.engine import URL
import sqlalchemy.exc
from sqlalchemy.exc import OperationalError

from studies.storage import PROXY_PORT
from studies.storage.attributes import CheckedDatabase
from studies.storage.journal import BeatingJournal
from studies.storage.journal import is_journal
from studies.storage.journal import JournalFile
from studies.storage.kinds import journal_path
from studies.storage.kinds import parse
from studies.storage.kinds import StorageError as StorageError
from studies.storage.patient import PATIENCE
from studies.storage.patient import PatientStorage
from studies.storage.proxy import bracketed
from studies.storage.proxy import check_grpc
from studies.storage.proxy import PatientProxy
from studies.storage.proxy import quietly
from studies.storage.recovery import RetryKilled
from studies.storage.tls import read_identity


_T = TypeVar("_T")
# To wait for a database that is locked when it is opened: several workers that make one on a slow
# disk take seconds each.
_PROBE_SECONDS = 20.0
# How long a worker waits for others to finish writing (SQLite).
_LOCK_SECONDS = 60.0


def open_storage(
    url: str,
    *,
    must_exist: bool = False,
    read_only: bool = False,
    heartbeat_interval: int = 10,
    grace_period: int = 60,
    patience: float = PATIENCE,
    wait: float = 0.0,
) -> BaseStorage:
    """Open a storage, made first if it isn't there.

    Args:
        url: ``sqlite:///autoresearch.db``, another database that SQLAlchemy has a driver for,
            ``journal:PATH`` (a path that ends in ``.log`` is a journal too), or
            ``grpc://HOST:PORT`` of `studies.storage.proxy`, with ``?tls=FILE`` if it has TLS
            (`studies.storage.tls`). What each supports: `studies.storage.kinds`.
        must_exist: Refuse to make a new file.
        read_only: Write nothing, not even tables or files beside it, and need no right to. Then it
            must exist.
        heartbeat_interval: Seconds between two heartbeats of a running trial.
        grace_period: Seconds without one after which a trial counts as killed. A machine that
            sleeps for longer loses its running trials to workers of others.
        patience: Seconds that a server may be away, once it has been there.
        wait: Seconds that it may be away now.

    Raises:
        StorageError: If it is locked, read-only, no database, one of something else, or not there.
    """
    beating = {
        "heartbeat_interval": heartbeat_interval,
        "grace_period": grace_period,
        "heartbeat_stale_trial_callback": quietly(RetryKilled),
    }
    journal = journal_path(url)
    if journal is not None:
        return _open_journal(Path(journal), must_exist or read_only, read_only, beating)
    parsed = parse(url)
    backend = parsed.get_backend_name()
    if backend == "grpc":
        return _open_proxy(parsed, patience, wait, beating)
    engine_kwargs: dict[str, Any] = {}
    open_database: Callable[..., RDBStorage] = CheckedDatabase
    address = parsed
    if backend == "sqlite":
        if read_only:
            address = _to_read(parsed)
        else:
            _check_sqlite(parsed, must_exist)
        engine_kwargs["connect_args"] = {"timeout": _LOCK_SECONDS}
    else:
        engine_kwargs["pool_pre_ping"] = True  # servers drop connections during long trainings
        open_database = functools.partial(PatientStorage, patience=patience)
    if backend == "mysql":
        # Its own default, REPEATABLE READ, makes MariaDB from 11.6 on refuse to change what
        # another worker has changed meanwhile (error 1020), and Optuna expects no such thing.
        engine_kwargs["isolation_level"] = "READ COMMITTED"
    deadline = time.monotonic() + wait
    attempt = 0
    while True:
        attempt += 1
        try:
            storage = quietly(
                open_database,
                address.render_as_string(hide_password=False),
                engine_kwargs=dict(engine_kwargs),
                skip_table_creation=read_only,
                **beating,
            )
            if backend == "mysql":
                _check_character_set(storage, parsed)
            return storage
        except ImportError as error:
            raise StorageError(_driver_missing(parsed, error)) from None
        except RuntimeError as error:  # made by another version of Optuna
            raise StorageError(f"{_shown(parsed)}: {_first_line(error)}") from None
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as raised:
            inner = raised.__cause__ if isinstance(raised, StorageInternalError) else None
            cause = inner or raised
            # Another worker may be making the same tables right now.
            raced = _is_race(cause) and attempt < 5
            away = isinstance(cause, OperationalError) and time.monotonic() < deadline
            if not (raced or away):
                raise StorageError(
                    f"{_shown(parsed)} must be usable, but: {_first_line(cause)}"
                ) from None
            time.sleep(min(0.2 * attempt, 2.0))


def opened(url: str, **options: Any) -> AbstractContextManager[BaseStorage]:
    """Open a storage by :func:`open_storage` for a while, and give its connections back."""
    return closing_storage(open_storage(url, **options))


def is_snapshot(storage: BaseStorage) -> bool:
    """Return whether a storage shows what it held when it was opened, and nothing later.

    So does an SQLite file of somebody else's at which nobody is; see `_to_read`.
    """
    return isinstance(storage, RDBStorage) and "immutable" in storage.engine.url.query


@contextmanager
def closing_storage(storage: BaseStorage) -> Iterator[BaseStorage]:
    """Give a storage's connections back at the end; but a proxy's can then be used no more."""
    try:
        yield storage
    finally:
        storage.remove_session()
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()
        elif isinstance(storage, PatientProxy):
            storage.close()


# What Optuna raises where a storage holds something else than it has written.
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(ArithmeticError, RecursionError, RuntimeError),
    *(StorageInternalError, sqlalchemy.exc.SQLAlchemyError),
)


def study_names(storage: BaseStorage) -> list[str]:
    """Return the names of all studies of a storage, and read nothing else of them."""
    # Optuna puts a cache around the database of a study.
    database = getattr(storage, "_backend", storage)
    if not isinstance(database, RDBStorage):
        return optuna.get_all_study_names(storage)
    with database.engine.connect() as connection:
        rows = connection.execute(
            sqlalchemy.text("SELECT study_name FROM studies ORDER BY study_id")
        )
        return [str(name) for [name] in rows]


def check_name(study: optuna.Study, name: str) -> None:
    """Refuse a study of another name, which some databases give out: MySQL minds no case.

    Raises:
        StorageError: If it isn't the one that was asked for.
    """
    if study.study_name != name:
        raise StorageError(
            "The name of a study must differ from others by more than case, accents or spaces at"
            f" its end in this database, but it has {study.study_name!r} beside {name!r}."
        )


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what foreign data may raise while a study is read into a StorageError of one line."""
    try:
        yield
    except _UNREADABLE as error:
        if isinstance(error, StorageError):
            raise
        cause = (
            _first_line(error.__cause__ or error)[:200] or "a value is missing or of another kind"
        )
        raise StorageError(
            f"study {name!r} can't be read: {type(error).__name__}: {cause}"
        ) from None


def read_each(
    storage: BaseStorage, read: Callable[[optuna.Study], _T], say: Callable[[str], None]
) -> list[_T]:
    """Read something of every study, and say in a line of each that can't be read why not."""
    found = []
    collects = gc.isenabled()
    gc.disable()  # what is read stays: looking through it again and again is half of the time
    try:
        for name in study_names(storage):
            try:
                with reading(name):
                    found.append(read(optuna.load_study(study_name=name, storage=storage)))
            except StorageError as error:
                say(str(error))
    finally:
        if collects:
            gc.enable()
    return found


def artifact_folder(url: str) -> Path:
    """Return a storage's folder of artifacts: ``autoresearch.db`` -> ``autoresearch-artifacts``.

    Beside the file; for a database server, in the working directory under the database's name, or
    the host's and the port's of a proxy.
    """
    journal = journal_path(url)
    if journal is not None:
        path = Path(journal)
    else:
        parsed = parse(url)
        database = parsed.database or "optuna"
        path = Path(database.removeprefix("file:"))
        if parsed.get_backend_name() == "grpc":
            return Path(f"{parsed.host}-{parsed.port or PROXY_PORT}-artifacts")
        if parsed.get_backend_name() != "sqlite" or database == ":memory:":
            path = Path(path.name.strip(":"))
    return path.with_name(f"{path.stem}-artifacts")


def claim_lock(url: str, artifacts: str | Path | None = None) -> Path:
    """Return the file that the workers of a storage lock while they claim trials.

    Beside a storage that is a file, where all of them find it; else in the folder of artifacts,
    which those of several machines may share.
    """
    journal = journal_path(url)
    if journal is not None:
        return Path(f"{journal}.claim")
    parsed = parse(url)
    database = (parsed.database or "").removeprefix("file:")
    if parsed.get_backend_name() == "sqlite" and database not in ("", ":memory:"):
        return Path(f"{database}.claim")
    return (artifact_folder(url) if artifacts is None else Path(artifacts)) / "claim.lock"


class WholeArtifacts(FileSystemArtifactStore):
    """A folder of artifacts, each of which is there whole or not at all."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        # Others may write the same script meanwhile. What a kill leaves `doctor` finds by this name.
        beside = str(uuid.uuid4())
        try:
            super().write(beside, content_body)
            self._get_filepath(beside).replace(self._get_filepath(artifact_id))
        except BaseException:  # a full disk, or a stop
            self._get_filepath(beside).unlink(missing_ok=True)
            raise


def open_artifacts(url: str, folder: str | Path | None = None) -> FileSystemArtifactStore:
    """Return the artifact store of a storage, in :func:`artifact_folder` or the given one.

    Raises:
        StorageError: If the folder can't be made.
    """
    path = artifact_folder(url) if folder is None else Path(folder)
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            (path / ".gitignore").write_text("*\n")  # it may lie in a checkout
    except OSError as error:
        raise StorageError(f"{path} must be a writable folder, but: {error.strerror}.") from None
    return WholeArtifacts(base_path=path)


def read_artifact(
    study: optuna.Study, trial: FrozenTrial, store: FileSystemArtifactStore, name: str
) -> str | None:
    """Read a trial's first artifact whose file name begins with ``name``; None if it is gone."""
    for meta in get_all_artifact_meta(trial, storage=study._storage):
        if meta.filename.startswith(name):
            try:
                with store.open_reader(meta.artifact_id) as file:
                    return file.read().decode(errors="replace")
            except (ArtifactNotFound, OSError):  # the folder was moved or cleaned
                return None
    return None


def _open_proxy(
    url: URL, patience: float, wait: float, beating: Mapping[str, Any]
) -> PatientProxy:
    check_grpc()
    if url.host is None:
        raise StorageError(f"A proxy must be grpc://HOST:PORT, but got {_shown(url)}.")
    host, port = bracketed(url.host), url.port or PROXY_PORT
    key_file = url.query.get("tls")
    identity = read_identity(Path(key_file).expanduser()) if isinstance(key_file, str) else None
    proxy = quietly(
        PatientProxy, host=host, port=port, identity=identity, patience=wait, **beating
    )
    try:
        proxy.get_all_studies()
    except StorageInternalError as error:
        raise StorageError(f"{_shown(url)} must be served, but: {error}") from None
    proxy.patience = patience
    return proxy


_DRIVERS = {"postgresql": "'psycopg[binary]'", "mysql": "'pymysql[rsa]'"}


def _driver_missing(url: URL, error: ImportError) -> str:
    missing = error.__cause__ or error
    name = getattr(missing, "name", None) or url.drivername
    package = _DRIVERS.get(url.get_backend_name(), "a driver that SQLAlchemy has for it")
    return f"{_shown(url)} needs a driver that isn't installed, {name}: pip install {package}."


def _check_character_set(storage: RDBStorage, url: URL) -> None:
    with storage.engine.connect() as connection:
        name = connection.scalar(sqlalchemy.text("SELECT @@character_set_database"))
    if name != "utf8mb4":
        raise StorageError(
            f"{_shown(url)} must be a utf8mb4 database, but is {name}, which not every name can be"
            f" written in: make one by CREATE DATABASE ... CHARACTER SET utf8mb4."
        )


def _open_journal(
    path: Path, must_exist: bool, read_only: bool, beating: Mapping[str, Any]
) -> JournalStorage:
    _check_file(path, must_exist)
    try:
        if path.exists() and not is_journal(path):
            raise StorageError(f"{path} must be an Optuna journal, but is something else.")
    except OSError as error:
        raise StorageError(f"{path} must be readable, but: {error.strerror}.") from None
    try:
        return BeatingJournal(JournalFile(path, read_only=read_only), **beating)
    except OSError as error:
        raise StorageError(f"{path} must be writable, but: {error.strerror}.") from None
    except StorageError:
        raise
    except Exception as error:  # whatever its replay may raise
        raise StorageError(
            f"{path} must be an Optuna journal, but can't be read ({type(error).__name__})."
        ) from None


def _check_kind(path: Path) -> None:
    if path.is_dir():
        raise StorageError(f"A storage must be a file, but {path} is a folder.")
    if path.exists() and not path.is_file():  # to read a pipe waits for somebody to write
        raise StorageError(f"A storage must be a file, but {path} is a device or a pipe.")


def _check_file(path: Path, must_exist: bool) -> None:
    _check_kind(path)
    if not path.parent.is_dir():
        raise StorageError(f"{path.parent} must be a folder that exists, to hold {path.name}.")
    if must_exist and not path.exists():
        raise StorageError(f"{path} must exist, but there is no such file.")


def _check_sqlite(url: URL, must_exist: bool) -> None:
    """Refuse what can't work, and switch on the write-ahead log, so that readers don't wait."""
    database = url.database
    if not database or database == ":memory:":
        return
    as_uri = database.startswith("file:")
    if as_uri:
        options = "&".join(f"{key}={value}" for key, value in url.query.items() if key != "uri")
        _check_kind(Path(database.removeprefix("file:")))
        database += f"?{options}" if options else ""
    else:
        _check_file(Path(database), must_exist)
    with _probing(str(url.database), "a writable", database, uri=as_uri) as connection:
        # On a read-only database even BEGIN EXCLUSIVE succeeds; only a write doesn't.
        [version] = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("ROLLBACK")
        _switch_on_log(connection)


def _switch_on_log(connection: sqlite3.Connection) -> None:
    """Wait until no other worker writes; SQLite itself doesn't with this, as it does elsewhere."""
    deadline = time.monotonic() + _PROBE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _to_read(url: URL) -> URL:
    """Return the address by which an SQLite file is only read."""
    database = url.database
    if database and database.startswith("file:"):
        _check_kind(Path(database.removeprefix("file:")))
        return url
    if not database or database == ":memory:":
        return url
    path = Path(database)
    _check_file(path, must_exist=True)
    address = f"file:{quote(str(path.resolve()))}"
    options = {"mode": "ro"}
    log = path.with_name(f"{path.name}-wal")
    if not os.access(path.parent, os.W_OK) and not log.exists():
        # A write-ahead log has an index in memory that readers share by a file, which can't be made
        # here. Who may write makes both when they begin, and has them as long as they are at it.
        options["immutable"] = "1"
    query = "&".join(f"{key}={value}" for key, value in options.items())
    with _probing(database, "a readable", f"{address}?{query}", uri=True):
        return url.set(database=address, query={**options, "uri": "true"})


@contextmanager
def _probing(shown: str, needed: str, database: str, *, uri: bool) -> Iterator[sqlite3.Connection]:
    """Look into an SQLite database before Optuna does, whose errors don't say what is wrong."""
    try:
        connection = sqlite3.connect(
            database, timeout=_PROBE_SECONDS, isolation_level=None, uri=uri
        )
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if tables and "studies" not in tables:
                raise StorageError(
                    f"{shown} must be an Optuna database, but is of something else."
                )
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "locked" in text:
            cause = f"another program has locked it for {_PROBE_SECONDS:g} s"
        elif "readonly" in text:
            cause = "it is read-only"
        elif "not a database" in text:
            cause = "it is something else"
        else:
            cause = text
        raise StorageError(f"{shown} must be {needed} SQLite database, but {cause}.") from None


def _is_race(error: BaseException) -> bool:
    text = str(error).lower()
    return "already exists" in text or "unique constraint" in text or "duplicate" in text


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
