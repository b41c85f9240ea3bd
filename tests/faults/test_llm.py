"""A language model whose server does everything but answer, or is killed while it answers."""

from __future__ import annotations

from pathlib import Path
import random
import shlex
import signal
import time
from typing import Any

import psutil
import pytest

from samplers import Chat
from samplers import OpenAIChat
from studies import study as studies_study
from studies.spec import Model
from tests.conftest import gone
from tests.faults.conftest import arguments
from tests.faults.conftest import load
from tests.faults.conftest import obedient
from tests.faults.conftest import output_of
from tests.faults.conftest import states
from tests.faults.conftest import until
from tests.faults.invariants import check
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import refusal
from tests.samplers._llm.conftest import reply
from tests.studies.conftest import Cli
from tests.studies.conftest import SECONDS
from tests.studies.conftest import status_after


MISHAPS = [
    Answer("<html>Bad Gateway</html>", status=502),
    Answer("<html>welcome</html>"),
    Answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "1"}),
    Answer(drop=True),
    reply('{"DEPTH": 4, "L', finish_reason="length"),
    # Of three workers that get four of these in a row, one gets two, which end its turn.
    *[reply("I'd rather talk about the weather.")] * 4,
    reply(None),
    reply('{"DEPTH": 4000, "LR": "fast"}'),
]


@pytest.fixture
def mishaps(model: LoopbackServer) -> LoopbackServer:
    rng = random.Random(0)
    left = list(MISHAPS)
    obey = obedient(rng)

    def answer(body: dict[str, Any]) -> Answer:
        if left:
            return left.pop(0)
        answer = obey(body)
        answer.hang = 0.5 if rng.random() < 0.3 else 0.0
        return answer

    model.answers = answer
    return model


@pytest.mark.faults
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 3])
def test_a_model_that_hangs_refuses_and_talks_nonsense_costs_its_turns_and_nothing_else(
    workers: int, cli: Cli, bed: Path, ledger: Path, mishaps: LoopbackServer
) -> None:
    command = arguments(
        bed, cli.storage, 24, workers=workers, method="centaur", llm=mishaps.url, model="m"
    )
    done = cli(*command, "--llm-ratio", 0.5, "--train-seconds", "0.05s")
    assert done.returncode == 0, done.stderr
    assert len(mishaps.requests) > len(MISHAPS)
    study = load(cli.storage)
    check(study, ledger, trials=24, llm_ratio=0.5)
    assert {"llm", "llm-error"} <= {t.user_attrs.get("source") for t in study.trials}


@pytest.mark.faults
def test_a_model_that_hangs_costs_its_turns(
    cli: Cli, bed: Path, ledger: Path, model: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    obey = obedient(random.Random(0))
    hanging = [True, True]

    def answer(body: dict[str, Any]) -> Answer:
        answer = obey(body)
        answer.hang = 12.0 if hanging and hanging.pop() else 0.0
        return answer

    def impatient(asked: Model) -> Chat:
        return OpenAIChat(asked.name, base_url=str(asked.llm), timeout=8.0)

    model.answers = answer
    monkeypatch.setattr(studies_study, "open_llm", impatient)
    command = arguments(bed, cli.storage, 18, method="centaur", llm=model.url, model="m")
    done = cli(*command, "--llm-ratio", 0.9, "--train-seconds", "0.05s")
    assert done.returncode == 0, done.stderr
    study = load(cli.storage)
    check(study, ledger, trials=18, llm_ratio=0.9)
    lost = [t for t in study.trials if t.user_attrs.get("source") == "llm-error"]
    assert len(lost) == 2
    assert all("no answer within" in t.user_attrs["llm_reason"] for t in lost)


@pytest.mark.faults
@pytest.mark.long
def test_half_a_minute_of_too_many_requests_costs_waiting_and_no_turn(
    cli: Cli, bed: Path, ledger: Path, model: LoopbackServer
) -> None:
    obey = obedient(random.Random(0))
    began: list[float] = []

    def answer(body: dict[str, Any]) -> Answer:
        began.append(time.monotonic())
        return refusal("slow down", 429) if began[-1] - began[0] < 30 else obey(body)

    model.answers = answer
    command = arguments(
        bed, cli.storage, 30, workers=4, method="centaur", llm=model.url, model="m"
    )
    done = cli(*command, "--llm-ratio", 0.5, "--train-seconds", "0.05s")
    assert done.returncode == 0, done.stderr
    assert began[-1] - began[0] > 30
    study = load(cli.storage)
    check(study, ledger, trials=30, llm_ratio=0.5)
    assert "llm-error" not in {t.user_attrs.get("source") for t in study.trials}


def _embedded(command: int) -> list[psutil.Process]:
    """The processes of the embedded model that a command, or one of its workers, has started."""
    found = []
    for process in psutil.Process(command).children(recursive=True):
        try:
            if any("_llm.openvino_server" in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _asked(model: psutil.Process) -> bool:
    """Whether it computes, as it does only while it answers, or loads its weights."""
    return model.cpu_percent(0.1) > 20


@pytest.mark.faults
@pytest.mark.llm
def test_an_embedded_model_that_is_killed_while_it_answers_is_started_again(
    cli: Cli, bed: Path, ledger: Path
) -> None:
    command = arguments(bed, cli.storage, 18, method="centaur", llm="local", workers=2)
    process = cli.start(*command, "--llm-ratio", 0.9, "--train-seconds", "0.05s")
    until(lambda: states(cli.storage)["COMPLETE"] >= 11)
    chance, kills = random.Random(0), 0
    while kills < 2:
        until(lambda: process.poll() is not None or _embedded(process.pid))
        assert process.poll() is None, "it is to be killed while the study runs"
        [model] = _embedded(process.pid)
        until(lambda: _asked(model))
        time.sleep(chance.uniform(0, 0.5))
        model.kill()
        model.wait(SECONDS)
        kills += 1
    _, err = output_of(process)
    assert process.returncode == 0, err
    check(load(cli.storage), ledger, trials=18, llm_ratio=0.9)


@pytest.mark.faults
@pytest.mark.llm
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_a_command_that_ends_while_the_embedded_model_answers_takes_it_along(
    number: signal.Signals, cli: Cli, bed: Path, ledger: Path
) -> None:
    command = arguments(bed, cli.storage, 14, method="centaur", llm="local", workers=2)
    command += ["--llm-ratio", 0.9, "--train-seconds", "0.05s"]
    process = cli.start(*command)
    until(lambda: states(cli.storage)["COMPLETE"] >= 11)
    [model] = _embedded(process.pid)
    until(lambda: _asked(model))
    process.send_signal(number)
    _, err = output_of(process)
    assert gone(model.pid)
    if number == signal.SIGTERM:
        assert process.returncode == status_after(number) and "RUNNING" not in states(cli.storage)
        assert shlex.split(err.splitlines()[-1])[1:] == list(map(str, command))
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    # Each worker's script may just have written its line.
    check(load(cli.storage), ledger, trials=14, kills=2, llm_ratio=0.9)
