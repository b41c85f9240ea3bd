"""A command that is told to stop while a model is asked that never answers, or while it trains."""

from __future__ import annotations

from pathlib import Path
import random
import shlex
import signal
import time
from typing import Any

import pytest

from tests.conftest import free_port
from tests.conftest import Serve
from tests.faults.conftest import arguments
from tests.faults.conftest import held
from tests.faults.conftest import load
from tests.faults.conftest import obedient
from tests.faults.conftest import output_of
from tests.faults.conftest import states
from tests.faults.conftest import until
from tests.faults.invariants import check
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.studies.conftest import Cli
from tests.studies.conftest import status_after


@pytest.fixture(params=["mariadb", "proxy"])
def url(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> str:
    if request.param == "mariadb":
        return str(request.getfixturevalue("mariadb_url"))
    port = free_port()
    serve(f"sqlite:///{tmp_path}/served.db", port)
    return f"grpc://127.0.0.1:{port}"


@pytest.mark.faults
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
def test_a_command_that_asks_a_model_ends_at_once_and_goes_on_later(
    number: signal.Signals,
    workers: int,
    url: str,
    cli: Cli,
    bed: Path,
    ledger: Path,
    model: LoopbackServer,
) -> None:
    obey, asked = obedient(random.Random(0)), []

    def never(body: dict[str, Any]) -> Answer:
        asked.append(time.monotonic())
        answer = obey(body)
        answer.hang = 600.0
        return answer

    model.answers = never
    command = arguments(bed, url, 16, method="centaur", llm=model.url, model="m", workers=workers)
    command += ["--llm-ratio", 0.9, "--train-seconds", "0.05s"]
    process = cli.start(*command)
    # None of them trains then: a script that has just written its line would be stopped, too.
    until(lambda: len(asked) == workers)
    began = time.monotonic()
    process.send_signal(number)
    _, err = output_of(process)
    assert process.returncode == status_after(number) and time.monotonic() - began < 30
    assert "RUNNING" not in states(url)
    words = shlex.split(err.splitlines()[-1])
    assert words == ["optuna-autoresearch", *map(str, command)]
    model.answers = obey
    done = cli(*words[1:])
    assert done.returncode == 0, done.stderr
    check(load(url), ledger, trials=16, llm_ratio=0.9)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
def test_what_trains_is_finished_or_stopped_as_it_was_asked(
    workers: int, url: str, cli: Cli, bed: Path, ledger: Path, gate: Path
) -> None:
    gate.touch()
    command = [*arguments(bed, url, 6, workers=workers), "--on-stop", "finish"]
    process = cli.start(*command)
    until(lambda: held(gate) == workers)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = output_of(process)
    assert process.returncode == status_after(signal.SIGINT) and time.monotonic() - began < 30
    assert "RUNNING" not in states(url) and "WAITING" in states(url)
    gate.unlink()
    done = cli(*shlex.split(err.splitlines()[-1])[1:])
    assert done.returncode == 0, done.stderr
    check(load(url), ledger, trials=6)
