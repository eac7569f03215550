"""Listens to the kernel's notices: links, addresses and routes by rtnetlink, rules by nfnetlink.

It reads just enough of a message to tell whose it is. A notice says only that somebody should look;
when the kernel dropped some because nobody read, everything is to be looked at.

Source: rtnetlink(7), Linux `include/uapi/linux/netfilter/nf_tables.h`.
"""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from qemu_runner.bridge_network.errors import LinkError
from qemu_runner.bridge_network.ports import Change

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_GROUP_NFTABLES: Final = 7
_GROUPS_ROUTE: Final = (1, 5, 7, 24)  # link, IPv4 addresses, IPv4 routes, IPv4 switches
_HEADER: Final = struct.Struct("=IHHII")
_SUBSYSTEM_NFTABLES: Final = 10
_BUFFER_BYTES: Final = 1 << 16
_NEW_GENERATION: Final = 15
_ATTRIBUTE_TABLE: Final = 1
_ENGINE_TABLE: Final = "filter"
_Meaning = Callable[[bytes], set[Change]]


class NetlinkChanges:
    """The notices of this process's network namespace."""

    @asynccontextmanager
    async def watch(self, table: str) -> AsyncIterator["_Reader"]:
        loop = asyncio.get_running_loop()
        reader = _Reader()
        with (
            _opened(socket.NETLINK_ROUTE, _GROUPS_ROUTE) as route,
            _opened(_NETLINK_NETFILTER, (_GROUP_NFTABLES,)) as rules,
        ):
            loop.add_reader(route, _drain, route, reader, lambda _: {Change.LINKS})
            loop.add_reader(rules, _drain, rules, reader, lambda data: changed_tables(data, table))
            try:
                yield reader
            finally:
                loop.remove_reader(route)
                loop.remove_reader(rules)


class _Reader:
    """Notices that have come and were not asked for yet."""

    def __init__(self) -> None:
        self._pending: set[Change] = set()
        self._woken = asyncio.Event()

    def put(self, changes: set[Change]) -> None:
        if changes:
            self._pending |= changes
            self._woken.set()

    async def next(self) -> set[Change]:
        await self._woken.wait()
        self._woken.clear()
        changes, self._pending = self._pending, set()
        return changes


def changed_tables(data: bytes, table: str) -> set[Change]:
    """Read from messages of nf_tables what they are about.

    Args:
        data: Messages, one behind the other.
        table: Name of our tables.
    """
    changes: set[Change] = set()
    for kind, body in _messages(data):
        if kind >> 8 != _SUBSYSTEM_NFTABLES or kind & 0xFF == _NEW_GENERATION:
            continue
        name = _table_name(body)
        if name == table:
            changes.add(Change.RULES)
        elif name == _ENGINE_TABLE:
            changes.add(Change.ENGINE)
    return changes


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def _table_name(body: bytes) -> str:
    # Behind 4 bytes of nfgenmsg; the table is attribute 1 of tables, chains, rules, sets and elements.
    at = 4
    while at + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, at)
        if size < 4:
            return ""
        if kind & 0x3FFF == _ATTRIBUTE_TABLE:
            return body[at + 4 : at + size].rstrip(b"\0").decode("ascii", errors="replace")
        at += (size + 3) & ~3
    return ""


def _opened(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        made.bind((0, 0))
        for group in groups:
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError as error:
        made.close()
        raise LinkError("netlink notices", error.strerror or str(error)) from error
    return made


def _drain(source: socket.socket, reader: _Reader, meaning: _Meaning) -> None:
    while True:
        try:
            data = source.recv(_BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            reader.put(set(Change))
        else:
            reader.put(meaning(data))
