from __future__ import annotations

from pathlib import Path

import pytest

from studies.storage.kinds import check_sharing
from studies.storage.kinds import kind_of
from studies.storage.kinds import KINDS
from studies.storage.open import StorageError


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite:///file::memory:?uri=true", "memory"),
        ("sqlite:///file:s?mode=memory&cache=shared&uri=true", "memory"),
        ("sqlite:///s.db", "sqlite"),
        ("sqlite+pysqlite:////tmp/s.db", "sqlite"),
        ("journal:s", "journal"),
        ("s.log", "journal"),
        ("postgres://host/x", "postgresql"),
        ("postgresql+asyncpg://host/x", "postgresql"),
        ("mysql://host/x", "mysql"),
        ("mariadb+mariadbconnector://host/x", "mysql"),
        ("grpc://host:13000", "grpc"),
    ],
)
def test_a_url_tells_the_kind_of_storage(url: str, kind: str) -> None:
    assert kind_of(url) is KINDS[kind]


def test_workers_that_would_not_see_each_other_are_refused() -> None:
    check_sharing("sqlite://", workers=1)
    with pytest.raises(StorageError, match="4 workers must share a storage, but SQLite in memory"):
        check_sharing("sqlite://", workers=4)


def test_workers_on_several_machines_are_refused_a_file_that_one_machine_locks() -> None:
    check_sharing("sqlite:///s.db", workers=8)
    with pytest.raises(StorageError, match="SQLite is for one machine; choose PostgreSQL"):
        check_sharing("sqlite:///s.db", workers=8, machines=True)
    for url in ("journal:s", "postgresql://host/x", "mysql://host/x", "grpc://host:1"):
        check_sharing(url, workers=8, machines=True)


def test_the_documentation_says_the_same() -> None:
    page = (Path(__file__).parents[3] / "docs" / "scale.md").read_text()
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ")]
    documented = {row[0].removeprefix("| "): row[2:4] for row in rows}
    for kind in KINDS.values():
        shared = ["yes" if yes else "refused" for yes in (kind.processes, kind.machines)]
        assert documented[kind.name] == shared
