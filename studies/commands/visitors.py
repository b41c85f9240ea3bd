"""Whom a web server of this user's serves: nobody else on the machine, and no other site's pages."""

from __future__ import annotations

from collections.abc import Iterable
import os
from pathlib import Path
import socket
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from samplers._llm.local_http import is_own_name


if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse
    from _typeshed.wsgi import WSGIApplication
    from _typeshed.wsgi import WSGIEnvironment

_ESTABLISHED = "01"  # of a connection that its owner has closed Linux no longer says whose it was


def is_own(client: tuple[str, int]) -> bool:
    """Return whether a connection from this machine is this user's or root's.

    Args:
        client: Its other end, an IPv4 address and a port.

    Returns:
        True also where the system has no table that says so (Linux has).
    """
    host, port = client
    # As the machine's own number: see proc_pid_net(5).
    address = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
    try:
        rows = Path("/proc/net/tcp").read_text().splitlines()
    except OSError:
        return True
    for fields in map(str.split, rows):
        if fields[1] == address and fields[3] == _ESTABLISHED:
            return int(fields[7]) in (0, os.geteuid())
    return False


def only_own_pages(app: WSGIApplication) -> WSGIApplication:
    """Refuse what a browser sends for another site's page, whatever name that gave this machine."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        origin = environ.get("HTTP_ORIGIN")
        if is_own_name(host) and (origin is None or urlsplit(origin).netloc == host):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"Only pages of this server, by this machine's own name, may use it.\n"]

    return answer
