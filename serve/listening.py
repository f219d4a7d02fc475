"""Ends listening without cutting off anybody who has connected."""

import ctypes
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

_SO_ATTACH_FILTER = 26
_WAIT_S = 0.3  # longer than a handshake that has begun takes
_MOST_S = 3.0
_POLL_S = 0.02
# A classic BPF program of four instructions (code, jump if true, jump if false, value): load byte 13 of the TCP header;
# if it has the flag SYN, drop the packet, otherwise take it.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
_UNACCEPTED_AT = 24  # in struct tcp_info: tcpi_unacked, of a listening socket how many connections wait to be accepted


def stop_listening(sockets: Sequence[socket.socket]) -> None:
    """Let nobody else connect, wait until all who have connected are accepted, and close the sockets.

    Other processes, which share the sockets, accept meanwhile. On Linux the kernel drops the first packet of a new
    connection from now on; the client repeats it after a second and is then refused, so that it can safely ask
    another server. Elsewhere a connection that comes in the last moment may be reset.
    """
    if sys.platform == "linux":
        for listening in sockets:
            with suppress(OSError):  # a kernel without socket filters
                _drop_new(listening)
    began = time.monotonic()
    while time.monotonic() - began < _MOST_S:
        time.sleep(_POLL_S)
        if time.monotonic() - began >= _WAIT_S and not any(map(_unaccepted, sockets)):
            break
    for listening in sockets:
        listening.close()


def _drop_new(listening: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _DROP_SYN))
    head = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)


def _unaccepted(listening: socket.socket) -> int:
    if sys.platform != "linux":
        return 0
    information = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACCEPTED_AT + 4)
    return int(struct.unpack_from("I", information, _UNACCEPTED_AT)[0])
