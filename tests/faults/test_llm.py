"""A server of a language model that does everything but answer."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import random
from typing import Any

import pytest

from tests.faults.conftest import arguments
from tests.faults.conftest import load
from tests.faults.invariants import check
from tests.samplers.llm.conftest import Answer
from tests.samplers.llm.conftest import LoopbackServer
from tests.samplers.llm.conftest import reply
from tests.samplers.scripted import random_value
from tests.studies.conftest import Cli


MISHAPS = [
    Answer("<html>Bad Gateway</html>", status=502),
    Answer("<html>welcome</html>"),
    Answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "1"}),
    Answer(drop=True),
    reply('{"DEPTH": 4, "L', finish_reason="length"),
    reply("I'd rather talk about the weather."),
    reply(None),
    reply('{"DEPTH": 4000, "LR": "fast"}'),
]


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer()
    rng = random.Random(0)
    left = list(MISHAPS)

    def answer(body: dict[str, Any]) -> Answer:
        if left:
            return left.pop(0)
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        answer = reply(json.dumps(random_value(schema or {"type": "object"}, rng)))
        answer.hang = 0.5 if rng.random() < 0.3 else 0.0
        return answer

    server.answers = answer
    yield server
    server.close()


@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 3])
def test_a_model_that_hangs_refuses_and_talks_nonsense_costs_its_turns_and_nothing_else(
    workers: int, cli: Cli, bed: Path, ledger: Path, server: LoopbackServer
) -> None:
    command = arguments(
        bed, cli.storage, 24, workers=workers, method="centaur", llm=server.url, model="m"
    )
    done = cli(*command, "--llm-ratio", 0.5, "--train-seconds", "0.05s")
    assert done.returncode == 0, done.stderr
    assert len(server.requests) > len(MISHAPS)
    study = load(cli.storage)
    check(study, ledger, trials=24, llm_ratio=0.5)
    assert {"llm", "llm-error"} <= {t.user_attrs.get("source") for t in study.trials}
