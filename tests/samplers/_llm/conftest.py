"""A real HTTP server on loopback that plays the language model's side, mishaps included."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
import json
import random
import threading
import time
from typing import Any

import pytest

from samplers._llm import client
from samplers._llm import dialect
from samplers._llm import embedded
from samplers._llm import openai_chat
from samplers._llm.schema_chat import random_value


@dataclass
class Answer:
    """What the server does with one request."""

    body: Any = None  # sent as JSON; but a str or bytes as they are
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0  # seconds before it answers
    drop: bool = False  # close the connection without an answer
    drip: float = 0.0  # seconds between the body's bytes


def reply(content: str | None, *, finish_reason: str = "stop", **more: Any) -> Answer:
    """A chat completion; ``more`` goes into the message, ``usage`` and ``timings`` beside it."""
    outside = {key: more.pop(key) for key in ("usage", "timings", "model") if key in more}
    message = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return Answer({"choices": [choice], **outside})


def refusal(message: str, status: int = 400, **more: Any) -> Answer:
    """An error as OpenAI-compatible servers give it."""
    return Answer({"error": {"message": message, **more}}, status=status)


def obedient(rng: random.Random) -> Callable[[dict[str, Any]], Answer]:
    """Answers any request with a random value of its schema."""

    def answer(body: dict[str, Any]) -> Answer:
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        return reply(json.dumps(random_value(schema or {"type": "object"}, rng)))

    return answer


class LoopbackServer:
    """Answers chat completions from a list, or by a function of the request's body."""

    def __init__(self) -> None:
        self.answers: list[Answer] | Callable[[dict[str, Any]], Answer] = []
        self.others: dict[str, Answer] = {}  # by path: anything but chat completions
        self.passes_checks = True  # without a request among these
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[Message] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer._handle(self, {})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                outer._handle(self, json.loads(self.rfile.read(length) or b"{}"))

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that are gone are what tests of deadlines are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.root}/v1"

    def _handle(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.paths.append(handler.path)
            if handler.path != "/v1/chat/completions":
                answer = self.others.get(handler.path, Answer({"error": "no such path"}, 404))
            else:
                self.headers.append(handler.headers)
                if self.passes_checks and body.get("messages") == [*openai_chat.CHECK]:
                    answer = reply('{"ready": true}')
                elif callable(self.answers):
                    self.requests.append(body)
                    answer = self.answers(body)
                else:
                    self.requests.append(body)
                    answer = self.answers.pop(0)
        time.sleep(answer.hang)
        if answer.drop:
            handler.close_connection = True
            handler.connection.close()
            return
        text = answer.body if isinstance(answer.body, (str, bytes)) else json.dumps(answer.body)
        data = text if isinstance(text, bytes) else text.encode()
        handler.send_response(answer.status)
        kind = "application/json" if not isinstance(answer.body, str) else "text/html"
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **answer.headers}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        try:
            for byte in data if answer.drip else ():
                handler.wfile.write(bytes([byte]))
                time.sleep(answer.drip)
            if not answer.drip:
                handler.wfile.write(data)
        except OSError:  # the client gave up, as a test of time-outs wants it to
            handler.close_connection = True

    @property
    def keys(self) -> list[str | None]:
        return [headers.get("Authorization") for headers in self.headers]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    loopback = LoopbackServer()
    yield loopback
    loopback.close()


@contextmanager
def only_llama_cpp() -> Iterator[None]:
    """As if OpenVINO were not installed."""
    embedded.close_embedded_servers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_has_openvino", lambda: False)
        yield
    embedded.close_embedded_servers()


@pytest.fixture(autouse=True)
def _no_memory_of_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports come again, so what was found out about a server must not outlive the test."""
    monkeypatch.setattr(dialect, "_known", {})
    monkeypatch.setattr(openai_chat, "_passed", set())


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
