"""Where studies are kept: an Optuna storage that survives killed workers, artifacts beside it.

How a killed trial comes back. While a trial runs, Optuna writes a heartbeat for it; when another
trial of the study starts and finds a heartbeat older than the grace period, it marks that trial
FAIL and queues its parameters again (:class:`RetryKilled`, which keeps CMA-ES's marks on it). That
takes a minute, which is right for another machine behind a slow network and too long for somebody
who killed a run and starts it again. So a trial also says which process runs it (:func:`claim`),
and :func:`reclaim` does the same at once for processes of this machine that no longer exist.
Storages that Optuna gives no heartbeats have ours (`objective.heartbeat`).

:func:`take` writes the first heartbeat before it sets a trial running: there is no moment at which
a worker could die and leave a running trial that nobody finds. It writes which process runs the
trial afterwards: of several that try at the same moment only one may say so, or the winner's trial
would be failed when a loser ends.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import copy
from datetime import datetime
from datetime import timedelta
import functools
import itertools
from pathlib import Path
import sqlite3
import time
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.exceptions import StorageInternalError
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.storages._rdb.models import TrialHeartbeatModel
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import sqlalchemy
from sqlalchemy.engine import URL
import sqlalchemy.exc
from sqlalchemy.exc import OperationalError

from objective.heartbeat import AttributeHeartbeat
from objective.heartbeat import BEAT
from objective.heartbeat import BeatingJournal
from objective.patient import PATIENCE
from objective.patient import Patient
from objective.patient import PatientStorage
from objective.proxy import bracketed
from objective.proxy import check_grpc
from objective.proxy import DEFAULT_PORT
from objective.proxy import PatientProxy
from objective.proxy import quietly
from objective.storage_kinds import journal_path
from objective.storage_kinds import parse
from objective.storage_kinds import StorageError as StorageError
from objective.worker import WORKER
from objective.worker import worker_is_here
from objective.worker import worker_mark


MAX_RETRY = 3  # times that the parameters of a killed trial are tried again
_KILLS = "autoresearch:kills"  # system attribute: how often they have killed, or were killed

_SILENCE = timedelta(hours=1)  # of a running trial, until it may be taken for abandoned
_PROBE_SECONDS = 5.0  # to wait for a database that is locked when it is opened


def open_storage(
    url: str,
    *,
    must_exist: bool = False,
    heartbeat_interval: int = 10,
    grace_period: int = 60,
    lock_timeout: float = 60.0,
    patience: float = PATIENCE,
    wait: float = 0.0,
) -> BaseStorage:
    """Open a storage, made first if it isn't there.

    Args:
        url: ``sqlite:///autoresearch.db``, another database that SQLAlchemy has a driver for,
            ``journal:PATH`` (a path that ends in ``.log`` is a journal too), or
            ``grpc://HOST:PORT`` of `objective.proxy`. What each supports:
            `objective.storage_kinds`.
        must_exist: Refuse to make a new file (for commands that only read).
        heartbeat_interval: Seconds between two heartbeats of a running trial.
        grace_period: Seconds without one after which a trial counts as killed. A machine that
            sleeps for longer loses its running trials to other workers.
        lock_timeout: Seconds that a worker waits for others to finish writing (SQLite).
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
        return _open_journal(Path(journal), must_exist, beating)
    parsed = parse(url)
    backend = parsed.get_backend_name()
    if backend == "grpc":
        return _open_proxy(parsed, patience, wait, beating)
    engine_kwargs: dict[str, Any] = {}
    open_database: Callable[..., RDBStorage] = RDBStorage
    if backend == "sqlite":
        _check_sqlite(parsed, must_exist)
        engine_kwargs["connect_args"] = {"timeout": lock_timeout}
    else:
        engine_kwargs["pool_pre_ping"] = True  # servers drop connections during long trainings
        open_database = functools.partial(PatientStorage, patience=patience)
    if backend == "mysql":
        # Its own default, REPEATABLE READ, makes MariaDB from 11.6 on refuse to change what
        # another worker has changed meanwhile (error 1020), and Optuna expects no such thing.
        engine_kwargs["isolation_level"] = "READ COMMITTED"
    deadline = time.monotonic() + wait
    for attempt in itertools.count():
        try:
            storage = quietly(
                open_database,
                parsed.render_as_string(hide_password=False),
                engine_kwargs=dict(engine_kwargs),
                **beating,
            )
            if backend == "mysql":
                _check_character_set(storage, parsed)
            return storage
        except ImportError as error:
            raise StorageError(
                f"{_shown(parsed)} needs a driver that isn't installed: {error}."
            ) from None
        except RuntimeError as error:  # made by another version of Optuna
            raise StorageError(f"{_shown(parsed)}: {_first_line(error)}") from None
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as raised:
            inner = raised.__cause__ if isinstance(raised, StorageInternalError) else None
            cause = inner or raised
            # Another worker may be making the same tables right now.
            raced = _is_race(cause) and attempt < 4
            away = isinstance(cause, OperationalError) and time.monotonic() < deadline
            if not (raced or away):
                raise StorageError(
                    f"{_shown(parsed)} must be usable, but: {_first_line(cause)}"
                ) from None
            time.sleep(min(0.2 * (attempt + 1), 2.0))
    raise AssertionError("unreachable")


def artifact_folder(url: str) -> Path:
    """The folder of a storage's artifacts: ``autoresearch.db`` -> ``autoresearch-artifacts``.

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
            return Path(f"{parsed.host}-{parsed.port or DEFAULT_PORT}-artifacts")
        if parsed.get_backend_name() != "sqlite" or database == ":memory:":
            path = Path(path.name.strip(":"))
    return path.with_name(f"{path.stem}-artifacts")


def claim_lock(url: str, artifacts: str | Path | None = None) -> Path:
    """The file that the workers of a storage lock while they claim trials.

    Beside a storage that is a file, where all of them find it; else in the folder of artifacts,
    which those of several machines may share.
    """
    journal = journal_path(url)
    if journal is not None:
        return _beside(Path(journal))
    parsed = parse(url)
    database = (parsed.database or "").removeprefix("file:")
    if parsed.get_backend_name() == "sqlite" and database not in ("", ":memory:"):
        return _beside(Path(database))
    return (artifact_folder(url) if artifacts is None else Path(artifacts)) / "claim.lock"


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.claim")


def open_artifacts(url: str, folder: str | Path | None = None) -> FileSystemArtifactStore:
    """The artifact store of a storage, in :func:`artifact_folder` or the given one.

    Raises:
        StorageError: If the folder can't be made.
    """
    path = artifact_folder(url) if folder is None else Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path} must be a writable folder, but: {error.strerror}.") from None
    return FileSystemArtifactStore(base_path=path)


def take(
    study: optuna.Study, waiting: FrozenTrial, fixed_params: Mapping[str, Any] | None = None
) -> bool:
    """Set a waiting trial running; False if another process was faster.

    Args:
        study: The study.
        waiting: Its trial.
        fixed_params: Parameters that the trial is to have, as `optuna.Study.enqueue_trial` notes
            them.
    """
    storage = study._storage
    trial_id = waiting._trial_id
    try:
        if fixed_params is not None:
            storage.set_trial_system_attr(trial_id, "fixed_params", dict(fixed_params))
        if is_heartbeat_enabled(storage):
            storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]
        taken = storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        if taken:
            storage.set_trial_system_attr(trial_id, WORKER, worker_mark(waiting.number))
    except UpdateFinishedTrialError:
        return False  # It is even done with it.
    return taken


def hurry(storage: BaseStorage) -> None:
    """Wait no longer for a database that is away: somebody wants this process to end."""
    backend = getattr(storage, "_backend", storage)
    if isinstance(backend, Patient):
        backend.hurry()


def abandoned(study: optuna.Study) -> dict[int, str]:
    """The running trials that nobody runs any more: number -> how that is known.

    Those of another program, which says nothing of its workers, are told by their age alone: one
    that was made by ``study.ask`` and waits for its ``tell`` looks the same.
    """
    storage: Any = study._storage
    beats = is_heartbeat_enabled(storage)
    stale = storage._get_stale_trial_ids(study._study_id) if beats else ()
    now = datetime.now()
    found = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        mark = trial.system_attrs.get(WORKER) or [-1]
        marked = mark[-1] == trial.number
        if marked and worker_is_here(mark) is False:
            found[trial.number] = f"its process {mark[1]} is gone"
        elif trial._trial_id in stale:
            found[trial.number] = "its heartbeat has stopped"
        elif not marked and trial.datetime_start is not None:
            age = now - trial.datetime_start
            if age > _SILENCE and not (beats and _has_heartbeat(storage, trial)):
                found[trial.number] = f"no process has claimed it for {str(age).partition('.')[0]}"
    return found


def _has_heartbeat(storage: Any, trial: FrozenTrial) -> bool:
    if isinstance(storage, AttributeHeartbeat):
        return BEAT in trial.system_attrs
    backend = getattr(storage, "_backend", storage)
    with backend.scoped_session() as session:
        return TrialHeartbeatModel.where_trial_id(trial._trial_id, session) is not None


def reclaim(study: optuna.Study, trials: Sequence[FrozenTrial] | None = None) -> list[int]:
    """Fail the running trials whose process on this machine is gone, and queue them again.

    Call it before ``study.optimize``. Trials of other machines are left to the heartbeat. Several
    processes on one SQLite file should take turns: Optuna doesn't keep two of them from failing
    the same trial there, and its parameters would be queued twice.

    Args:
        study: The study.
        trials: Its trials, if they have just been read.

    Returns:
        The numbers of the trials.
    """
    storage = study._storage
    numbers = []
    for trial in study.get_trials(deepcopy=False) if trials is None else trials:
        mark = trial.system_attrs.get(WORKER) or (None, 0, 0, -1)
        if trial.state != TrialState.RUNNING or mark[-1] != trial.number:
            continue
        if worker_is_here(mark) is not False:
            continue
        try:
            storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:  # another worker was faster
            continue
        retry(study, storage.get_trial(trial._trial_id))
        numbers.append(trial.number)
    return numbers


class RetryKilled(RetryHeartbeatStaleTrialCallback):
    """Queues a killed trial again, unless its parameters were tried `MAX_RETRY` times already.

    Parameters may be what kills: a model that takes all memory of the machine, say. A trial that
    was killed before it had any has nothing to be given up for. Nor has one that was put back, by
    Ctrl-C, say: that isn't counted. One that is known to have failed needs no other try.
    """

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if is_given_up(trial) or _has_failed(trial):
            return
        trial = copy.deepcopy(trial)  # which Optuna alters
        trial.system_attrs[_KILLS] = _kills(trial)
        super().__call__(study, trial)


def is_given_up(killed: FrozenTrial) -> bool:
    """Whether the parameters of a killed trial were tried often enough."""
    return _kills(killed) > MAX_RETRY


def _has_failed(killed: FrozenTrial) -> bool:
    return bool(killed.user_attrs.get("status", "ok") != "ok")


def _kills(killed: FrozenTrial) -> int:
    return int(killed.system_attrs.get(_KILLS, 0)) + bool(killed.params)


def unqueued(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The interrupted ones of a study's trials that nobody has queued again.

    To fail a killed trial and to queue its parameters again are two steps on any storage, and who
    does it may be killed in between. As long as the trial's own process lives, it is left to that.
    """
    again = {number for t in trials for number in t.system_attrs.get("retry_history", ())}
    return [
        t
        for t in trials
        if t.state == TrialState.FAIL
        and (t.system_attrs.get(WORKER) or [-1])[-1] == t.number
        and not _has_failed(t)
        and t.number not in again
        and not is_given_up(t)
        and not _is_anothers(t.system_attrs[WORKER])
    ]


def _is_anothers(mark: Sequence[Any]) -> bool:
    """Whether a process that lives, but not this one, has left the mark."""
    return mark != worker_mark(mark[-1]) and bool(worker_is_here(mark))


def requeue(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[int]:
    """Queue again what is :func:`unqueued` of the study's trials, and return its numbers."""
    again = unqueued(trials)
    for trial in again:
        retry(study, trial)
    return [trial.number for trial in again]


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """See `RetryKilled`."""
    quietly(RetryKilled)(study, trial)


def _open_proxy(
    url: URL, patience: float, wait: float, beating: Mapping[str, Any]
) -> PatientProxy:
    check_grpc()
    if url.host is None:
        raise StorageError(f"A proxy must be grpc://HOST:PORT, but got {_shown(url)}.")
    host, port = bracketed(url.host), url.port or DEFAULT_PORT
    proxy = quietly(PatientProxy, host=host, port=port, patience=wait, **beating)
    try:
        proxy.get_all_studies()
    except StorageInternalError as error:
        raise StorageError(f"{_shown(url)} must be served, but: {error}") from None
    proxy.patience = patience
    return proxy


def _check_character_set(storage: RDBStorage, url: URL) -> None:
    with storage.engine.connect() as connection:
        name = connection.scalar(sqlalchemy.text("SELECT @@character_set_database"))
    if name != "utf8mb4":
        raise StorageError(
            f"{_shown(url)} must be a utf8mb4 database, but is {name}, which not every name can be"
            f" written in: make one by CREATE DATABASE ... CHARACTER SET utf8mb4."
        )


def _open_journal(path: Path, must_exist: bool, beating: Mapping[str, Any]) -> JournalStorage:
    _check_file(path, must_exist)
    try:
        # Optuna would read a file of anything else until the first line that isn't JSON.
        with path.open("rb") as file:
            if (start := file.read(1)) and start != b"{":
                raise StorageError(f"{path} must be an Optuna journal, but is something else.")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"{path} must be readable, but: {error.strerror}.") from None
    try:
        return BeatingJournal(JournalFileBackend(str(path)), **beating)
    except OSError as error:
        raise StorageError(f"{path} must be writable, but: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AssertionError):  # what its replay may raise
        raise StorageError(f"{path} must be an Optuna journal, but can't be read.") from None


def _check_file(path: Path, must_exist: bool) -> None:
    if path.is_dir():
        raise StorageError(f"A storage must be a file, but {path} is a folder.")
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
        database += f"?{options}" if options else ""
    else:
        _check_file(Path(database), must_exist)
    shown = url.database
    try:
        connection = sqlite3.connect(
            database, timeout=_PROBE_SECONDS, isolation_level=None, uri=as_uri
        )
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if tables and "studies" not in tables:
                raise StorageError(
                    f"{shown} must be an Optuna database, but is of something else."
                )
            # On a read-only database even BEGIN EXCLUSIVE succeeds; only a write doesn't.
            [version] = connection.execute("PRAGMA user_version").fetchone()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("ROLLBACK")
            connection.execute("PRAGMA journal_mode=WAL")
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
        raise StorageError(f"{shown} must be a writable SQLite database, but {cause}.") from None


def _is_race(error: BaseException) -> bool:
    text = str(error).lower()
    return "already exists" in text or "unique constraint" in text or "duplicate" in text


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
