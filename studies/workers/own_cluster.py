"""Dask clusters of our own, on machines that others use too: nobody else may run code in them.

Dask takes a machine for its owner's alone. Whoever reaches a scheduler may run code as its owner.
Its processes look for modules in a folder below the system's one for temporary files, which belongs
to whoever made it first. Its web pages tell anybody who asks what runs.
"""

# mypy: allow-untyped-calls
# Dask's own functions have no annotations.

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextlib import contextmanager
import logging
import os
import tempfile
from typing import Any
from typing import TYPE_CHECKING
from typing import TypeVar

from studies.workers.dask_worker import RESOURCE


if TYPE_CHECKING:
    from distributed import LocalCluster
    from distributed.deploy.spec import SpecCluster

_Kind = TypeVar("_Kind", bound="SpecCluster")

# For any scheduler of ours. It opens a port for web pages whatever it is told; that has none to show
# (see `own_cluster`) and is this machine's only, where the default is port 8787 of every interface.
SCHEDULER_OPTIONS: Mapping[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


@contextmanager
def own_cluster(kind: type[_Kind], **options: Any) -> Iterator[_Kind]:
    """Start a cluster whose processes keep their files, and what they do, to themselves.

    Args:
        kind: Class of the cluster, which is closed when the context is left.
        options: Arguments of the class, among them `SCHEDULER_OPTIONS`.
    """
    import dask
    import distributed as distributed  # its configuration
    from distributed.security import Security

    with tempfile.TemporaryDirectory(prefix="dask-", ignore_cleanup_errors=True) as folder:
        settings = {
            "temporary-directory": folder,
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
        }
        # Keys that are made here and kept in memory, or in files that only their owner reads.
        keys = Security.temporary()
        with dask.config.set(settings), kind(security=keys, **options) as cluster:
            yield cluster


def local_cluster(workers: int) -> AbstractContextManager[LocalCluster]:
    """Start a cluster of this machine, until the context is left."""
    from distributed import LocalCluster

    return own_cluster(
        LocalCluster,
        n_workers=workers,
        threads_per_worker=max(1, (os.cpu_count() or 1) // workers),
        resources={RESOURCE: 1},
        memory_limit=0,  # trainings have their own
        host="127.0.0.1",
        scheduler_kwargs=SCHEDULER_OPTIONS,
        silence_logs=logging.CRITICAL,
        preload="studies.workers.dask_worker",
    )
