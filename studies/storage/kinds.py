"""The kinds of storages, their uses, and a check of both before work begins.

Two things lose trials if nobody looks: workers that don't see the same storage, and workers on
several machines that share a file which only one machine can lock. Both are known from the URL.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.engine import make_url
from sqlalchemy.engine import URL
import sqlalchemy.exc


EXAMPLES = "such as sqlite:///autoresearch.db, postgresql://host/name or journal:study.log"

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
    """Properties of one kind of storage.

    Attributes:
        name: In words.
        url: Form of its URL.
        processes: Whether several workers on one machine may share it.
        machines: Whether workers on several machines may share it.
        heartbeats: How a worker that died on another machine is noticed.
        outage: What happens to workers while it is away.
        note: Anything else that its users should know.
    """

    name: str
    url: str
    processes: bool
    machines: bool
    heartbeats: str
    outage: str
    note: str


_NONE = "none needed"
_OWN = "Optuna's, by the database's clock"
_COUNTED = "ours, an attribute that changes"
_WAIT = "they wait up to 10 min"
_FILE = "a file isn't away; a full disk stops them"

KINDS = {
    "memory": StorageKind(
        "SQLite in memory",
        "sqlite://",
        processes=False,
        machines=False,
        heartbeats=_NONE,
        outage="gone with its process",
        note="for a single process that keeps nothing",
    ),
    "sqlite": StorageKind(
        "SQLite",
        "sqlite:///FILE",
        processes=True,
        machines=False,
        heartbeats=_OWN,
        outage=_FILE,
        note="write-ahead log, which needs a local disk; writers take turns",
    ),
    "journal": StorageKind(
        "journal file",
        "journal:FILE",
        processes=True,
        machines=True,
        heartbeats=_COUNTED,
        outage=_FILE,
        note="for NFS; every worker reads every line that any other writes",
    ),
    "postgresql": StorageKind(
        "PostgreSQL",
        "postgresql://USER@HOST/NAME",
        processes=True,
        machines=True,
        heartbeats=_OWN,
        outage=_WAIT,
        note="two connections a worker",
    ),
    "mysql": StorageKind(
        "MySQL, MariaDB",
        "mysql://USER@HOST/NAME",
        processes=True,
        machines=True,
        heartbeats=_OWN,
        outage=_WAIT,
        note="a utf8mb4 database; names that differ only in case are one name",
    ),
    "grpc": StorageKind(
        "gRPC proxy",
        "grpc://HOST:PORT",
        processes=True,
        machines=True,
        heartbeats=_COUNTED,
        outage=_WAIT,
        note="`serve-storage` in front of a database: it alone connects to it; no log-in",
    ),
}
_OTHER = StorageKind(
    "another database",
    "DIALECT://...",
    processes=True,
    machines=True,
    heartbeats=_OWN,
    outage=_WAIT,
    note="whatever SQLAlchemy has a driver for; Optuna tests none of them",
)


def parse(url: str) -> URL:
    """A URL with the driver that this project installs.

    Raises:
        StorageError: If it is none.
    """
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StorageError(f"A storage must be a URL {EXAMPLES}, but got {url!r}.") from None
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def journal_path(url: str) -> str | None:
    """The file of a journal's URL; ``None`` if it is no journal."""
    if url.startswith("journal:"):
        return url.removeprefix("journal:").removeprefix("//")
    return url if url.endswith(".log") and "://" not in url else None


def kind_of(url: str) -> StorageKind:
    """The kind of a URL's storage.

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
        url: Of the storage.
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
            " machine; choose PostgreSQL, MySQL, a journal on NFS, or serve it by"
            " `optuna-autoresearch serve-storage` and give them grpc://HOST:PORT."
        )


def table() -> str:
    """The kinds as a Markdown table, for the documentation."""
    lines = [
        "| storage | `--storage` | workers on one machine | on several | dead workers elsewhere"
        " are noticed by | while it is away | |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS.values():
        several, far = ("yes" if yes else "refused" for yes in (kind.processes, kind.machines))
        lines.append(
            f"| {kind.name} | `{kind.url}` | {several} | {far} | {kind.heartbeats}"
            f" | {kind.outage} | {kind.note} |"
        )
    return "\n".join(lines) + "\n"
