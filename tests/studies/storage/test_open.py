from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
import errno
import io
import os
from pathlib import Path
import sqlite3
import subprocess
import sys
import threading

import optuna
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.trial import TrialState
import psycopg
import pytest
import sqlalchemy

from studies.storage import open as storage_module
from studies.storage.open import artifact_folder
from studies.storage.open import claim_lock
from studies.storage.open import open_artifacts
from studies.storage.open import open_storage
from studies.storage.open import StorageError
from studies.storage.patient import PatientStorage
from tests.conftest import make_mariadb
from tests.conftest import MariaDBServer


def test_a_driver_that_lacks_is_told_without_the_password() -> None:
    with pytest.raises(StorageError, match="driver") as raised:
        open_storage("postgresql+asyncpg://me:s3cret@127.0.0.1:1/x")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    "url, lock",
    [
        ("sqlite:////data/s.db", "/data/s.db.claim"),
        ("journal:/data/s.log", "/data/s.log.claim"),
        ("sqlite://", "mine/claim.lock"),
        ("postgresql://host/name", "mine/claim.lock"),
    ],
)
def test_workers_with_different_artifacts_lock_the_same_file_of_a_storage(
    url: str, lock: str
) -> None:
    assert claim_lock(url, "mine") == Path(lock)


def test_a_folder_of_artifacts_is_none_of_gits_files_unless_it_was_there(tmp_path: Path) -> None:
    open_artifacts(f"sqlite:///{tmp_path}/s.db")
    assert (tmp_path / "s-artifacts" / ".gitignore").read_text() == "*\n"
    open_artifacts(f"sqlite:///{tmp_path}/s.db", tmp_path)
    assert not (tmp_path / ".gitignore").exists()


def test_sqlite_has_heartbeats_and_readers_do_not_wait(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    assert isinstance(storage, RDBStorage)
    assert storage.get_heartbeat_interval() == 10
    with sqlite3.connect(tmp_path / "s.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert open_storage("sqlite:///:memory:")


def test_a_database_server_is_a_storage(database_url: str) -> None:
    plain = database_url.replace("+psycopg", "").replace("+pymysql", "")
    storage = open_storage(plain)
    study = optuna.create_study(storage=storage, study_name="Größe 模型 😀")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    loaded = optuna.load_study(study_name=None, storage=open_storage(database_url))
    assert loaded.study_name == "Größe 模型 😀" and loaded.trials == study.trials
    assert isinstance(storage, PatientStorage) and storage.get_heartbeat_interval() == 10
    with pytest.raises(StorageError, match="must be usable, but: .*no-such-database") as error:
        open_storage(f"{plain.rpartition('/')[0]}/no-such-database")
    assert "\n" not in str(error.value)


def test_a_server_without_room_for_another_worker_is_one_clear_line(postgres_url: str) -> None:
    open_storage(postgres_url)
    taken = []
    try:
        with pytest.raises(psycopg.OperationalError):
            while True:
                taken.append(psycopg.connect(postgres_url.replace("+psycopg", "")))
        taken.pop().close()  # and a worker takes two
        with pytest.raises(StorageError, match="must be usable, but: .*too many clients") as error:
            open_storage(postgres_url)
    finally:
        for connection in taken:
            connection.close()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mariadb+pymysql"])
def test_mariadb_has_several_names(mariadb_url: str, scheme: str) -> None:
    assert open_storage(mariadb_url.replace("mysql+pymysql", scheme))


def test_a_database_that_not_every_name_can_be_written_in_is_refused(
    mariadb_server: MariaDBServer,
) -> None:
    with pytest.raises(StorageError, match="must be a utf8mb4 database, but is latin1"):
        open_storage(make_mariadb(mariadb_server.url, "latin1"))


def test_workers_may_change_the_same_attribute_at_the_same_time(database_url: str) -> None:
    first, second = open_storage(database_url), open_storage(database_url)
    assert isinstance(first, RDBStorage)
    study = optuna.create_study(storage=first, study_name="s")
    study.set_user_attr("k", 0)
    other = optuna.load_study(study_name="s", storage=second)

    updates = []

    def meanwhile(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE study_user_attributes"):
            updates.append(statement)
            other.set_user_attr("k", 2)

    sqlalchemy.event.listen(first.engine, "before_cursor_execute", meanwhile)
    study.set_user_attr("k", 1)
    assert len(updates) == 1 and other.user_attrs == {"k": 1}


def test_workers_that_meet_at_a_database_claim_every_trial_once(database_url: str) -> None:
    claim_side_by_side(database_url)


def claim_side_by_side(url: str) -> None:
    """Let four workers take from the same queue, and look at who got what."""
    study = optuna.create_study(storage=open_storage(url), study_name="s")
    for _ in range(20):
        study.enqueue_trial({"x": 0.5})
    start = threading.Barrier(4)

    def work(_: int) -> list[int]:
        mine = optuna.load_study(study_name="s", storage=open_storage(url))
        start.wait()
        return [
            t.number
            for t in mine.get_trials(deepcopy=False)
            if mine._storage.set_trial_state_values(t._trial_id, TrialState.RUNNING)
        ]

    with ThreadPoolExecutor(4) as pool:
        taken = [number for numbers in pool.map(work, range(4)) for number in numbers]
    assert sorted(taken) == list(range(20))


@pytest.mark.parametrize("url", ["journal:{}/j.log", "journal:{}/j.journal", "{}/j.log"])
def test_a_journal_is_a_storage(url: str, tmp_path: Path) -> None:
    url = url.format(tmp_path)
    assert isinstance(open_storage(url), JournalStorage)
    optuna.create_study(storage=open_storage(url), study_name="s")
    assert optuna.load_study(storage=open_storage(url, must_exist=True), study_name="s")


def test_processes_may_make_a_database_at_the_same_time(tmp_path: Path) -> None:
    program = (
        f"from studies.storage.open import open_storage; open_storage('sqlite:///{tmp_path}/s.db')"
    )
    workers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0] * 3


def test_the_write_ahead_log_is_switched_on_once_another_worker_has_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as mine:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN IMMEDIATE")
        end = threading.Timer(0.3, other.close)
        end.start()
        storage_module._switch_on_log(mine)
        end.join()
        assert mine.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_unusable_storage_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "_PROBE_SECONDS", 0.1)
    good = tmp_path / "good.db"
    optuna.create_study(storage=open_storage(f"sqlite:///{good}"))
    (tmp_path / "text.db").write_text("no database" * 100)
    (tmp_path / "text.log").write_text("no journal")
    (tmp_path / "half.log").write_text('{"op_code": 17}\n{}\n')
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")

    def refused(url: str, message: str, **options: bool) -> None:
        with pytest.raises(StorageError, match=message) as error:
            open_storage(url, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    refused("study", "A storage must be a URL such as .*, but got 'study'")
    refused("nosuch://x/y", "nosuch")
    refused("oracle://user:hunter2@127.0.0.1/x", "needs a driver that isn't installed")
    refused(f"sqlite:///{tmp_path}", "must be a file, but .* is a folder")
    refused(f"sqlite:///{tmp_path}/no/s.db", "no must be a folder that exists, to hold s.db")
    refused(f"journal:{tmp_path}/no/s.log", "no must be a folder that exists, to hold s.log")
    refused(f"sqlite:///{tmp_path}/text.db", "writable SQLite database, but it is something else")
    refused(f"sqlite:///{tmp_path}/other.db", "must be an Optuna database, but")
    refused(f"sqlite:///file:{good}?mode=ro&uri=true", "but it is read-only")
    refused(f"journal:{tmp_path}/text.log", "must be an Optuna journal")
    refused(f"journal:{tmp_path}/half.log", "must be an Optuna journal")
    refused(f"sqlite:///{tmp_path}/new.db", "must exist, but there is no such", must_exist=True)
    assert not (tmp_path / "new.db").exists()
    os.mkfifo(tmp_path / "pipe")
    for url in ("journal:{}", "sqlite:///{}", "sqlite:///file:{}?uri=true"):
        for option in ({}, {"read_only": True}):
            refused(url.format(tmp_path / "pipe"), "but .*pipe is a device or a pipe", **option)
    locker = sqlite3.connect(good, isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    refused(f"sqlite:///{good}", "but another program has locked it for 0.1 s")
    locker.execute("ROLLBACK")
    assert open_storage(f"sqlite:///{good}", must_exist=True)
    locker.close()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "grpc"])
def test_passwords_are_not_shown(scheme: str) -> None:
    with pytest.raises(StorageError) as error:
        open_storage(f"{scheme}://user:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(error.value)
    assert "127.0.0.1" in str(error.value)


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("sqlite:///autoresearch.db", "autoresearch-artifacts"),
        ("sqlite:////tmp/x/a.sqlite3", "/tmp/x/a-artifacts"),
        ("sqlite:///file:b/a.db?uri=true", "b/a-artifacts"),
        ("sqlite://", "optuna-artifacts"),
        ("journal:runs/a.log", "runs/a-artifacts"),
        ("postgresql://user@host/team", "team-artifacts"),
        ("mariadb://user@host/team?charset=utf8mb4", "team-artifacts"),
        ("grpc://host:13000", "host-13000-artifacts"),
    ],
)
def test_artifacts_are_kept_beside_the_storage(url: str, folder: str) -> None:
    assert artifact_folder(url) == Path(folder)


def test_an_artifact_folder_is_made_or_refused_in_one_line(tmp_path: Path) -> None:
    open_artifacts(f"sqlite:///{tmp_path}/s.db")
    assert (tmp_path / "s-artifacts").is_dir()
    open_artifacts("sqlite:///s.db", tmp_path / "mine" / "deep")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file must be a writable folder, but: File exists"):
        open_artifacts("sqlite:///s.db", tmp_path / "file")


def test_what_a_full_disk_cuts_off_is_no_artifact_and_leaves_the_one_before(
    tmp_path: Path,
) -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().read(3)

    store = open_artifacts("sqlite:///s.db", tmp_path)
    store.write("a", io.BytesIO(b"whole"))
    for name in "ab":
        with pytest.raises(OSError, match="No space left"):
            store.write(name, Full(b"another"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"whole"}
