"""The kernel's table of neighbours by rtnetlink: read with pyroute2, followed by its notices.

Source: rtnetlink(7), Linux `include/uapi/linux/neighbour.h`.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, Final

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

from qemu_runner.existing_bridge.errors import BridgeTapError
from qemu_runner.existing_bridge.ports import Neighbour

_PYROUTE2: Final[Any] = pyroute2  # it has no annotations
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_GROUP_NEIGHBOURS: Final = 3
_BUFFER_BYTES: Final = 1 << 16
_TIMEOUT_S: Final = 10.0
# NUD_INCOMPLETE, NUD_FAILED and NUD_NOARP: asked for and not found, gone, or never asked for.
_NOBODY: Final = 0x01 | 0x20 | 0x40


class NetlinkNeighbours:
    """The table of this process's network namespace."""

    async def look(self) -> tuple[Neighbour, ...]:
        found: list[Neighbour] = []
        try:
            async with asyncio.timeout(_TIMEOUT_S), _PYROUTE2.AsyncIPRoute() as kernel:
                for family in (socket.AF_INET, socket.AF_INET6):
                    found += [
                        Neighbour(message["ifindex"], str(message.get("lladdr")).lower(), message.get("dst"))
                        async for message in await kernel.get_neighbours(family=family)
                        if _is_somebody(message)
                    ]
        except NetlinkError as exc:
            raise BridgeTapError("any bridge", f"neighbours: {exc.args[-1]}") from exc
        except TimeoutError as exc:
            raise BridgeTapError("any bridge", "the kernel did not tell its neighbours in time") from exc
        return tuple(sorted(found, key=lambda one: (one.interface, one.mac, ip_address(one.address).packed)))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        ) as notices:
            notices.bind((0, 0))
            notices.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NEIGHBOURS)
            loop.add_reader(notices, _drain, notices, woken)
            try:
                yield _wakings(woken)
            finally:
                loop.remove_reader(notices)


async def _wakings(woken: asyncio.Event) -> AsyncIterator[None]:
    """Yield once for all notices since the last time."""
    while True:
        await woken.wait()
        woken.clear()
        yield


def _drain(notices: socket.socket, woken: asyncio.Event) -> None:
    while True:
        try:
            notices.recv(_BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            # Some were dropped because nobody read: all the more reason to look.
            if exc.errno != errno.ENOBUFS:
                raise
        woken.set()


def _is_somebody(message: Any) -> bool:
    address = message.get("dst")
    if not message.get("lladdr") or not address or message["state"] & _NOBODY:
        return False
    return not (ip_address(address).is_link_local or ip_address(address).is_multicast)
