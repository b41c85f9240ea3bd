"""The dashboard's server, asked by other users of the machine and by other sites' pages."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import subprocess
import sys
import threading
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request
from urllib.request import urlopen
from wsgiref.simple_server import make_server

import pytest

from studies.commands.dashboard import _Handler
from studies.commands.dashboard import _Server
from studies.commands.dashboard import HOST
from studies.commands.visitors import only_own_pages
from tests.conftest import not_here


# As another user, who may not be allowed to start this Python.
ASK = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
with socket.socket() as connection:
    connection.connect(("127.0.0.1", int(sys.argv[2])))
    try:
        connection.sendall(b"GET / HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
        while data := connection.recv(1000):
            print(data.decode(), end="")
    except ConnectionError:
        print("refused")
"""


@pytest.fixture
def port() -> Iterator[int]:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"studies"]

    server = make_server(
        HOST, 0, only_own_pages(app), server_class=_Server, handler_class=_Handler
    )
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_another_user_of_the_machine_is_not_served(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() != 0 or not Path("/proc/net/tcp").exists():
        not_here("only root can be another user, and only Linux says whose a connection is")

    def ask(user: int) -> str:
        program = [sys.executable, "-I", "-S", "-c", ASK, str(user), str(port)]
        return subprocess.run(program, capture_output=True, text=True, check=True).stdout

    assert ask(0).endswith("studies")
    assert ask(65534) in ("", "refused\n")
    assert "refused a connection of another user" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200),
        ({"Host": "[::1]:8080"}, 200),  # through a tunnel
        ({"Host": "evil.example"}, 403),  # a name that was pointed at this machine
        ({"Host": "localhost.evil.example:{port}"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_sites_pages_are_not_served(port: int, headers: dict[str, str], status: int) -> None:
    given = {name: value.format(port=port) for name, value in headers.items()}
    try:
        with urlopen(Request(f"http://{HOST}:{port}/", headers=given)) as response:
            answered = response.status
    except HTTPError as error:
        answered = error.code
    assert answered == status
