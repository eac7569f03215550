"""Attaches cards and detaches them, and changes their ports: guarded before up, reserved before promised.

What fails half-way is undone. The caller holds the network's lock, and bridge and rules stand already.
"""

import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from qemu_runner.bridge_network.errors import (
    AddressTakenError,
    BridgePortError,
    BridgePortTakenError,
    HostRefusedError,
    NotAttachedError,
)
from qemu_runner.bridge_network.nic import AttachedTap, BridgeNic
from qemu_runner.bridge_network.ports import Flows, HostPorts, Links, NamesServer, Taps
from qemu_runner.bridge_network.upkeep import Upkeep
from qemu_runner.user_network import Protocol, PublishedPort

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attaching:
    """The steps of a card's life on the bridge.

    Attributes:
        upkeep: Knows the attached cards, and makes the host follow.
        links: The host's links.
        taps: Opens taps.
        server: Dnsmasq.
        host_ports: Reserves ports.
        flows: Connection tracking.
        unheld: Ports that could not be reserved again after a restart.
    """

    upkeep: Upkeep
    links: Links
    taps: Taps
    server: NamesServer
    host_ports: HostPorts
    flows: Flows
    unheld: list[BridgePortError] = field(default_factory=list)

    async def attach(self, nic: BridgeNic, queues: int) -> AttachedTap:
        """Attach a card; see `BridgeNetwork.attach`."""
        key = nic.machine_id, nic.index
        holder = self.upkeep.holder_of(nic.address)
        if holder is not None and (holder.machine_id, holder.index) != key:
            raise AddressTakenError(nic.address, f"machine {holder.machine_id} has it.")
        async with AsyncExitStack() as undo:
            # Opened first: a tap of this card that is in use must stay as it is.
            tap = await self.taps.open(self.upkeep.tap(nic), queues)
            undo.callback(tap.close)
            if (earlier := self.upkeep.cards.get(key)) is not None:
                await self._let_go(earlier.ports)
            await self._hold(nic.ports, undo)
            undo.push_async_callback(self._drop_quietly, nic)
            self.upkeep.cards[key] = nic
            await self.upkeep.apply_rules()
            await self.server.add(self.upkeep.names, nic)
            await self.upkeep.raise_tap(nic)
            await self.flows.forget(nic.ports)
            undo.pop_all()
        return tap

    async def detach(self, machine_id: str) -> None:
        """Detach a machine's cards; see `BridgeNetwork.detach`."""
        await self._drop([nic for nic in self.upkeep.cards.values() if nic.machine_id == machine_id])

    async def publish(self, machine_id: str, ports: Iterable[PublishedPort]) -> None:
        """Change a machine's ports; see `BridgeNetwork.publish`."""
        key = machine_id, 0
        if (before := self.upkeep.cards.get(key)) is None:
            raise NotAttachedError(machine_id)
        after = replace(before, ports=tuple(ports))
        async with AsyncExitStack() as undo:
            await self._hold(after.ports, undo)
            self.upkeep.cards[key] = after
            try:
                await self.upkeep.apply_rules()
            except BaseException:
                self.upkeep.cards[key] = before
                raise
            undo.pop_all()
        kept = {_socket(port) for port in after.ports}
        await self._let_go(port for port in before.ports if _socket(port) not in kept)
        await self.flows.forget(set(before.ports) ^ set(after.ports))

    async def check_ports(
        self, machine_id: str, wanted: Iterable[PublishedPort], reserved: Iterable[PublishedPort]
    ) -> None:
        """Refuse ports that cannot be had; see `BridgeNetwork.check_ports`."""
        card = self.upkeep.cards.get((machine_id, 0))
        own = {_socket(port) for port in card.ports} if card is not None else set()
        others = list(reserved)
        for port in wanted:
            if other := next((other for other in others if port.excludes(other)), None):
                raise BridgePortTakenError(port, f"it is reserved for guest port {other.guest} already.")
            others.append(port)
            if not (_socket(port) in own and self.host_ports.held(port)):
                await self.host_ports.hold(port)
                await self.host_ports.release(port)

    async def hold_again(self, nics: Iterable[BridgeNic]) -> None:
        """Reserve the ports of machines that lived while the runner was away, as far as they are free."""
        self.unheld.clear()
        for nic in nics:
            for port in nic.ports:
                try:
                    await self.host_ports.hold(port)
                except BridgePortError as error:
                    _LOG.warning("published port not reserved", extra={"error": str(error)})
                    self.unheld.append(error)

    async def abandon(self) -> None:
        """Forget all cards and let their ports go."""
        for nic in self.upkeep.cards.values():
            await self._let_go(nic.ports)
        self.upkeep.cards.clear()

    async def _hold(self, ports: Iterable[PublishedPort], undo: AsyncExitStack) -> None:
        for port in ports:
            if not self.host_ports.held(port):
                await self.host_ports.hold(port)
                undo.push_async_callback(self.host_ports.release, port)

    async def _let_go(self, ports: Iterable[PublishedPort]) -> None:
        for port in ports:
            await self.host_ports.release(port)

    async def _drop(self, nics: list[BridgeNic]) -> None:
        """Remove cards; when the host refuses they stay known, so that it can be tried again."""
        if not nics:
            return
        for nic in nics:
            await self.links.remove(self.upkeep.tap(nic))
        for nic in nics:
            del self.upkeep.cards[nic.machine_id, nic.index]
        try:
            await self.upkeep.apply_rules()
            await self.server.write(self.upkeep.names, self.upkeep.cards.values())
            for nic in nics:
                await self._let_go(nic.ports)
                await self.flows.forget(nic.ports)
        except BaseException:
            self.upkeep.cards |= {(nic.machine_id, nic.index): nic for nic in nics}
            raise

    async def _drop_quietly(self, nic: BridgeNic) -> None:
        try:
            await self._drop([nic])
        except HostRefusedError as error:
            _LOG.warning("card not removed", extra={"error": str(error)})
            self.upkeep.cards.pop((nic.machine_id, nic.index), None)


def _socket(port: PublishedPort) -> tuple[Protocol, IPv4Address, int]:
    """Give what a port takes of the host, wherever it leads."""
    return port.protocol, port.address, port.host
