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
standard input does, so with the process that started it, however that ends. If it ends before, as
by the system that needs its memory, it is started again, and takes who waits at its socket.
"""

from __future__ import annotations

from contextlib import suppress
import json
import logging
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from .local_http import Handler
from .local_http import listen
from .local_http import Refusal
from .local_http import Server
from .local_http import url_of
from .openvino_model import Model
from .openvino_model import Request
from .openvino_model import TooLong


# As Optuna's own, without importing it: the server's process has no other use for it.
_logger = logging.getLogger(f"optuna.{__name__}")

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
_LONGEST_PAUSE = 60.0  # seconds before a process that ends again and again is started again
_STEADY_SECONDS = 60.0  # a process that lived so long is started again at once


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
        MemoryError: If the system ended it while it was loading.
    """

    def __init__(
        self, path: Path, host: str, port: int, *, n_threads: int, context_tokens: int
    ) -> None:
        self._listening = listen(host, port)
        self.listening_address = url_of(self._listening)
        self._options = {
            "path": str(path),
            "socket": self._listening.fileno(),
            "n_threads": n_threads,
            "context_tokens": context_tokens,
        }
        self._closed = threading.Event()
        self._changing = threading.Lock()
        try:
            self._start()
        except BaseException:
            self._listening.close()
            raise
        threading.Thread(target=self._keep, daemon=True).start()

    def _start(self) -> None:
        """Start the process, and wait until it has loaded the model."""
        program = [sys.executable, "-c", _PROGRAM, str(Path(__file__).parents[1])]
        with self._changing:
            if self._closed.is_set():
                return
            self._process = subprocess.Popen(
                [*program, json.dumps(self._options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[self._listening.fileno()],
            )
        assert self._process.stdout is not None
        with self._process.stdout as told:
            first = told.readline()
        if not first:
            if self._process.wait() == -signal.SIGKILL:
                raise MemoryError("It was killed, maybe by the system for its memory.")
            raise RuntimeError("it ended at once")
        if unread := json.loads(first):
            self._end()
            raise RuntimeError(unread)

    def _keep(self) -> None:
        """Start the process again whenever it ends.

        Other processes of a study know its address and not this object.
        """
        pause = 0.0
        while True:
            began = time.monotonic()
            self._process.wait()
            lived = time.monotonic() - began
            pause = 0.0 if lived > _STEADY_SECONDS else min(2 * pause + 1, _LONGEST_PAUSE)
            if self._closed.wait(pause):
                return
            _logger.warning(
                "The process of the language model has ended, maybe by the system for its memory; "
                "it is started again."
            )
            with suppress(OSError, RuntimeError, MemoryError):  # the next time, then
                self._start()

    def close(self) -> None:
        """End the process; what it has not answered is lost."""
        with self._changing:
            self._closed.set()
            self._listening.close()
            self._end()

    def forget(self) -> None:
        """Give up, in a forked child, what the parent's server is reached and kept alive by.

        Else clients would wait at a socket that nobody answers, and the process would outlive the
        parent.
        """
        self._listening.close()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()


class _Handler(Handler):
    model: Model

    def do_GET(self) -> None:
        try:
            self.check_sender()
        except Refusal as error:
            self.refuse(error.status, str(error))
            return
        if self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": self.model.name}]})
        elif self.path == "/props":
            n_ctx = self.model.context_tokens
            self.answer(200, {"default_generation_settings": {"n_ctx": n_ctx}})
        elif self.path == "/health":
            self.answer(200, {"status": "ok", "requests": self.model.n_requests})
        else:
            self.refuse(404, f"there is no {self.path}")

    def do_POST(self) -> None:
        try:
            self.check_sender()
            body = _read_json(self.read_body())
            if self.path == "/tokenize":
                with self.model.talking():
                    tokens = self.model.tokens(body["content"])
                self.answer(200, {"tokens": tokens})
                return
            if self.path != "/v1/chat/completions":
                self.refuse(404, f"there is no {self.path}")
                return
            with self.model.talking():
                request, n_prompt = self.model.ask(body)
            while not request.done.wait(_DISCONNECT_SECONDS):
                if self.is_gone():
                    request.handle.cancel()
                    self.close_connection = True
                    return
            self._reply(request, n_prompt)
        except Refusal as error:
            self.close_connection = True  # its body, if there is one, wasn't read
            self.refuse(error.status, str(error))
        except TooLong as error:
            self.refuse(
                400,
                f"the request exceeds the available context size ({self.model.context_tokens})",
                n_prompt_tokens=error.n_tokens,
                n_ctx=self.model.context_tokens,
            )
        except TimeoutError:  # as http.server does for a request that doesn't begin
            self.close_connection = True
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            self.refuse(400, f"{type(error).__name__}: {error}")

    def _reply(self, request: Request, n_prompt: int) -> None:
        if request.failure is not None:
            if request.bad_schema:
                self.refuse(400, f"this schema can't be followed: {request.failure}")
            else:
                self.refuse(503, request.failure)
            return
        with self.model.talking():
            text, n_reply, truncated = self.model.reply(request)
        self.answer(
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


def _read_json(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(body, dict):
        raise ValueError("it must be a JSON object")
    return body


def main(options: dict[str, Any]) -> None:
    """Run the process, which serves until its standard input ends."""
    # Ctrl-C reaches the whole group of processes; this one's end is its starter's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listening = socket.socket(fileno=options["socket"])
    try:
        _Handler.model = Model(
            Path(options["path"]), options["n_threads"], options["context_tokens"]
        )
    except Exception as error:  # whatever its reader meets in a file, as an IndexError
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
        return
    threading.Thread(target=Server(listening, _Handler).serve_forever, daemon=True).start()
    print(json.dumps(""), flush=True)
    sys.stdin.read()
    os._exit(0)  # without waiting for a reply that nobody reads
