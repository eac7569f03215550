"""The few rtnetlink messages that are asked often, made and read by hand.

pyroute2 decodes everything a link says, some 2 ms for each, in the event loop; a look at a host with many
machines would stop the loop for as long as a VM takes to start. Here only what is used is read. Calls
block for the kernel's answer: they belong into a thread.

Source: rtnetlink(7), netlink(7); Linux `include/uapi/linux/if_link.h`, `rtnetlink.h`, `neighbour.h`.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_GETADDR: Final = 22
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
_NLM_F_REQUEST: Final = 0x1
_NLM_F_ACK: Final = 0x4
_NLM_F_DUMP: Final = 0x300
OR_REPLACE: Final = 0x500  # NLM_F_CREATE | NLM_F_REPLACE
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_TYPE_MASK: Final = 0x3FFF
NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_BUFFER_BYTES: Final = 1 << 18
_TIMEOUT_S: Final = 5.0

Attributes = dict[int, bytes]


def attribute(kind: int, body: bytes) -> bytes:
    """Give one attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(body), kind) + body + bytes(-len(body) % 4)


def attributes(data: bytes) -> Attributes:
    """Read attributes by their number; of a repeated one the last counts."""
    found: Attributes = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return found


def change(kind: int, body: bytes, flags: int = 0) -> None:
    """Send one request, with further flags, and wait for the kernel's word.

    Raises:
        OSError: If the kernel refused.
    """
    with _opened() as kernel:
        kernel.send(_message(kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, body))
        for answer, said in _messages(kernel.recv(_BUFFER_BYTES)):
            _refused(answer, said)


def dump(kind: int, body: bytes, fixed_bytes: int) -> list[tuple[bytes, Attributes]]:
    """Ask for all objects of a kind; give the fixed part and the attributes of each.

    A dump that changed while it was read is given as it came: the change brings its own notice.

    Args:
        kind: The request's.
        body: The request's own fixed part and attributes.
        fixed_bytes: Size of the fixed part of an answer.

    Raises:
        OSError: If the kernel refused.
    """
    found: list[tuple[bytes, Attributes]] = []
    with _opened() as kernel:
        kernel.send(_message(kind, _NLM_F_REQUEST | _NLM_F_DUMP, body))
        while True:
            for answer, said in _messages(kernel.recv(_BUFFER_BYTES)):
                if answer == _NLMSG_DONE:
                    return found
                _refused(answer, said)
                found.append((said[:fixed_bytes], attributes(said[fixed_bytes:])))


def _opened() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    kernel.settimeout(_TIMEOUT_S)
    return kernel


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def _refused(kind: int, said: bytes) -> None:
    if kind != _NLMSG_ERROR:
        return
    (code,) = struct.unpack_from("=i", said)
    if code:
        raise OSError(-code, os.strerror(-code))
