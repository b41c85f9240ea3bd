"""The kinds of storages, and which workers can share them, checked before work begins.

Two things lose trials if nobody looks: workers that don't see the same storage, and workers on
several machines that share a file which only one machine can lock. Both are known from the URL.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.engine import make_url
from sqlalchemy.engine import URL
import sqlalchemy.exc


# SQLAlchemy's names -> with the driver that the extras install. It would look for others itself.
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    # Optuna tells MySQL by this name and has no other for its fork.
    "mariadb+pymysql": "mysql+pymysql",
}


class StorageError(ValueError):
    """A storage that can't be used. The message is one line that says what to change."""


@dataclass(frozen=True)
class StorageKind:
    """One kind of storage; docs/scale.md has a table of what else differs.

    Attributes:
        name: In words.
        processes: Whether several workers on one machine may share it.
        machines: Whether workers on several machines may share it.
    """

    name: str
    processes: bool = True
    machines: bool = True


KINDS = {
    "memory": StorageKind("SQLite in memory", processes=False, machines=False),
    "sqlite": StorageKind("SQLite", machines=False),
    "journal": StorageKind("journal file"),
    "postgresql": StorageKind("PostgreSQL"),
    "mysql": StorageKind("MySQL, MariaDB"),
    "grpc": StorageKind("gRPC proxy"),
}
# Whatever SQLAlchemy has a driver for; Optuna tests none of them.
_OTHER = StorageKind("another database")


def parse(url: str) -> URL:
    """Return a URL with the driver that this project installs.

    Raises:
        StorageError: If it is none.
    """
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StorageError(
            "A storage must be a URL such as sqlite:///autoresearch.db, postgresql://host/name or"
            f" journal:study.log, but got {url!r}."
        ) from None
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def journal_path(url: str) -> str | None:
    """Return the file of a journal's URL; ``None`` if it is no journal."""
    if url.startswith("journal:"):
        return url.removeprefix("journal:").removeprefix("//")
    return url if url.endswith(".log") and "://" not in url else None


def kind_of(url: str) -> StorageKind:
    """Return the kind of a URL's storage.

    Raises:
        StorageError: If it is no URL.
    """
    if journal_path(url) is not None:
        return KINDS["journal"]
    parsed = parse(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        database = parsed.database or ":memory:"
        in_memory = ":memory:" in database or parsed.query.get("mode") == "memory"
        return KINDS["memory" if in_memory else "sqlite"]
    return KINDS.get("mysql" if backend == "mariadb" else backend, _OTHER)


def check_sharing(url: str, *, workers: int = 1, machines: bool = False) -> None:
    """Refuse to begin what would lose trials or never end.

    Args:
        url: The storage's.
        workers: How many processes are to use it.
        machines: Whether they may be on several machines.

    Raises:
        StorageError: If it can't be used so.
    """
    kind = kind_of(url)
    if workers > 1 and not kind.processes:
        raise StorageError(
            f"{workers} workers must share a storage, but {kind.name} is seen by its own process"
            " only; choose sqlite:///FILE."
        )
    if machines and not kind.machines:
        raise StorageError(
            f"Workers on several machines must share a storage, but {kind.name} is for one"
            " machine; choose PostgreSQL, as in postgresql://USER@HOST/NAME."
        )
