"""Looks at links, addresses and routes. It must never change any. Blocks: it belongs into a thread."""

import socket
import struct
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from qemu_runner.bridge_network.adapters.rtnetlink import (
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    Attributes,
    attribute,
    attributes,
    dump,
)
from qemu_runner.bridge_network.host_view import HostView, Link, Route

_IFINFO: Final = struct.Struct("=BxHiII")
_IFADDR: Final = struct.Struct("=BBBBI")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_NEXTHOP: Final = struct.Struct("=HBBi")
_IFF_UP: Final = 0x1
_SKIP_STATISTICS: Final = 1 << 3
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 1, 3, 10, 18, 20
_IFLA_EXT_MASK: Final = 29
_IFLA_INFO_KIND: Final = 1
_IFA_LOCAL: Final = 2
_RTA_DST, _RTA_OIF, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 9, 15
_TABLE_LOCAL: Final = 255
_UNICAST: Final = 1
_NOWHERE: Final = bytes(4)


def look() -> HostView:
    """Look at this process's network namespace.

    Raises:
        OSError: If the kernel did not answer.
    """
    mask = attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATISTICS))
    links = dump(RTM_GETLINK, _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + mask, _IFINFO.size)
    addresses = dump(RTM_GETADDR, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0), _IFADDR.size)
    routes = dump(RTM_GETROUTE, _RTMSG.pack(socket.AF_INET, *[0] * 8), _RTMSG.size)
    return HostView(
        links=tuple(_link(fixed, said) for fixed, said in links),
        addresses=tuple(
            (_IFADDR.unpack(fixed)[4], IPv4Address(said[_IFA_LOCAL]))
            for fixed, said in addresses
            if _IFA_LOCAL in said
        ),
        routes=tuple(route for fixed, said in routes if (route := _route(fixed, said)) is not None),
    )


def _link(fixed: bytes, said: Attributes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack(fixed)
    return Link(
        index=index,
        name=_text(said.get(_IFLA_IFNAME, b"")),
        kind=_text(attributes(said.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")),
        alias=_text(said.get(_IFLA_IFALIAS, b"")),
        master=_number(said.get(_IFLA_MASTER, _NOWHERE)),
        up=bool(flags & _IFF_UP),
        mac=said.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def _route(fixed: bytes, said: Attributes) -> Route | None:
    _, prefix_len, _, _, table, _, _, kind, _ = _RTMSG.unpack(fixed)
    if kind != _UNICAST or _number(said.get(_RTA_TABLE, struct.pack("=I", table))) == _TABLE_LOCAL:
        return None
    destination = IPv4Network((said.get(_RTA_DST, _NOWHERE), prefix_len))
    if _RTA_MULTIPATH in said:
        return Route(destination, tuple(_next_hops(said[_RTA_MULTIPATH])))
    return Route(destination, (_number(said.get(_RTA_OIF, _NOWHERE)),))


def _next_hops(data: bytes) -> list[int]:
    found: list[int] = []
    at = 0
    while at + _NEXTHOP.size <= len(data):
        size, _, _, interface = _NEXTHOP.unpack_from(data, at)
        found.append(interface)
        at += max((size + 3) & ~3, _NEXTHOP.size)
    return found


def _number(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
