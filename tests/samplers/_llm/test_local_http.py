"""The door of both engines: browsers, bodies without an end, and clients that are gone."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import nullcontext
import json
import socket
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from samplers._llm import embedded
from samplers._llm.chat import Chat
from samplers._llm.connect import open_embedded
from samplers._llm.openvino_server import OpenVINOServer

from .conftest import only_llama_cpp
from .test_embedded import ASK


pytestmark = pytest.mark.llm


@pytest.fixture(scope="module", params=["OpenVINO", "llama.cpp"])
def chat(request: pytest.FixtureRequest) -> Iterator[Chat]:
    embedded.close_embedded_servers()
    with only_llama_cpp() if request.param == "llama.cpp" else nullcontext():
        yield open_embedded()
    embedded.close_embedded_servers()


def http(url: str, body: bytes | None = None, timeout: float = 60.0) -> tuple[int, str]:
    """Status and text of an answer; a body makes it a POST."""
    try:
        with urlopen(url, body, timeout) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "rebound.example.org"}, 403),
        ({"Host": "127.0.0.1.example.org:80"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "many"}, 411),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "99999999999"}, 413),
        ({"Host": "localhost:80"}, 200),
    ],
)
def test_what_no_client_of_ours_sends_is_refused(
    chat: Chat, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"content": "How many tokens?"})
    sent = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
    if "Transfer-Encoding" in headers:
        del sent["Content-Length"]
    lines = [f"{name}: {value}" for name, value in sent.items()]
    with connection() as client:
        client.sendall("\r\n".join(["POST /tokenize HTTP/1.1", *lines, "", body]).encode())
        answer = client.recv(65536).decode()
    assert answer.startswith(f"HTTP/1.1 {status} "), answer


def test_a_page_may_not_even_look(chat: Chat) -> None:
    for header in ("Origin: https://example.org", "Host: rebound.example.org"):
        host = "" if header.startswith("Host") else "Host: localhost\r\n"
        with connection() as client:
            client.sendall(f"GET /v1/models HTTP/1.1\r\n{host}{header}\r\n\r\n".encode())
            assert client.recv(65536).startswith(b"HTTP/1.1 403 ")


def test_another_user_of_the_machine_is_not_served(
    chat: Chat, as_another_user: Callable[[int], int]
) -> None:
    port = as_another_user(int(embedded.embedded_server().removesuffix("/v1").split(":")[-1]))
    status, text = http(f"http://127.0.0.1:{port}/v1/models")
    assert status == 403 and "only the user who started this server" in text
    assert http(f"http://127.0.0.1:{port}/tokenize", b'{"content": "a"}')[0] == 403


def test_clients_that_send_no_body_keep_nobody_waiting(chat: Chat) -> None:
    heads = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    )
    waiting = [connection() for _ in range(4)]
    try:
        for client in waiting:
            client.sendall(heads)
        assert chat.complete(ASK, max_tokens=2).attempts == 1
    finally:
        for client in waiting:
            client.close()


def connection() -> socket.socket:
    host, port = embedded.embedded_server().removesuffix("/v1").removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(80):
        if holds():
            return
        # llama.cpp looks for clients that are gone when it was asked nothing for a second.
        time.sleep(1.5)
    pytest.fail("It takes too long.")


def test_a_reply_that_nobody_waits_for_is_given_up(chat: Chat) -> None:
    url = embedded.embedded_server().removesuffix("/v1")
    [server] = embedded._servers.values()
    body: dict[str, Any] = {"messages": ASK, "max_tokens": 6000}
    if isinstance(server, OpenVINOServer):
        endless = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2000, "maxItems": 2000}
        form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": endless}}
        body["response_format"] = form
    else:
        body["ignore_eos"] = True

    def is_at_work() -> bool:
        if isinstance(server, OpenVINOServer):
            return bool(json.loads(http(f"{url}/health")[1])["requests"])
        return any(slot["is_processing"] for slot in json.loads(http(f"{url}/slots")[1]))

    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
    client = connection()
    client.sendall(f"{head}\r\n\r\n".encode() + data)
    wait_until(is_at_work)
    client.close()
    wait_until(lambda: not is_at_work())
