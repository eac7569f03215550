"""Bridges that others made: may a guest be put on one, its tap, and what the host learns of it.

It owns no host object: a tap belongs to the QEMU that holds it. It must never change a bridge.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NoReturn

from qemu_runner.bridge_network import AttachedTap, HostRefusedError, Refused
from qemu_runner.bridge_network.ports import Facts, Links, Taps
from qemu_runner.existing_bridge.errors import BridgeTapError
from qemu_runner.existing_bridge.ports import NeighbourTable

_LOG = logging.getLogger(__name__)
_BRIDGE: Final = "bridge"
_AGAIN_S: Final = 5.0


class HostBridges:
    """Implements `ExistingBridges` on this host.

    Args:
        links: Its interfaces.
        taps: Opens taps.
        facts: What this process may do.
        table: Its neighbours.
        mark: Note on every tap, which tells whose it is.
    """

    def __init__(self, links: Links, taps: Taps, facts: Facts, table: NeighbourTable, mark: str) -> None:
        self._links = links
        self._taps = taps
        self._facts = facts
        self._table = table
        self._mark = mark
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}
        self._followed: set[str] = set()
        self._asked = asyncio.Event()

    async def refusal(self, bridge: str) -> Refused | None:
        """Say why no guest can be put on `bridge` (see `ExistingBridges`)."""
        if not await self._facts.has_net_admin():
            return Refused("the runner lacks CAP_NET_ADMIN.", "start it as root, or grant the capability.")
        if obstacle := await self._facts.tap_obstacle():
            return Refused(
                f"no tap can be made ({obstacle}).", "load the tun module and give the runner /dev/net/tun."
            )
        try:
            link = (await self._links.look()).link(bridge)
        except HostRefusedError as exc:
            return Refused(f"{exc}.", "see the runner's log.")
        if link is None:
            return Refused(
                f"this node has no interface {bridge!r}.",
                f"make the bridge (ip link add {bridge} type bridge) and have a DHCP server serve it.",
            )
        if link.kind != _BRIDGE:
            return Refused(f"{bridge!r} is no bridge.", "name a bridge, and make the interface a port of it.")
        return None

    async def attach(self, bridge: str, tap: str, *, queues: int = 1) -> AttachedTap:
        """Open a tap on `bridge` (see `ExistingBridges`)."""
        try:
            link = (await self._links.look()).link(bridge)
            if link is None or link.kind != _BRIDGE:
                raise BridgeTapError(bridge, "there is no such bridge any more.")
            opened = await self._taps.open(tap, queues)
            try:
                await self._links.mend_tap(tap, self._mark, link.index)
            except BaseException:
                opened.close()
                raise
        except HostRefusedError as exc:
            raise BridgeTapError(bridge, f"{exc}.") from exc
        return opened

    def neighbours(self, bridge: str, mac: str) -> tuple[str, ...]:
        """Return what the host knows of `mac` (see `ExistingBridges`); from now on it is looked for."""
        if bridge not in self._followed:
            self._followed.add(bridge)
            self._asked.set()
        return self._known.get((bridge, mac), ())

    async def run(self, changed: Callable[[], None]) -> NoReturn:
        """Follow the table (see `ExistingBridges`)."""
        while True:
            # A host without a guest on such a bridge is not looked at.
            await self._asked.wait()
            try:
                await self._follow(changed)
            except (BridgeTapError, HostRefusedError) as exc:
                _LOG.warning("neighbours not followed", extra={"error": str(exc)})
            self._asked.clear()
            asyncio.get_running_loop().call_later(_AGAIN_S, self._asked.set)

    async def _follow(self, changed: Callable[[], None]) -> None:
        async with self._table.changes() as changes:
            await self._look(changed)
            async for _ in changes:
                await self._look(changed)

    async def _look(self, changed: Callable[[], None]) -> None:
        names = {link.index: link.name for link in (await self._links.look()).links}
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for neighbour in await self._table.look():
            name = names.get(neighbour.interface, "")
            if name in self._followed:
                key = name, neighbour.mac
                found[key] = (*found.get(key, ()), neighbour.address)
        if found != self._known:
            self._known = found
            changed()
