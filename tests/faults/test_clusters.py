"""Workers that somebody else starts: by hand, or Dask, whose schedulers and workers are real.

SLURM's `sbatch` is played by a script that starts the job on this machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
import os
from pathlib import Path
import re
import signal
import subprocess
import sys

from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import psutil
import pytest

from objective.worker import WORKER
from studies.budget import is_evaluated
from studies.workers import cluster as distributed
from tests.conftest import free_port
from tests.faults.conftest import arguments
from tests.faults.conftest import held
from tests.faults.conftest import load
from tests.faults.conftest import output_of
from tests.faults.conftest import states
from tests.faults.conftest import trained
from tests.faults.conftest import until
from tests.faults.invariants import check
from tests.studies.conftest import Cli
from tests.studies.conftest import status_after


class Dask:
    """A scheduler and workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = (folder / "dask.log").open("w")
        self.address = f"tcp://127.0.0.1:{free_port()}"
        port = self.address.rpartition(":")[2]
        self.processes = [self._start("scheduler", "--port", port, "--host", "127.0.0.1")]

    def _start(self, role: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{role}", *options]
        return subprocess.Popen(
            [*command, "--no-dashboard"],
            cwd=self._folder,  # and not the command's
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def add_worker(self, *options: str) -> subprocess.Popen[bytes]:
        worker = self._start("worker", self.address, "--nthreads", "1", *options)
        self.processes.append(worker)
        return worker

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._log.close()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    folder = tmp_path / "dask"
    folder.mkdir()
    cluster = Dask(folder)
    yield cluster
    cluster.close()


def supervised(pid: int) -> list[psutil.Process]:
    """The processes in which a Dask worker's trials are done, below any process of Dask's."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if "studies.workers.dask_worker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # a training that ends just now
            continue
    return found


def workers_that_did(trials: Sequence[FrozenTrial]) -> set[int]:
    return {t.system_attrs[WORKER][1] for t in trials if is_evaluated(t)}


def test_workers_started_one_by_one_share_a_study(
    cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    command = arguments(bed, cli.storage, 8, train_seconds="0.4s")
    gate.touch()  # until each of them has a trial
    both = [cli.start(*command, "--worker") for _ in range(2)]
    until(lambda: held(gate) == 2)
    gate.unlink()
    logs = [output_of(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], logs
    study = load(cli.storage)
    check(study, ledger, trials=8)
    assert len(workers_that_did(study.trials)) == 2
    own = [len(re.findall(r" process \d+  trial ", err)) for _, err in logs]
    assert sum(own) == 8 and min(own) > 0, "each wrote of its own trials"
    for count, (out, err) in zip(own, logs):
        assert f"ends: {count} of the 8 trials were its own" in err.splitlines()[-1]
        assert out == "" and "\x1b" not in err


def test_a_dask_cluster_is_found_by_its_address(
    dask: Dask, cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    for _ in range(2):
        dask.add_worker()
    command = arguments(
        bed, cli.storage, 12, workers=2, train_seconds="0.4s", cluster=dask.address
    )
    gate.touch()  # until each of them has a trial
    process = cli.start(*command)
    until(lambda: held(gate) == 2)
    gate.unlink()
    _, err = output_of(process)
    assert process.returncode == 0, err
    study = load(cli.storage)
    check(study, ledger, trials=12)
    parents = set(re.findall(r"worker \d of 2 is at (\S+)", err))
    assert len(parents) == 2 and len(workers_that_did(study.trials)) == 2


def test_a_cluster_that_is_not_there_is_misuse(
    cli: Cli, bed: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "_CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    error = cli.fails(2, *arguments(bed, cli.storage, 4, cluster=address, workers=1))
    assert f"none answers at {address}" in error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"storage": "sqlite:///s.db"}, "Workers on several machines must share a storage"),
        ({"storage": "postgresql://localhost/x"}, "localhost is each machine's own"),
        ({"method": "centaur", "llm": "local"}, "serve-llm --host 0.0.0.0"),
        ({"method": "centaur", "llm": "ollama"}, "127.0.0.1:11434/v1 is each machine's own"),
    ],
)
@pytest.mark.parametrize("cluster", ["slurm", "tcp://10.0.0.1:8786"])
def test_what_other_machines_cannot_reach_is_refused_at_once(
    cluster: str, options: dict[str, str], error: str, cli: Cli, bed: Path, ledger: Path
) -> None:
    given = {"storage": "postgresql://db.example/x", **options}
    command = arguments(bed, given.pop("storage"), 4, cluster=cluster, workers=2, **given)
    assert error in cli.fails(2, *command)


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=[pytest.mark.faults, pytest.mark.long]), 2]
)
def test_what_runs_may_be_finished_before_a_command_ends(
    workers: int, cli: Cli, bed: Path, ledger: Path
) -> None:
    command = arguments(bed, cli.storage, 20, workers=workers, train_seconds="1s")
    process = cli.start(*command, "--on-stop", "finish")
    until(lambda: trained(ledger) >= 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = output_of(process)
    assert process.returncode == status_after(signal.SIGINT)
    assert "are finished first" in err and "to go on" in err.splitlines()[-2]
    stopped = load(cli.storage).trials
    assert {t.state for t in stopped} == {TrialState.COMPLETE}
    assert len(stopped) == trained(ledger) < 20


@pytest.mark.faults
@pytest.mark.long
def test_whoever_cannot_wait_for_the_end_stops_with_a_second_signal(
    cli: Cli, bed: Path, ledger: Path
) -> None:
    command = arguments(bed, cli.storage, 4, workers=2, train_seconds="60s")
    process = cli.start(*command, "--on-stop", "finish")
    until(lambda: states(cli.storage)["RUNNING"] == 2)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "are finished first" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    output_of(process)
    assert process.returncode == status_after(signal.SIGTERM)
    assert states(cli.storage) == {"FAIL": 2, "WAITING": 2}


@pytest.mark.faults
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
@pytest.mark.parametrize("on_stop", ["requeue", "finish"])
@pytest.mark.parametrize("kind", [pytest.param("local", marks=pytest.mark.long), "address"])
def test_a_command_on_a_cluster_ends_as_others_do(
    kind: str,
    on_stop: str,
    number: signal.Signals,
    dask: Dask,
    cli: Cli,
    bed: Path,
    ledger: Path,
    gate: Path,
) -> None:
    cluster = "local"
    if kind == "address":
        cluster = dask.address
        for _ in range(2):
            dask.add_worker()
    command = arguments(bed, cli.storage, 12, workers=2, cluster=cluster)
    process = cli.start(*command, "--on-stop", on_stop)
    until(lambda: states(cli.storage)["COMPLETE"])
    gate.touch()
    until(lambda: held(gate) == 2)
    os.killpg(process.pid, number)
    if on_stop == "finish":
        gate.unlink()
    _, err = output_of(process)
    assert process.returncode == status_after(number), err
    stopped = states(cli.storage)
    if on_stop == "finish":
        assert set(stopped) == {"COMPLETE"}
    else:
        assert not stopped["RUNNING"] and stopped["WAITING"]
    gate.unlink(missing_ok=True)
    assert cli(*command).returncode == 0
    check(load(cli.storage), ledger, trials=12)


@pytest.mark.faults
@pytest.mark.long
def test_a_dask_worker_that_is_killed_loses_nothing(
    dask: Dask, cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    first, _ = dask.add_worker("--no-nanny"), dask.add_worker("--no-nanny")
    command = arguments(bed, cli.storage, 10, workers=2, cluster=dask.address)
    process = cli.start(*command)
    until(lambda: trained(ledger) >= 3)
    gate.touch()
    [own] = until(lambda: supervised(first.pid))
    until(lambda: held(gate) == 2)
    first.kill()
    until(lambda: not own.is_running())
    third = dask.add_worker("--no-nanny")
    [successor] = until(lambda: supervised(third.pid))
    until(lambda: states(cli.storage) >= Counter(FAIL=1, RUNNING=2))  # it has taken over
    gate.unlink()
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert "a worker is replaced: Dask has lost tcp://127.0.0.1" in err
    study = load(cli.storage)
    check(study, ledger, trials=10, kills=1)
    assert successor.pid in workers_that_did(study.trials)


@pytest.mark.faults
def test_a_scheduler_that_is_killed_ends_the_command_and_its_workers(
    dask: Dask, cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    worker = dask.add_worker()
    command = arguments(bed, cli.storage, 8)
    process = cli.start(*command, "--cluster", dask.address)
    until(lambda: trained(ledger) >= 1)
    gate.touch()
    own = until(lambda: supervised(worker.pid))
    dask.processes[0].kill()
    _, err = output_of(process)
    assert process.returncode == 1
    assert "the Dask scheduler is gone" in err.splitlines()[-1]
    until(lambda: not any(p.is_running() for p in own))
    assert not states(cli.storage)["RUNNING"]
    gate.unlink()
    assert cli(*command).returncode == 0
    check(load(cli.storage), ledger, trials=8, kills=1)


@pytest.mark.faults
def test_processes_of_a_local_cluster_may_be_killed(
    cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    command = arguments(bed, cli.storage, 10, workers=2, cluster="local")
    process = cli.start(*command)
    until(lambda: trained(ledger) >= 2)
    gate.touch()  # until each of those that are killed has a successor
    until(lambda: held(gate) == 2)
    killed = supervised(process.pid)[0]
    killed.kill()
    until(lambda: states(cli.storage) >= Counter(FAIL=1, RUNNING=2) and held(gate) == 2)
    parent = next(p for p in supervised(process.pid) if p.pid != killed.pid).parent()
    assert parent is not None
    parent.kill()  # a worker of Dask's
    until(lambda: states(cli.storage) >= Counter(FAIL=2, RUNNING=2))
    gate.unlink()
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert "was killed by SIGKILL" in err and "Dask has lost" in err
    check(load(cli.storage), ledger, trials=10, kills=2)


@pytest.mark.faults
@pytest.mark.long
def test_a_command_that_is_killed_leaves_no_worker_of_its_cluster(
    cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    command = arguments(bed, cli.storage, 10, workers=2, cluster="local")
    process = cli.start(*command)
    until(lambda: trained(ledger) >= 2)
    gate.touch()
    until(lambda: len(supervised(process.pid)) == 2)
    own = supervised(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not any(p.is_running() for p in own))
    gate.unlink()
    assert cli(*command).returncode == 0
    check(load(cli.storage), ledger, trials=10, kills=2)


SBATCH = """\
#!/bin/sh
cp "$1" "{folder}/job-$$.sh"
setsid sh "{folder}/job-$$.sh" >"{folder}/job-$$.log" 2>&1 </dev/null &
echo "$!" >>"{folder}/pids"
echo "Submitted batch job $!"
"""
SCANCEL = '#!/bin/sh\nkill -TERM -- "-$1"\n'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`sbatch` and `scancel` that start and end jobs on this machine; their folder."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH.format(folder=folder)), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (folder / "pids").touch()
    yield folder
    for pid in jobs_of(folder):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def jobs_of(slurm: Path) -> list[int]:
    return [int(line) for line in (slurm / "pids").read_text().split()]


@pytest.mark.faults
def test_jobs_of_slurm_share_a_study_and_one_that_ends_is_submitted_again(
    slurm: Path, cli: Cli, bed: Path, ledger: Path, gate: Path, tmp_path: Path
) -> None:
    storage = f"journal:{tmp_path}/s.log"  # what several machines may share, and needs no server
    command = arguments(bed, storage, 12, workers=2, cluster="slurm")
    command += ["--cluster-option", "cores=1", "--cluster-option", "memory=2GB"]
    process = cli.start(*command)
    until(lambda: trained(ledger) >= 4)
    gate.touch()
    until(lambda: held(gate) == 2)
    assert len(jobs_of(slurm)) == 2
    os.killpg(jobs_of(slurm)[0], signal.SIGKILL)
    until(lambda: len(jobs_of(slurm)) == 3)
    until(lambda: states(storage) >= Counter(FAIL=1, RUNNING=2))  # it has taken over
    gate.unlink()
    _, err = output_of(process)
    assert process.returncode == 0, err
    assert "Dask has lost" in err
    check(load(storage), ledger, trials=12, kills=1)
    until(lambda: not any(map(psutil.pid_exists, jobs_of(slurm))))


def test_a_local_cluster_takes_no_task_of_anybody_else(tmp_path: Path) -> None:
    """Who reaches a Dask scheduler runs code as its owner, and a machine may be shared."""
    from distributed import Client
    from distributed.security import Security

    with distributed.open_site("local", {}, 1, tmp_path, print) as site:
        assert site.cluster is not None
        address = site.cluster.scheduler_address
        assert address.startswith("tls://127.0.0.1:")
        assert site.client.submit(pow, 2, 5).result(timeout=60) == 32
        stranger = Security.temporary()  # type: ignore[no-untyped-call]  # a key of one's own is none of ours
        for other, security in ((address.replace("tls", "tcp"), None), (address, stranger)):
            with pytest.raises(OSError):
                Client(other, security=security, timeout=5)  # type: ignore[no-untyped-call]
