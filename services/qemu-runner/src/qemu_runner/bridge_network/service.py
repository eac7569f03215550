"""The bridge network of one runner: the facade over the parts of this package.

It decides the order of things (guarded before up, reserved before promised) and undoes what it began
when a step fails. It must never touch what does not carry its owner's mark.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final, NoReturn

from qemu_runner.bridge_network import checks
from qemu_runner.bridge_network.errors import (
    AddressOutsideError,
    AddressTakenError,
    BridgePortError,
    BridgePortTakenError,
    BridgeUnavailableError,
    HostRefusedError,
    LinkError,
    NotAttachedError,
)
from qemu_runner.bridge_network.firewall import FAMILIES, Firewall
from qemu_runner.bridge_network.marks import Marks
from qemu_runner.bridge_network.nic import AttachedTap, BridgeNic
from qemu_runner.bridge_network.offer import Availability, Offered
from qemu_runner.bridge_network.offering import Offering
from qemu_runner.bridge_network.pool import AddressPool
from qemu_runner.bridge_network.ports import (
    Change,
    ChangeReader,
    Changes,
    EngineRules,
    Flows,
    HostPorts,
    Links,
    NamesServer,
    Notes,
    Ruleset,
    Taps,
)
from qemu_runner.bridge_network.upkeep import ALL_CHANGES, Upkeep
from qemu_runner.user_network import Check, Leak, PublishedPort, Refused

_LOG = logging.getLogger(__name__)
_TURN_NOTE: Final = "turn"
_WATCH_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 1.0


class OwnedBridgeNetwork:
    """The real `BridgeNetwork`.

    Args:
        marks: How what is ours is told.
        pool: Addresses.
        firewall: The rules.
        offering: Whether the network can be offered.
        upkeep: What stands on the host.
        links: The host's links.
        taps: Opens taps.
        ruleset: Nftables.
        server: Dnsmasq.
        engine_rules: The container engine's chain.
        host_ports: Reserves ports.
        flows: Connection tracking.
        changes: The kernel's notices.
        notes: What is remembered across restarts.
    """

    def __init__(
        self,
        marks: Marks,
        pool: AddressPool,
        firewall: Firewall,
        offering: Offering,
        upkeep: Upkeep,
        *,
        links: Links,
        taps: Taps,
        ruleset: Ruleset,
        server: NamesServer,
        engine_rules: EngineRules,
        host_ports: HostPorts,
        flows: Flows,
        changes: Changes,
        notes: Notes,
    ) -> None:
        self._marks = marks
        self._pool = pool
        self._firewall = firewall
        self._offering = offering
        self._upkeep = upkeep
        self._links = links
        self._taps = taps
        self._ruleset = ruleset
        self._server = server
        self._engine_rules = engine_rules
        self._host_ports = host_ports
        self._flows = flows
        self._changes = changes
        self._notes = notes
        self._lock = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._watching = asyncio.Event()
        self._reader: ChangeReader | None = None
        self._active = False
        self._left = False
        self._unheld: list[BridgePortError] = []
        server.when_ended(lambda: self._notice({Change.NAMES}))

    @property
    def name(self) -> str:
        return self._firewall.interface

    @property
    def subnet(self) -> IPv4Network:
        return self._pool.subnet

    @property
    def gateway(self) -> IPv4Address:
        return self._pool.gateway

    async def availability(self) -> Availability:
        if self._left:
            return Refused("the stack is being stopped.", "start it again.")
        if self._active:
            return Offered(self.subnet, self.gateway, self._upkeep.names.dns)
        return await self._offering.verdict()

    async def reserve(self, taken: Collection[IPv4Address], wanted: IPv4Address | None = None) -> IPv4Address:
        if wanted is not None:
            return self._pool.exactly(wanted, taken)
        async with self._turn:
            address = self._pool.next(taken, _address(await self._notes.read(_TURN_NOTE)))
            await self._notes.write(_TURN_NOTE, [str(address)])
        return address

    async def check_ports(
        self, machine_id: str, wanted: Iterable[PublishedPort], reserved: Iterable[PublishedPort]
    ) -> None:
        others = list(reserved)
        for port in wanted:
            if other := next((other for other in others if port.excludes(other)), None):
                raise BridgePortTakenError(port, f"it is reserved for guest port {other.guest} already.")
            others.append(port)
            if not self._holds(machine_id, port):
                await self._host_ports.hold(port)
                await self._host_ports.release(port)

    async def attach(self, nic: BridgeNic, *, queues: int = 1) -> AttachedTap:
        if not self._pool.has(nic.address):
            raise AddressOutsideError(
                nic.address, f"it is not one of the guests' addresses of {self.subnet}."
            )
        await self._watched()
        async with self._lock:
            await self._raise()
            key = nic.machine_id, nic.index
            holder = self._upkeep.holder_of(nic.address)
            if holder is not None and (holder.machine_id, holder.index) != key:
                raise AddressTakenError(nic.address, f"machine {holder.machine_id} has it.")
            await self._drop([earlier for at, earlier in self._upkeep.cards.items() if at == key])
            async with AsyncExitStack() as undo:
                await self._hold(nic.ports, undo)
                tap = await self._taps.open(self._upkeep.tap(nic), queues)
                undo.callback(tap.close)
                undo.push_async_callback(self._drop_quietly, nic)
                self._upkeep.cards[key] = nic
                await self._upkeep.apply_rules()
                await self._server.add(self._upkeep.names, nic)
                await self._upkeep.raise_tap(nic)
                await self._flows.forget(nic.ports)
                undo.pop_all()
        return tap

    async def detach(self, machine_id: str) -> None:
        async with self._lock:
            await self._drop([nic for nic in self._upkeep.cards.values() if nic.machine_id == machine_id])

    async def publish(self, machine_id: str, ports: Iterable[PublishedPort]) -> None:
        async with self._lock:
            key = machine_id, 0
            if (before := self._upkeep.cards.get(key)) is None:
                raise NotAttachedError(machine_id)
            after = replace(before, ports=tuple(ports))
            kept = {(port.protocol, port.address, port.host) for port in after.ports}
            async with AsyncExitStack() as undo:
                await self._hold(after.ports, undo)
                self._upkeep.cards[key] = after
                try:
                    await self._upkeep.apply_rules()
                except BaseException:
                    self._upkeep.cards[key] = before
                    raise
                undo.pop_all()
            for port in before.ports:
                if (port.protocol, port.address, port.host) not in kept:
                    await self._host_ports.release(port)
            await self._flows.forget(set(before.ports) ^ set(after.ports))

    async def adopt(self, live: Collection[BridgeNic]) -> None:
        async with self._lock:
            view = await self._links.look()
            bridge = view.link(self.name)
            standing = bridge is not None and self._marks.owns_bridge(bridge)
            self._upkeep.cards = {(nic.machine_id, nic.index): nic for nic in live}
            for nic in live:
                for port in nic.ports:
                    await self._hold_again(port)
            kept = {self._upkeep.tap(nic) for nic in live}
            for link in view.links:
                if self._marks.machine_of(link) is not None and link.name not in kept:
                    await self._links.remove(link.name)
            if live or standing:
                self._active = True
                self._notice(set(ALL_CHANGES))
                await self._upkeep.mend(ALL_CHANGES)
                await self._upkeep.apply_rules()
                await self._server.write(self._upkeep.names, live)
            elif await self._server.known(self._upkeep.names) or await self._rules_stand():
                await self._remove_rules()
                await self._server.clear(self._upkeep.names)

    async def run(self) -> NoReturn:
        try:
            async with self._changes.watch(self._firewall.table) as reader:
                self._reader = reader
                self._watching.set()
                await self._keep(reader)
        except LinkError as error:
            # Without the capability the network is refused, and there is nothing to keep.
            _LOG.info("bridge network not watched", extra={"error": str(error)})
            await asyncio.get_running_loop().create_future()
            raise AssertionError("a future that nobody sets was done") from error
        finally:
            self._watching.clear()
            self._reader = None
            await self._server.stop()

    async def checks(self) -> list[Check]:
        return [
            checks.availability_check(await self.availability()),
            await checks.firewall_check(self._ruleset),
            await checks.route_check(self._links, self.name),
            checks.ports_check(self._unheld),
        ]

    async def leaks(self, known: Collection[str]) -> list[Leak]:
        view = await self._links.look()
        owner = self._marks.owner
        found = [
            Leak("tap", link.name, owner)
            for link in view.links
            if (machine := self._marks.machine_of(link)) is not None and machine not in known
        ]
        found += [
            Leak("lease", machine, owner)
            for machine in await self._server.known(self._upkeep.names)
            if machine not in known
        ]
        found += [
            Leak("rule", f"rules of tap {self._upkeep.tap(nic)}", owner)
            for nic in self._upkeep.cards.values()
            if nic.machine_id not in known
        ]
        if not self._active:
            bridge = view.link(self.name)
            if bridge is not None and self._marks.owns_bridge(bridge):
                found.append(Leak("bridge", bridge.name, owner))
            if await self._offering.facts.has_net_admin() and await self._rules_stand():
                found.append(Leak("rule", f"table inet {self._firewall.table}", owner))
        return found

    async def leave(self) -> None:
        self._left = True
        async with self._lock:
            self._active = False
            view = await self._links.look()
            refusals: list[HostRefusedError] = []
            for nic in self._upkeep.cards.values():
                for port in nic.ports:
                    await self._host_ports.release(port)
            self._upkeep.cards.clear()
            await self._server.stop()
            steps: list[Awaitable[None]] = [
                self._links.remove(link.name)
                for link in view.links
                if self._marks.machine_of(link) is not None or self._marks.owns_bridge(link)
            ]
            if await self._offering.facts.has_net_admin():
                steps += [self._remove_rules(), self._upkeep.undo_forwarding()]
            for step in steps:
                try:
                    await step
                except HostRefusedError as error:
                    refusals.append(error)
            await self._server.clear(self._upkeep.names)
        if refusals:
            raise refusals[0]

    async def _keep(self, reader: ChangeReader) -> NoReturn:
        while True:
            changes = await reader.next()
            async with self._lock:
                if not self._active:
                    continue
                try:
                    await self._upkeep.mend(changes)
                except HostRefusedError as error:
                    _LOG.warning("bridge network not mended", extra={"error": str(error)})
                    asyncio.get_running_loop().call_later(_RETRY_S, self._notice, changes)

    async def _raise(self) -> None:
        """Make bridge, rules and dnsmasq stand, if they do not yet."""
        if self._left:
            raise BridgeUnavailableError("the stack is being stopped.", "start it again.")
        if self._active:
            return
        verdict = await self._offering.verdict()
        if isinstance(verdict, Refused):
            raise BridgeUnavailableError(verdict.reason, verdict.fix)
        await self._upkeep.apply_rules()
        await self._upkeep.mend(ALL_CHANGES)
        self._active = True

    async def _watched(self) -> None:
        try:
            async with asyncio.timeout(_WATCH_TIMEOUT_S):
                await self._watching.wait()
        except TimeoutError as error:
            verdict = await self.availability()
            reason = verdict.reason if isinstance(verdict, Refused) else "nobody watches over it."
            fix = verdict.fix if isinstance(verdict, Refused) else "restart the runner."
            raise BridgeUnavailableError(reason, fix) from error

    async def _hold(self, ports: Iterable[PublishedPort], undo: AsyncExitStack) -> None:
        for port in ports:
            if not self._host_ports.held(port):
                await self._host_ports.hold(port)
                undo.push_async_callback(self._host_ports.release, port)

    async def _hold_again(self, port: PublishedPort) -> None:
        try:
            await self._host_ports.hold(port)
        except BridgePortError as error:
            _LOG.warning("published port not reserved", extra={"error": str(error)})
            self._unheld.append(error)

    async def _drop(self, nics: list[BridgeNic]) -> None:
        """Remove cards; when the host refuses they stay known, so that it can be tried again."""
        if not nics:
            return
        for nic in nics:
            await self._links.remove(self._upkeep.tap(nic))
            del self._upkeep.cards[nic.machine_id, nic.index]
        try:
            await self._upkeep.apply_rules()
            await self._server.write(self._upkeep.names, self._upkeep.cards.values())
            for nic in nics:
                for port in nic.ports:
                    await self._host_ports.release(port)
                await self._flows.forget(nic.ports)
        except BaseException:
            self._upkeep.cards |= {(nic.machine_id, nic.index): nic for nic in nics}
            raise

    async def _drop_quietly(self, nic: BridgeNic) -> None:
        try:
            await self._drop([nic])
        except HostRefusedError as error:
            _LOG.warning("card not removed", extra={"error": str(error)})
            self._upkeep.cards.pop((nic.machine_id, nic.index), None)

    async def _remove_rules(self) -> None:
        await self._engine_rules.ensure(())
        await self._ruleset.apply(self._firewall.remove_commands())

    async def _rules_stand(self) -> bool:
        for family in FAMILIES:
            if await self._ruleset.listing(family, self._firewall.table) is not None:
                return True
        return False

    def _holds(self, machine_id: str, port: PublishedPort) -> bool:
        """Tell whether a port of the host is this machine's already, whatever it leads to."""
        card = self._upkeep.cards.get((machine_id, 0))
        own = {(p.protocol, p.address, p.host) for p in card.ports} if card is not None else set()
        return (port.protocol, port.address, port.host) in own and self._host_ports.held(port)

    def _notice(self, changes: set[Change]) -> None:
        if self._reader is not None:
            self._reader.put(changes)


def _address(lines: tuple[str, ...]) -> IPv4Address | None:
    try:
        return IPv4Address(lines[0]) if lines else None
    except AddressValueError:
        return None
