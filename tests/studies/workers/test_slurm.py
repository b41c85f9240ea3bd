"""The scripts of SLURM's jobs."""

from __future__ import annotations

from pathlib import Path
import re
import sys

from studies.workers.slurm import slurm_script
from tests.studies.commands.test_run import run
from tests.studies.conftest import Cli


def test_the_script_for_slurm_is_dask_jobqueues_own(cli: Cli, testbed: Path) -> None:
    from dask_jobqueue.slurm import SLURMCluster

    command = run(testbed, storage="postgresql://db.example/x", cluster="slurm")
    for option in (
        "queue=gpu",
        "account=lab",
        "walltime=02:00:00",
        "cores=8",
        "memory=16GB",
        "job_extra_directives=--gres=gpu:1",
        "job_script_prologue=module load cuda",
    ):
        command += ["--cluster-option", option]
    printed = cli(*command, "--dry-run")
    assert printed.returncode == 0, printed.stderr
    with SLURMCluster(
        queue="gpu",
        account="lab",
        walltime="02:00:00",
        cores=8,
        memory="16GB",
        processes=1,
        job_extra_directives=["--gres=gpu:1"],
        job_script_prologue=["module load cuda"],
        worker_extra_args=["--resources", "study=1"],
        scheduler_options={"dashboard_address": None},
    ) as cluster:
        expected = re.sub(r"tcp://\S+", "SCHEDULER", cluster.job_script())
    assert " --protocol tls://" in printed.stdout and " tls://" in printed.stdout
    assert "tcp://" not in printed.stdout
    ours = printed.stdout.replace(" -P -m ", " -m ")  # see the last test
    ours = ours.replace(" --protocol tls://", "")  # see test_own_cluster.py, as for the folder
    ours = re.sub(r"DASK_TEMP.*\nexport DASK_TEMP.*\ntrap .*\n", "", ours)
    assert re.sub(r"tls://\S+", "SCHEDULER", ours) == expected
    assert "#SBATCH -p gpu" in expected and "module load cuda" in expected


def test_a_script_for_slurm_without_its_size_is_misuse(cli: Cli, testbed: Path) -> None:
    command = run(testbed, storage="postgresql://db.example/x", cluster="slurm")
    assert "--cluster-option cores=8" in cli.fails(2, *command, "--dry-run")


def test_a_job_of_slurm_looks_for_no_module_in_its_folder() -> None:
    isolated = " -P" if sys.version_info >= (3, 11) else ""  # which Python has from then on
    script = slurm_script({"cores": 1, "memory": "1GB"})
    assert f"{sys.executable}{isolated} -m distributed" in script
