"""SLURM's jobs as dask-jobqueue makes them: their options and their script."""

# mypy: allow-untyped-calls
# Dask's own functions have no annotations.

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
import shlex
import sys
from typing import Any
from typing import TYPE_CHECKING

from studies.errors import Misuse
from studies.workers.dask_worker import RESOURCE
from studies.workers.own_cluster import own_cluster
from studies.workers.own_cluster import SCHEDULER_OPTIONS


if TYPE_CHECKING:
    from dask_jobqueue.slurm import SLURMCluster

# Options of `dask_jobqueue.SLURMCluster` that `--cluster-option` may give, and how they are read.
# Lists grow with each time that they are given.
SLURM_OPTIONS: Mapping[str, type] = {
    "queue": str,
    "account": str,
    "walltime": str,
    "cores": int,
    "memory": str,
    "interface": str,
    "log_directory": str,
    "local_directory": str,
    "job_extra_directives": list,
    "job_script_prologue": list,
}
# A folder for Dask's files that nobody else has made; see `studies.workers.own_cluster`.
_PRIVATE = (
    "DASK_TEMPORARY_DIRECTORY=$(mktemp -d) || exit 1",
    "export DASK_TEMPORARY_DIRECTORY",
    "trap 'rm -rf \"$DASK_TEMPORARY_DIRECTORY\"' EXIT",
)


def slurm_options(words: Sequence[str]) -> dict[str, Any]:
    """Read options of `dask_jobqueue.SLURMCluster` from words like ``queue=gpu``.

    Raises:
        Misuse: If one of them is none.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        kind = SLURM_OPTIONS.get(name)
        if kind is None or not equals:
            raise Misuse(
                f"--cluster-option must be NAME=VALUE with one of {', '.join(SLURM_OPTIONS)}, but"
                f" got {word!r}"
            )
        if kind is list:
            options.setdefault(name, []).append(value)
        elif kind is int and not (value.isdecimal() and len(value) < 10):
            raise Misuse(f"--cluster-option {name} must be a number, but got {value!r}")
        else:
            options[name] = kind(value)
    return options


def slurm_script(options: Mapping[str, Any]) -> str:
    """Return the script that each of SLURM's jobs would be, as dask-jobqueue writes it.

    The address of the scheduler, which isn't there yet, is left open, and so are the files with
    which a worker proves to be one of ours.

    Raises:
        Misuse: If it lacks something.
    """
    from dask_jobqueue.slurm import SLURMJob

    address = "tls://<insert-scheduler-address-here>:8786"
    job = SLURMJob(address, name="dummy-name", protocol="tls://", **_arguments(options))
    return str(job.job_script())


def slurm_cluster(
    options: Mapping[str, Any], folder: Path
) -> AbstractContextManager[SLURMCluster]:
    """Start a Dask cluster that submits jobs with these options when it is scaled.

    Args:
        options: See `slurm_options`.
        folder: On all machines; the jobs find there, in files that only their owner reads, the key
            that lets them in.

    Raises:
        Misuse: If they lack something.
    """
    from dask_jobqueue.slurm import SLURMCluster

    return own_cluster(
        SLURMCluster,
        **_arguments(options),
        shared_temp_directory=str(folder),
        scheduler_options=dict(SCHEDULER_OPTIONS),
    )


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    import dask
    import dask_jobqueue as dask_jobqueue  # its configuration

    configured = dask.config.get("jobqueue.slurm")
    if any(options.get(name, configured[name]) is None for name in ("cores", "memory")):
        raise Misuse(
            "--cluster slurm must know what a job needs: cores and memory in"
            " ~/.config/dask/jobqueue.yaml, or --cluster-option cores=8 --cluster-option"
            " memory=16GB"
        )
    # One worker of the study a job, which has all the cores of the job.
    extra = [*configured["worker-extra-args"], "--resources", f"{RESOURCE}=1"]
    # A job is in the command's folder, which may hold a studies.py of the user's. Python 3.10 knows
    # no -P, and takes that for ours.
    ours = shlex.quote(sys.executable) + (" -P" if sys.version_info >= (3, 11) else "")
    python = configured["python"] or ours
    arguments = {**options, "python": python, "processes": 1, "worker_extra_args": extra}
    if not (options.get("local_directory") or configured["local-directory"]):
        given = options.get("job_script_prologue", configured["job-script-prologue"])
        arguments["job_script_prologue"] = [*given, *_PRIVATE]
    return arguments
