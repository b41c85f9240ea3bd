"""llama.cpp's own server, for GGUF files that OpenVINO can't read, behind our door.

That server lets any page of a browser ask, and takes bodies of any size. So it listens under a path
that nobody can guess, on the loopback interface only, and what comes to the address that is told is
passed on to it after the checks of ``local_http``.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from http.client import HTTPException
from pathlib import Path
import secrets
import select
import socket
import threading
from urllib.parse import urlsplit

from .local_http import Handler
from .local_http import listen
from .local_http import Refusal
from .local_http import Server
from .local_http import url_of


# Requests at the same time. Each has a context of its own, so that two threads of a study don't
# push each other's prefix out of the cache.
_SLOTS = 2
# Prefixes that had to leave their slot are kept in this much memory; one of 2,600 tokens has 60.
_CACHE_MB = 512
# Tokens in a row from which a piece of the cache is moved up when what was before it is gone, as
# when the oldest row leaves a table of trials. Shorter than a row.
_REUSED_TOKENS = 32

_SMALL_MODEL_BYTES = 500_000_000
_DISCONNECT_SECONDS = 0.5  # how often to see whether a client still waits


class LlamaCppServer:
    """The server, on threads of this process.

    Args:
        path: A GGUF file.
        host: Interface to listen on.
        port: 0 for any free one.
        n_threads: Threads that read prompts.
        n_cpus: Threads that write replies, of all but small models.
        context_tokens: Tokens that a prompt and its reply may have together.

    Raises:
        RuntimeError: If llama.cpp can't read the file.
        OSError: If it can't listen there.
    """

    def __init__(
        self,
        path: Path,
        host: str,
        port: int,
        *,
        n_threads: int,
        n_cpus: int,
        context_tokens: int,
    ) -> None:
        import xllamacpp

        prefix = f"/{secrets.token_urlsafe(16)}"
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {path.stem}
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_prefix = prefix
        params.n_parallel = _SLOTS
        params.n_ctx = _SLOTS * context_tokens  # divided among the slots
        params.cache_ram_mib = _CACHE_MB
        params.n_cache_reuse = _REUSED_TOKENS
        params.ui = False
        params.verbosity = 0  # else it writes a dozen lines a request to stderr
        params.warmup = False  # the first request would not be slower for more than a moment
        # Reading the prompt: beside two trainings on two cores, one thread read 45 tokens a second
        # and two, which wait for each other, 26.
        params.cpuparams_batch.n_threads = n_threads
        # Writing the reply: the threads of a small model meet after every few microseconds of work,
        # and spin there. Where the machine has something else to do, as a training, two of them
        # wrote 1 to 3 tokens a second and one wrote 15; on an idle machine it was 62 and 40.
        small = path.stat().st_size < _SMALL_MODEL_BYTES
        params.cpuparams.n_threads = 1 if small else n_cpus
        self._server: xllamacpp.Server | None = xllamacpp.Server(params)
        behind = urlsplit(self._server.listening_address)
        self._asked: set[HTTPConnection] = set()
        listening = listen(host, port)
        self._door = Server(listening, partial(_Handler, behind.netloc, prefix, self._asked))
        threading.Thread(target=self._door.serve_forever, daemon=True).start()
        self.listening_address = url_of(listening)

    def close(self) -> None:
        """Stop listening, and free the memory: llama.cpp's server ends with its last reference.

        It keeps Python's lock while it ends, and waits for whom it answers; that would be for ever
        for our own threads, which need the lock to see that their clients are gone.
        """
        self._door.shutdown()
        self._door.server_close()
        for connection in list(self._asked):
            if (sock := connection.sock) is not None:
                with suppress(OSError):  # it has just been closed
                    sock.shutdown(socket.SHUT_RDWR)
        self._server = None


class _Handler(Handler):
    """Passes a request on.

    Args:
        netloc: Host and port that llama.cpp's server listens at.
        prefix: Its secret path.
        asked: Where to note the connections to it that wait for an answer.
    """

    def __init__(
        self, netloc: str, prefix: str, asked: set[HTTPConnection], *request: object
    ) -> None:
        self._netloc, self._prefix, self._asked = netloc, prefix, asked
        super().__init__(*request)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._pass_on(has_body=False)

    def do_POST(self) -> None:
        self._pass_on(has_body=True)

    def _pass_on(self, *, has_body: bool) -> None:
        try:
            self.check_sender()
            body = self.read_body() if has_body else None
        except Refusal as error:
            self.close_connection = True  # its body, if there is one, wasn't read
            self.refuse(error.status, str(error))
            return
        except TimeoutError:  # as http.server does for a request that doesn't begin
            self.close_connection = True
            return
        behind = HTTPConnection(self._netloc)
        try:
            headers = {"Content-Type": "application/json"} if has_body else {}
            behind.connect()
            self._asked.add(behind)
            behind.request(self.command, self._prefix + self.path, body, headers)
            # Whose client is gone is given up, as llama.cpp gives up whom it can't answer.
            while not select.select([behind.sock], [], [], _DISCONNECT_SECONDS)[0]:
                if self.is_gone():
                    self.close_connection = True
                    return
            answer = behind.getresponse()
            self.send(answer.status, answer.read())
        except (OSError, HTTPException) as error:
            self.close_connection = True
            self.refuse(503, f"llama.cpp has not answered: {error}")
        finally:
            self._asked.discard(behind)
            behind.close()
