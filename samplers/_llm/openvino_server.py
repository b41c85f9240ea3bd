"""OpenVINO GenAI behind an OpenAI-compatible address: the fast way to run the embedded model.

OpenVINO uses a processor's vector instructions for bfloat16 and int8, which the wheels of llama.cpp
are built without: on two cores of AVX-512 it reads SmolLM2's prompts four times as fast, and ten
times as fast it writes replies side by side (``python -m tests.benchmarks.engines``). It reads
fewer kinds of GGUF files.

OpenVINO GenAI has no server. OpenVINO's own, Model Server, is a program of its own that no package
index has, and its handling of schemas is the one that a small model doesn't stop with (see
``openvino_model``). llama.cpp's server, which ``embedded`` uses where this one can't be, comes with
an engine a quarter as fast. So what is left is HTTP for one model: this module.

A process of its own, since OpenVINO holds Python's lock while it computes. It ends when its
standard input does, so with the process that started it, however that ends.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
import ipaddress
import json
import os
from pathlib import Path
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from .openvino_model import Model
from .openvino_model import Request
from .openvino_model import TooLong


# This folder as a package of its own, whatever the package is called that it is a part of; and no
# neighbour of it in the way of a library of the same name.
_PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from _llm.openvino_server import main
del sys.path[0]
main(json.loads(sys.argv[2]))
"""
_DISCONNECT_SECONDS = 0.5  # how often to see whether a client still waits
_SILENCE_SECONDS = 30.0  # for a request to come, and for a client to take its answer
_MOST_BODY_BYTES = 2_000_000  # some hundred times what the context holds


class OpenVINOServer:
    """The server's process.

    Args:
        path: A GGUF file.
        host: Interface to listen on.
        port: 0 for any free one.
        n_threads: Threads that compute.
        context_tokens: Tokens that a prompt and its reply may have together.

    Raises:
        RuntimeError: If OpenVINO can't read the file.
        OSError: If it can't listen there.
    """

    def __init__(
        self, path: Path, host: str, port: int, *, n_threads: int, context_tokens: int
    ) -> None:
        options = {
            "path": str(path),
            "host": host,
            "port": port,
            "n_threads": n_threads,
            "context_tokens": context_tokens,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(Path(__file__).parents[1]), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        with self._process.stdout as told:
            first = told.readline()
        started: dict[str, str] = json.loads(first) if first else {"unread": "it ended at once"}
        if "address" not in started:
            self.close()
            if "taken" in started:
                raise OSError(started["taken"])
            raise RuntimeError(started["unread"])
        self.listening_address = started["address"]

    @property
    def running(self) -> bool:
        """Whether it still answers; the system may have killed it for its memory."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process; what it has not answered is lost."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer goes out as one: of two parts the second would wait 40 ms for the client's
    # acknowledgement of the first.
    wbufsize = -1
    timeout = _SILENCE_SECONDS
    model: Model

    def do_GET(self) -> None:
        try:
            self._check_sender()
        except _Refusal as error:
            self._refuse(error.status, str(error))
            return
        if self.path == "/v1/models":
            self._answer(200, {"object": "list", "data": [{"id": self.model.name}]})
        elif self.path == "/props":
            n_ctx = self.model.context_tokens
            self._answer(200, {"default_generation_settings": {"n_ctx": n_ctx}})
        elif self.path == "/health":
            self._answer(200, {"status": "ok", "requests": self.model.n_requests})
        else:
            self._refuse(404, f"there is no {self.path}")

    def do_POST(self) -> None:
        try:
            self._check_sender()
            body = self._read_body()
            if self.path == "/tokenize":
                with self.model.talking():
                    tokens = self.model.tokens(body["content"])
                self._answer(200, {"tokens": tokens})
                return
            if self.path != "/v1/chat/completions":
                self._refuse(404, f"there is no {self.path}")
                return
            with self.model.talking():
                request, n_prompt = self.model.ask(body)
            while not request.done.wait(_DISCONNECT_SECONDS):
                if self._is_gone():
                    request.handle.cancel()
                    self.close_connection = True
                    return
            self._reply(request, n_prompt)
        except _Refusal as error:
            self.close_connection = True  # its body, if there is one, wasn't read
            self._refuse(error.status, str(error))
        except TooLong as error:
            self._refuse(
                400,
                f"the request exceeds the available context size ({self.model.context_tokens})",
                n_prompt_tokens=error.n_tokens,
                n_ctx=self.model.context_tokens,
            )
        except TimeoutError:  # as http.server does for a request that doesn't begin
            self.close_connection = True
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            self._refuse(400, f"{type(error).__name__}: {error}")

    def _check_sender(self) -> None:
        """Refuse browsers: any page that is open in one could ask a server of this machine.

        They tell the page's origin; or, where the page's name was pointed at this machine, the
        name that they think it has. There is no page of our own that should be let in.
        """
        site = self.headers.get("Sec-Fetch-Site", "none")
        if self.headers.get("Origin") is not None or site != "none":
            raise _Refusal(403, "browsers may not use this server")
        if not _is_own_name(self.headers.get("Host", "")):
            raise _Refusal(403, "the Host of a request must be this machine's address or name")

    def _read_body(self) -> dict[str, Any]:
        """Read a request's body while the model goes on with others' requests."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refusal(411, "a request must have a Content-Length")
        if len(length) > 9 or int(length) > _MOST_BODY_BYTES:
            raise _Refusal(413, f"a request may have {_MOST_BODY_BYTES} bytes")
        data = bytearray()
        deadline = time.monotonic() + _SILENCE_SECONDS
        while len(data) < int(length):
            piece = self.rfile.read1(int(length) - len(data))
            if not piece or time.monotonic() > deadline:
                raise _Refusal(408, "the request's body has not come in time")
            data += piece
        try:
            body = json.loads(data)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(body, dict):
            raise ValueError("it must be a JSON object")
        return body

    def _reply(self, request: Request, n_prompt: int) -> None:
        if request.failure is not None:
            if request.bad_schema:
                self._refuse(400, f"this schema can't be followed: {request.failure}")
            else:
                self._refuse(503, request.failure)
            return
        with self.model.talking():
            text, n_reply, truncated = self.model.reply(request)
        self._answer(
            200,
            {
                "object": "chat.completion",
                "model": self.model.name,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "length" if truncated else "stop",
                    }
                ],
                # OpenVINO doesn't tell how much of a prompt came from its cache.
                "usage": {
                    "prompt_tokens": n_prompt,
                    "completion_tokens": n_reply,
                    "total_tokens": n_prompt + n_reply,
                },
            },
        )

    def _is_gone(self) -> bool:
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _refuse(self, status: int, message: str, **more: int) -> None:
        self._answer(status, {"error": {"message": message, "code": status, **more}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the requests are recorded in the study."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that are gone: it is no error of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}"


def _is_own_name(host: str) -> bool:
    """Whether a request's ``Host`` is an address, or a name of this machine's."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a bracket without its other
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = socket.gethostname().lower()
        return name in ("localhost", own) or name.startswith(f"{own.partition('.')[0]}.")
    return True


def main(options: dict[str, Any]) -> None:
    """Run the process, which serves until its standard input ends."""
    # Ctrl-C reaches the whole group of processes; this one's end is its starter's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server = _Server(options["host"], options["port"])
    except OSError as error:
        print(json.dumps({"taken": str(error)}), flush=True)
        return
    try:
        _Handler.model = Model(
            Path(options["path"]), options["n_threads"], options["context_tokens"]
        )
    except Exception as error:  # whatever its reader meets in a file, as an IndexError
        print(json.dumps({"unread": f"{type(error).__name__}: {error}"}), flush=True)
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"address": server.url}), flush=True)
    sys.stdin.read()
    os._exit(0)  # without waiting for a reply that nobody reads
