"""Sets IPv4 switches of one interface by netlink, which works where /proc/sys is read-only.

pyroute2 writes these switches as the kernel reports them, a flat array, while the kernel wants them as
nested attributes; so the one message is made here.

Source: rtnetlink(7); Linux `include/uapi/linux/ip.h` (IPV4_DEVCONF_*), `net/ipv4/devinet.c`,
`inet_set_link_af`.
"""

import os
import socket
import struct
from enum import IntEnum
from typing import Final

_RTM_SETLINK: Final = 19
_NLM_F_REQUEST: Final = 1
_NLM_F_ACK: Final = 4
_NLMSG_ERROR: Final = 2
_IFLA_AF_SPEC: Final = 26
_IFLA_INET_CONF: Final = 1
_NESTED: Final = 0x8000
_HEADER: Final = struct.Struct("=IHHII")
_TIMEOUT_S: Final = 5.0


class Switch(IntEnum):
    """The switches that are used here, by the kernel's number."""

    FORWARDING = 1
    ROUTE_LOCALNET = 26


def set_switch(interface_index: int, switch: Switch, value: int) -> None:
    """Set a switch of an interface. Blocks for the kernel's answer.

    Raises:
        OSError: If the kernel refused.
    """
    setting = _attribute(switch, struct.pack("=I", value))
    family = _attribute(socket.AF_INET | _NESTED, _attribute(_IFLA_INET_CONF | _NESTED, setting))
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, interface_index, 0, 0)
    body += _attribute(_IFLA_AF_SPEC | _NESTED, family)
    size = _HEADER.size + len(body)
    message = _HEADER.pack(size, _RTM_SETLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_TIMEOUT_S)
        kernel.send(message)
        answer = kernel.recv(4096)
    kind = _HEADER.unpack_from(answer)[1]
    (code,) = struct.unpack_from("=i", answer, _HEADER.size)
    if kind == _NLMSG_ERROR and code:
        raise OSError(-code, os.strerror(-code))


def _attribute(kind: int, body: bytes) -> bytes:
    size = 4 + len(body)
    return struct.pack("=HH", size, kind) + body + bytes(-size % 4)
