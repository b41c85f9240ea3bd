"""Whose a connection is: real sockets, also another user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import socket
import struct

import pytest

from samplers._llm.peers import is_ours
from tests.conftest import not_here


_IP_LOCAL_PORT_RANGE = 51  # linux/in.h


@pytest.mark.parametrize(
    ("family", "listening", "client"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET, "127.0.0.1", "::ffff:127.0.0.1"),  # as Java connects to IPv4
    ],
)
def test_an_own_connection_is_ours_until_it_is_gone(
    family: socket.AddressFamily, listening: str, client: str
) -> None:
    with socket.create_server((listening, 0), family=family) as server:
        with socket.create_connection((client, server.getsockname()[1])):
            accepted, address = server.accept()
            assert is_ours(address, accepted.getsockname())
        assert not is_ours(address, accepted.getsockname())  # it may have been anybody's
        accepted.close()


def test_another_users_connection_is_not_ours(as_another_user: Callable[[int], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = as_another_user(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", relay)):
            accepted, address = server.accept()
            assert not is_ours(address, accepted.getsockname())
            accepted.close()


def test_a_port_that_two_connections_share_lends_no_owner() -> None:
    shared = struct.Struct("=I")
    if not Path("/proc/self/ns").exists():
        not_here("Linux lets a program choose the port that it connects from")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(
        ("127.0.0.1", 0)
    ) as elsewhere:
        with socket.create_connection(elsewhere.getsockname()) as own, socket.socket() as other:
            port = own.getsockname()[1]
            try:
                other.setsockopt(
                    socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, shared.pack(port << 16 | port)
                )
            except OSError:
                not_here("Linux lets a program choose its port from 6.3 on")
            other.connect(server.getsockname())
            accepted, address = server.accept()
            assert address == own.getsockname()
            other.close()
            # All that is left of this port is our connection to somewhere else.
            assert not is_ours(address, accepted.getsockname())
            accepted.close()


def test_a_system_that_does_not_tell_lets_everybody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> socket.socket:
        raise OSError("Protocol not supported")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        assert is_ours(("127.0.0.1", 1), ("127.0.0.1", 2))
    # As without the kernel's module: not even the socket that listens is known.
    assert is_ours(("127.0.0.1", 1), ("127.0.0.1", 2))
