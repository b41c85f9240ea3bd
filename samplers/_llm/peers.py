"""Whose the other end of a connection is, so that a server on loopback can be its user's alone.

Linux tells by sock_diag(7), as ``ss`` is told: by both ends, since two connections may share one of
them, and another user's program can choose which.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from typing import Any


_SOCK_DIAG, _BY_FAMILY, _REQUEST, _ERROR = 4, 20, 1, 2  # linux/netlink.h, linux/sock_diag.h
# Of a connection that its owner has closed Linux no longer says whose it was.
_ESTABLISHED = 1
_ANY_STATE, _NO_COOKIE = 0xFFFFFFFF, 0xFFFFFFFF


def is_ours(client: Any, server: Any) -> bool:
    """Return whether a connection from this machine is this user's or root's.

    Args:
        client: Its end, an address and a port as `socket.socket.getpeername` gives them.
        server: The end that asks.

    Returns:
        True also where the system doesn't say so (Linux does).
    """
    if not sys.platform.startswith("linux"):
        return True
    try:
        if (found := _look_up(client, server)) is not None:
            state, owner = found
            return state == _ESTABLISHED and owner in (0, os.geteuid())
        nobody = str(ipaddress.ip_address(0 if "." in server[0] else "::")), 0
        # It is gone; or the system knows no sockets at all, not even the one that listens.
        return _look_up(server, nobody) is None
    except OSError:  # no netlink, as in some containers
        return True


def _look_up(local: Any, remote: Any) -> tuple[int, int] | None:
    """Return the state and the owner's id of a TCP socket of this machine; None if there is none."""
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    ends = [socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (local, remote)]
    # struct inet_diag_req_v2 with its struct inet_diag_sockid.
    asked = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _ANY_STATE)
    asked += struct.pack("!HH", local[1], remote[1]) + b"".join(ends)
    asked += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(asked), _BY_FAMILY, _REQUEST, 0, 0) + asked)
        answer = netlink.recv(4096)
    _, kind, _, _, _ = struct.unpack_from("=IHHII", answer)
    if kind == _ERROR:
        return None
    # struct inet_diag_msg behind the header of 16 bytes.
    _, state, _, _, _, _, _, _, owner, _ = struct.unpack_from("=BBBB48sIIIII", answer, 16)
    return state, owner
