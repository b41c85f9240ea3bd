"""HTTP for a model on this machine: no browser is let in, and sizes and waits have limits.

At a loopback address it serves its own user only. Any page that is open in a browser could ask a
server of its machine: models take no key, and each of their answers takes seconds of all cores.
"""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
import ipaddress
import json
import select
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from .peers import is_ours


_SILENCE_SECONDS = 30.0  # for a request to come, and for a client to take its answer
_WAITING = 128  # connections that wait to be taken, as while a server is started again
_MOST_BODY_BYTES = 2_000_000  # some hundred times what the context holds


class Refusal(Exception):
    """A request that gets nothing but an HTTP status and the reason for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """What is common to the requests of models that this machine runs."""

    protocol_version = "HTTP/1.1"
    # An answer goes out as one: of two parts the second would wait 40 ms for the client's
    # acknowledgement of the first.
    wbufsize = -1
    timeout = _SILENCE_SECONDS

    def check_sender(self) -> None:
        """Refuse other users of this machine, if only it is served, and browsers.

        Any page that is open in one could ask a server of this machine. Browsers tell the page's
        origin; or, where the page's name was pointed at this machine, the name that they think it
        has. There is no page of our own that should be let in.
        """
        host = str(self.server.server_address[0])  # type: ignore[index]
        own_only = ipaddress.ip_address(host).is_loopback
        if own_only and not is_ours(self.client_address, self.connection.getsockname()):
            raise Refusal(403, f"at {host} only the user who started this server may use it")
        site = self.headers.get("Sec-Fetch-Site", "none")
        if self.headers.get("Origin") is not None or site != "none":
            raise Refusal(403, "browsers may not use this server")
        if not is_own_name(self.headers.get("Host", "")):
            raise Refusal(403, "the Host of a request must be this machine's address or name")

    def read_body(self) -> bytes:
        """Read a request's body while the model goes on with others' requests."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(411, "a request must have a Content-Length")
        if len(length) > 9 or int(length) > _MOST_BODY_BYTES:
            raise Refusal(413, f"a request may have {_MOST_BODY_BYTES} bytes")
        data = bytearray()
        deadline = time.monotonic() + _SILENCE_SECONDS
        while len(data) < int(length):
            piece = self.rfile.read1(int(length) - len(data))
            if not piece or time.monotonic() > deadline:
                raise Refusal(408, "the request's body has not come in time")
            data += piece
        return bytes(data)

    def is_gone(self) -> bool:
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def refuse(self, status: int, message: str, **more: int) -> None:
        self.answer(status, {"error": {"message": message, "code": status, **more}})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.send(status, json.dumps(body).encode())

    def send(self, status: int, data: bytes) -> None:
        """Answer with JSON."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the requests are recorded in the study."""


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 is any free one.

    Raises:
        OSError: If that can't be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_WAITING)


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(ThreadingHTTPServer):
    """Answers who comes to a listening socket."""

    daemon_threads = True

    def __init__(self, listening: socket.socket, handler: Callable[..., Handler]) -> None:
        super().__init__(listening.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()  # one that listens nowhere
        self.socket = listening

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that are gone: it is no error of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def is_own_name(host: str) -> bool:
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
