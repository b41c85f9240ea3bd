"""The embedded model run by OpenVINO, for real."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import json
import os
import subprocess
import sys
import threading
import time
from urllib.error import URLError

import pytest

from samplers._llm import embedded
from samplers._llm import openvino_model
from samplers._llm import openvino_server
from samplers._llm.chat import Chat
from samplers._llm.chat import ChatRejected
from samplers._llm.chat import Completion
from samplers._llm.connect import open_embedded
from samplers._llm.openai_chat import OpenAIChat
from samplers._llm.openvino_server import OpenVINOServer
from samplers._llm.reply import changes_schema
from samplers._llm.reply import parse_params

from .test_embedded import ASK
from .test_embedded import BASE
from .test_local_http import http
from .test_prompt import SPACE


pytestmark = pytest.mark.llm


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    embedded.close_embedded_servers()
    yield open_embedded()
    embedded.close_embedded_servers()


def test_requests_side_by_side_are_all_answered(chat: Chat) -> None:
    schema = changes_schema(SPACE, BASE)

    def ask(seed: int) -> Completion:
        return chat.complete(ASK, schema=schema, max_tokens=400, seed=seed)

    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(ask, range(8)))
    assert {len(parse_params(r.text, SPACE, BASE).repairs) for r in replies} == {0}


def test_a_new_server_takes_many_requests_at_once() -> None:
    # Two threads that were the first to look at an array once waited for each other for ever.
    path = embedded.embedded_model()
    assert path is not None
    body = json.dumps({"content": "How many tokens?" * 200}).encode()
    server = OpenVINOServer(path, "127.0.0.1", 0, n_threads=1, context_tokens=512)
    url = f"{server.listening_address}/tokenize"
    try:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: http(url, body, timeout=20), range(8)))
    finally:
        server.close()
    assert {status for status, _ in answers} == {200}


def test_a_schema_that_openvino_cant_follow_costs_only_the_schema(chat: Chat) -> None:
    assert isinstance(chat, OpenAIChat)
    url = embedded.embedded_server()
    body = {"messages": ASK, "max_tokens": 5}
    for schema in ({"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}, "no schema"):
        form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
        asked = json.dumps({**body, "response_format": form}).encode()
        status, said = http(f"{url}/chat/completions", asked)
        assert status == 400 and "schema" in said.lower()
    assert chat.complete(ASK, max_tokens=5).attempts == 1


def test_another_requests_failure_does_not_cost_the_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = object.__new__(openvino_model.Model)
    model._changed = threading.Condition()
    monkeypatch.setattr(model, "_load", lambda: None)
    together = [openvino_model.Request(None, has_schema=True) for _ in range(2)]
    for requests, blamed in ((together, False), ([openvino_model.Request(None, True)], True)):
        model._requests = list(requests)
        model._start_anew("xgrammar failed")
        assert [r.bad_schema for r in requests] == [blamed] * len(requests)
        assert all(r.done.is_set() and r.failure for r in requests)


@pytest.mark.parametrize(
    "body", [b"no JSON", b"[]", b"{}", b"[" * 100_000, b'{"messages": [{"role": "user"}]}']
)
def test_openvinos_server_refuses_what_is_no_request(chat: Chat, body: bytes) -> None:
    url = embedded.embedded_server()
    assert http(f"{url}/chat/completions", body)[0] == 400
    assert http(f"{url}/elsewhere")[0] == 404
    assert chat.complete(ASK, max_tokens=1).attempts == 1


def test_a_port_that_is_taken_is_told(chat: Chat) -> None:
    port = int(embedded.embedded_server().removesuffix("/v1").rpartition(":")[2])
    with pytest.raises(ChatRejected, match=f":{port}.*in use"):
        embedded.serve(port=port)


def test_an_openvino_server_that_was_killed_is_started_again_at_its_address(chat: Chat) -> None:
    chat.complete(ASK, max_tokens=1)
    [server] = embedded._servers.values()
    assert isinstance(server, OpenVINOServer)
    other = OpenAIChat(base_url=embedded.embedded_server())  # as a worker of the study has it
    server._process.kill()
    server._process.wait()
    assert other.complete(ASK, max_tokens=1).attempts <= 2
    assert chat.complete(ASK, max_tokens=1).attempts == 1


def test_llama_cpp_serves_what_openvino_cant_read(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def refuse(*args: object, **settings: object) -> None:
        raise RuntimeError("Unsupported model architecture")

    request.addfinalizer(embedded.close_embedded_servers)
    assert chat.complete(ASK, max_tokens=1).completion_tokens == 1
    embedded.close_embedded_servers()
    monkeypatch.setattr(OpenVINOServer, "__init__", refuse)
    assert chat.complete(ASK, max_tokens=1).completion_tokens == 1
    [server] = embedded._servers.values()
    assert not isinstance(server, OpenVINOServer)


def test_an_openvino_server_that_is_killed_while_it_loads_is_no_reason_for_another_engine(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    embedded.close_embedded_servers()
    request.addfinalizer(embedded.close_embedded_servers)
    monkeypatch.setattr(openvino_server, "_PROGRAM", program)
    with pytest.raises(ChatRejected, match="Can't serve SmolLM2.*killed, maybe by the system"):
        embedded.embedded_server()


def test_an_openvino_server_ends_with_a_process_that_is_killed() -> None:
    """Though a forked child of that lives on, here until its standard input ends."""
    code = (
        "import os, sys, time; from samplers._llm.embedded import embedded_server\n"
        "url = embedded_server()\n"
        "if os.fork() == 0: sys.stdin.read(); os._exit(0)\n"
        "print(url, flush=True); time.sleep(600)"
    )
    argv, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert http(f"{url}/models")[0] == 200
        process.kill()
        for _ in range(200):
            try:
                http(f"{url}/models")
            except (URLError, ConnectionError):
                return
            time.sleep(0.05)
    pytest.fail("The server outlives its process.")


def test_windows_which_hands_on_no_sockets_is_left_to_llama_cpp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert embedded._has_openvino()
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        assert not embedded._has_openvino()
