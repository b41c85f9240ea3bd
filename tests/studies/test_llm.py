"""A model that can't be asked is known before the first trial; its key is nowhere afterwards."""

from __future__ import annotations

import base64
from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from studies.errors import Misuse
from studies.llm import open_llm
from studies.spec import Model
from tests.samplers._llm.conftest import Answer
from tests.samplers._llm.conftest import LoopbackServer
from tests.samplers._llm.conftest import refusal
from tests.samplers._llm.conftest import reply
from tests.studies.commands.test_run import run
from tests.studies.conftest import Cli


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    server = LoopbackServer()
    server.passes_checks = False
    yield server
    server.close()


def commands(testbed: Path, *llm: object) -> list[list[object]]:
    tuning = run(testbed, "centaur", trials=20)
    comparing = ["compare", "--testbed", testbed, "--methods", "centaur", "--trials", 20]
    return [
        [*command, *llm]
        for command in (
            tuning,
            [*tuning, "--dry-run"],
            [*comparing, "--seeds", 0, "--workers", 1],
            [*comparing, "--seeds", 0, "--dry-run"],
            ["agent", "--testbed", testbed, "--unsafe"],
        )
    ]


def test_a_wrong_key_is_known_before_the_first_trial(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    server.answers = lambda body: refusal("Incorrect API key", 401)
    for command in commands(testbed, "--llm", server.url, "--model", "m"):
        done = cli(*command)
        assert done.returncode == 1, done.stderr
        assert "Incorrect API key" in done.stderr.splitlines()[-1]
        assert "OPENAI_API_KEY" in done.stderr.splitlines()[-1]
        assert "trial 0" not in done.stderr


def test_a_model_that_is_not_named_is_asked_for_before_the_first_trial(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    server.others["/v1/models"] = Answer({"data": [{"id": "a\x1b[31m"}, {"id": "b"}]})
    for command in commands(testbed, "--llm", server.url):
        done = cli(*command)
        assert done.returncode == 1, done.stderr
        assert "--model, OPENAI_MODEL" in done.stderr.splitlines()[-1]
        assert "\x1b" not in done.stderr and "trial 0" not in done.stderr


@pytest.mark.parametrize("llm", ["http://me:secret@127.0.0.1/v1", "http://127.0.0.1/v1?k=secret"])
def test_an_address_that_can_be_none_is_refused_in_one_line(
    llm: str, cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    for command in commands(testbed, "--llm", llm)[:3]:
        done = cli(*command)
        assert done.returncode in (1, 2)
        assert "no user, password or query" in done.stderr.splitlines()[-1]
        assert "secret" not in done.stderr.replace(llm, "")


def test_options_of_the_model_go_with_every_request(server: LoopbackServer) -> None:
    server.answers = [reply("{}")]
    given = ("reasoning_effort=low", 'kwargs={"think": false}', "top_p=0.9")
    open_llm(Model(server.url, "m", options=given)).complete([{"role": "user", "content": "?"}])
    (sent,) = server.requests
    assert (sent["reasoning_effort"], sent["top_p"]) == ("low", 0.9)
    assert sent["kwargs"] == {"think": False}
    for wrong in ("reasoning_effort", "=low", "max_tokens=9"):
        with pytest.raises(Misuse, match="--llm-option must be NAME=VALUE"):
            Model(options=(wrong,))


def test_a_study_that_is_done_needs_no_model_any_more(
    cli: Cli, testbed: Path, server: LoopbackServer
) -> None:
    server.answers = lambda body: reply('{"DEPTH": 5, "LR": 0.02, "PATTERN": "ab"}')
    command = [*run(testbed, "centaur", trials=2), "--llm", server.url, "--model", "m"]
    assert cli(*command).returncode == 0
    server.answers = lambda body: refusal("Incorrect API key", 401)
    assert cli(*command).returncode == 0


KEY = 'gsk_q"\\uick/br0wn+f0x==%7e&<jumps>'


def encoded(key: str) -> list[str]:
    """The forms in which a server might send a key back."""
    return [
        key,
        json.dumps(key),
        repr(key),
        quote(key, safe=""),
        quote(key),
        base64.b64encode(key.encode()).decode(),
        base64.b64encode(f"Bearer {key}".encode()).decode(),
        key.encode().hex(),
    ]


def test_a_key_is_nowhere_after_a_study_that_fails_in_every_way(
    cli: Cli, testbed: Path, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    said = " ".join(encoded(KEY))
    error = {"message": said, "code": said, "type": said, "param": said}
    ways: list[Answer] = [
        refusal(said, 400),
        Answer([{"error": {"code": 400, "message": said}}], 400),
        Answer({"error": error}, 200),
        Answer({"choices": [{"error": {"code": 400, "message": said}}]}),
        Answer(said, 404),
        reply(said),
        reply(None, refusal=said),
        reply('{"LR": "%s"}' % KEY.replace('"', "").replace("\\", ""), reasoning=said, model=said),
        reply([{"type": "thinking", "thinking": said}, {"type": "text", "text": said}]),  # type: ignore[arg-type]
        Answer({}, 302, {"Location": f"http://127.0.0.1/?{quote(KEY, safe='')}"}),
    ]
    sent: list[Any] = []

    failing = iter(ways)

    def answer(body: dict[str, Any]) -> Answer:
        sent.append(body)
        good = reply('{"DEPTH": 5, "LR": 0.0%d, "PATTERN": "ab"}' % (10 + len(sent)))
        return good if len(sent) % 3 == 1 else next(failing, good)

    server.answers = answer
    command = run(testbed, "karpathy-hp", trials=16, confirm=0)
    done = cli(*command, "--llm", server.url, "--model", "m")
    shown = [done.stdout, done.stderr]
    assert next(failing, None) is None and set(server.keys) == {f"Bearer {KEY}"}
    shown += [cli("status").stdout, cli("status", "--json").stdout]
    cli("report", "--out", "report.html")
    for file in cli.folder.rglob("*"):
        if file.is_file():
            shown.append(file.read_text(encoding="utf-8", errors="replace"))
    assert any("llm-error" in text for text in shown)
    for form in encoded(KEY):
        for inner in (form.strip("'\""), json.dumps(form)[1:-1]):
            assert not any(inner in text for text in shown), inner
