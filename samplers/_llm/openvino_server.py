"""OpenVINO GenAI behind an OpenAI-compatible address: the fast way to run the embedded model.

OpenVINO uses a processor's vector instructions for bfloat16 and int8, which the wheels of llama.cpp
are built without: on two cores of AVX-512 it reads SmolLM2's prompts four times as fast, and ten
times as fast it writes replies side by side (``python -m tests.benchmarks.engines``). It reads
fewer kinds of GGUF files.

OpenVINO GenAI has no server. OpenVINO's own, Model Server, is a program of its own that no package
index has, and llama.cpp's, which ``embedded`` uses where this one can't be, is the slower engine.

A process of its own, since OpenVINO holds Python's lock while it computes. It ends when its
standard input does, so with the process that started it, however that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
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
from typing import TYPE_CHECKING

from .schema_regex import schema_regex


if TYPE_CHECKING:
    import openvino_genai

# Contexts whose keys and values fit into memory: what requests need at the same time, and the
# prefixes that later ones begin with.
_CONTEXTS_KEPT = 3
_STEP_TOKENS = 1024  # at most in a step; a prompt in the default steps of 256 takes a sixth longer
_BLOCK_TOKENS = 32  # in one of the blocks that OpenVINO divides that memory into on a CPU
# This folder as a package of its own, whatever the package is called that it is a part of; and no
# neighbour of it in the way of a library of the same name.
_PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from _llm.openvino_server import main
del sys.path[0]
main(json.loads(sys.argv[2]))
"""
_BREAK_SECONDS = 0.001
_DISCONNECT_SECONDS = 0.5  # how often to see whether a client still waits


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


@dataclass
class _Request:
    handle: Any
    has_schema: bool
    done: threading.Event = field(default_factory=threading.Event)
    failure: str | None = None
    bad_schema: bool = False  # which is why it failed


class _TooLong(Exception):
    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens


class _Model:
    """One model, whose requests advance together, a token each at a time."""

    def __init__(self, path: Path, n_threads: int, context_tokens: int) -> None:
        self.name = path.stem
        self.context_tokens = context_tokens
        self._path = path
        self._n_threads = n_threads
        self._next_id = 0
        self._requests: list[_Request] = []
        self._n_talking = 0
        self._changed = threading.Condition()
        self._load()
        # OpenVINO sets up its arrays at the first look into one: one thread holds Python's lock and
        # waits for the other, which does so and waits for the lock, if two are the first.
        self.tokens("a")
        threading.Thread(target=self._work, daemon=True).start()

    def _load(self) -> None:
        import openvino_genai

        scheduling = openvino_genai.SchedulerConfig()
        scheduling.enable_prefix_caching = True
        scheduling.max_num_batched_tokens = _STEP_TOKENS
        scheduling.num_kv_blocks = _CONTEXTS_KEPT * self.context_tokens // _BLOCK_TOKENS
        settings = {
            "INFERENCE_NUM_THREADS": self._n_threads,
            # The default of 8 bits writes a fifth slower, and rounds.
            "KV_CACHE_PRECISION": "f16",
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(self._path), scheduling, "CPU", settings
        )
        self._tokenizer = self._pipeline.get_tokenizer()

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Let the model wait while a client is talked to, which takes a few milliseconds.

        Each step holds Python's lock, and a thread has to get it back after every bit that it reads
        or writes: beside a long prompt a count of tokens took 0.4 s in the mean, and takes 0.2.
        """
        with self._changed:
            self._n_talking += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_talking -= 1
                self._changed.notify_all()

    @property
    def n_requests(self) -> int:
        """Number of requests that wait for their replies."""
        return len(self._requests)

    def tokens(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids
        return [int(token) for token in ids.data[0]]

    def ask(self, body: dict[str, Any]) -> tuple[_Request, int]:
        """Put a request among those that advance: it and the tokens of its prompt."""
        messages = [{"role": m["role"], "content": m["content"]} for m in body["messages"]]
        prompt = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ids = self._tokenizer.encode(prompt, add_special_tokens=False).input_ids
        n_tokens = int(ids.shape[1])
        if n_tokens >= self.context_tokens:
            raise _TooLong(n_tokens)
        settings = _settings(body, self.context_tokens - n_tokens)
        with self._changed:
            self._next_id += 1
            handle = self._pipeline.add_request(self._next_id, ids, settings)
            request = _Request(handle, "response_format" in body)
            self._requests.append(request)
            self._changed.notify_all()
        return request, n_tokens

    def reply(self, request: _Request) -> tuple[str, int, bool]:
        """Return a finished request's text, its tokens, and whether it was cut off."""
        from openvino_genai import GenerationFinishReason

        [output] = request.handle.read_all()
        ids = list(output.generated_ids)
        return (
            self._tokenizer.decode(ids),
            len(ids),
            output.finish_reason == GenerationFinishReason.LENGTH,
        )

    def _work(self) -> None:
        try:
            self._advance()
        finally:  # not even a new start helped: the next request finds the process gone
            os._exit(1)

    def _advance(self) -> None:
        from openvino_genai import GenerationStatus

        while True:
            time.sleep(_BREAK_SECONDS)  # for others to get Python's lock, and to say so
            with self._changed:
                self._changed.wait_for(lambda: self._requests and not self._n_talking)
            try:
                self._pipeline.step()
            except RuntimeError as error:
                self._start_anew(str(error))
                continue
            with self._changed:
                finished = [
                    r for r in self._requests if r.handle.get_status() != GenerationStatus.RUNNING
                ]
                self._requests = [r for r in self._requests if r not in finished]
            for request in finished:
                if request.handle.get_status() == GenerationStatus.IGNORED:
                    request.failure = "other requests have all of the model's memory"
                request.done.set()

    def _start_anew(self, failure: str) -> None:
        """Start anew: after an error, as of an impossible schema, each further step fails too."""
        with self._changed:
            failed, self._requests = self._requests, []
            self._load()
        for request in failed:
            request.failure = failure
            # Of several it may be another one's. Asked again it is the only one, or succeeds.
            request.bad_schema = request.has_schema and len(failed) == 1
            request.done.set()


def _settings(body: dict[str, Any], room: int) -> openvino_genai.GenerationConfig:
    import openvino_genai

    settings = openvino_genai.GenerationConfig()
    asked = body.get("max_tokens") or body.get("max_completion_tokens") or room
    settings.max_new_tokens = min(int(asked), room)
    temperature = float(body.get("temperature", 1.0))
    settings.do_sample = temperature > 0
    if settings.do_sample:
        # All but the temperature as llama.cpp's server has it by default, so that a model answers
        # alike in both.
        settings.temperature = temperature
        settings.top_k, settings.top_p, settings.min_p = 40, 0.95, 0.05
        seed = body.get("seed")
        settings.rng_seed = int.from_bytes(os.urandom(4), "big") if seed is None else int(seed)
    form = body.get("response_format")
    if form is not None:
        try:
            # OpenVINO's own handling of schemas allows any whitespace between the parts, which a
            # small model does not stop to write, and numbers that are no JSON, such as 05.
            regex = schema_regex(form["json_schema"]["schema"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this schema can't be followed: {error}") from error
        settings.structured_output_config = openvino_genai.StructuredOutputConfig(regex=regex)
    return settings


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer goes out as one: of two parts the second would wait 40 ms for the client's
    # acknowledgement of the first.
    wbufsize = -1
    model: _Model

    def do_GET(self) -> None:
        with self.model.talking():
            self._tell()

    def _tell(self) -> None:
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
            with self.model.talking():
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                if self.path == "/tokenize":
                    self._answer(200, {"tokens": self.model.tokens(body["content"])})
                    return
                if self.path != "/v1/chat/completions":
                    self._refuse(404, f"there is no {self.path}")
                    return
                request, n_prompt = self.model.ask(body)
            while not request.done.wait(_DISCONNECT_SECONDS):
                if self._is_gone():
                    request.handle.cancel()
                    self.close_connection = True
                    return
            with self.model.talking():
                self._reply(request, n_prompt)
        except _TooLong as error:
            self._refuse(
                400,
                f"the request exceeds the available context size ({self.model.context_tokens})",
                n_prompt_tokens=error.n_tokens,
                n_ctx=self.model.context_tokens,
            )
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            self._refuse(400, f"{type(error).__name__}: {error}")

    def _reply(self, request: _Request, n_prompt: int) -> None:
        if request.failure is not None:
            if request.bad_schema:
                self._refuse(400, f"this schema can't be followed: {request.failure}")
            else:
                self._refuse(503, request.failure)
            return
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
        _Handler.model = _Model(
            Path(options["path"]), options["n_threads"], options["context_tokens"]
        )
    except Exception as error:  # whatever its reader meets in a file, as an IndexError
        print(json.dumps({"unread": f"{type(error).__name__}: {error}"}), flush=True)
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"address": server.url}), flush=True)
    sys.stdin.read()
    os._exit(0)  # without waiting for a reply that nobody reads
