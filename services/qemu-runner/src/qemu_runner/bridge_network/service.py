"""The bridge network of one runner: the facade over the parts of this package.

It holds the lock under which everything on the host is changed, and knows whether the network is in use.
It must never touch what does not carry its owner's mark.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final, NoReturn

from qemu_runner.bridge_network import checks
from qemu_runner.bridge_network.attaching import Attaching
from qemu_runner.bridge_network.errors import (
    AddressOutsideError,
    BridgeUnavailableError,
    HostRefusedError,
)
from qemu_runner.bridge_network.firewall import FAMILIES
from qemu_runner.bridge_network.nic import AttachedTap, BridgeNic
from qemu_runner.bridge_network.offer import Availability, Offered
from qemu_runner.bridge_network.offering import Offering
from qemu_runner.bridge_network.pool import AddressPool
from qemu_runner.bridge_network.ports import Change, Changes, EngineRules, NamesServer, Notes
from qemu_runner.bridge_network.supervision import Supervision
from qemu_runner.bridge_network.upkeep import ALL_CHANGES, Upkeep
from qemu_runner.user_network import Check, Leak, PublishedPort, Refused

_LOG = logging.getLogger(__name__)
_TURN_NOTE: Final = "turn"
_WATCH_TIMEOUT_S: Final = 10.0


class OwnedBridgeNetwork:
    """The real `BridgeNetwork`.

    Args:
        pool: Addresses.
        offering: Whether the network can be offered; also carries the rules and the host's readers.
        upkeep: What stands on the host.
        attaching: The cards' life.
        server: Dnsmasq.
        engine_rules: The container engine's chain.
        changes: The kernel's notices.
        notes: What is remembered across restarts.
    """

    def __init__(
        self,
        pool: AddressPool,
        offering: Offering,
        upkeep: Upkeep,
        attaching: Attaching,
        *,
        server: NamesServer,
        engine_rules: EngineRules,
        changes: Changes,
        notes: Notes,
    ) -> None:
        self._pool = pool
        self._offering = offering
        self._marks = offering.marks
        self._firewall = offering.firewall
        self._links = offering.links
        self._ruleset = offering.ruleset
        self._upkeep = upkeep
        self._attaching = attaching
        self._server = server
        self._engine_rules = engine_rules
        self._notes = notes
        self._lock = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._active = False
        self._left = False
        self._supervision = Supervision(changes, self._firewall.table, self._mend)
        server.when_ended(lambda: self._supervision.notice({Change.NAMES}))

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
        async with self._lock:
            await self._attaching.check_ports(machine_id, wanted, reserved)

    async def attach(self, nic: BridgeNic, *, queues: int = 1) -> AttachedTap:
        if not self._pool.has(nic.address):
            raise AddressOutsideError(
                nic.address, f"it is not one of the guests' addresses of {self.subnet}."
            )
        await self._supervised()
        async with self._lock:
            await self._raise()
            return await self._attaching.attach(nic, queues)

    async def detach(self, machine_id: str) -> None:
        async with self._lock:
            await self._attaching.detach(machine_id)

    async def publish(self, machine_id: str, ports: Iterable[PublishedPort]) -> None:
        async with self._lock:
            await self._attaching.publish(machine_id, ports)

    async def adopt(self, live: Collection[BridgeNic]) -> None:
        async with self._lock:
            if not await self._offering.facts.has_net_admin():
                _LOG.info("bridge network not adopted", extra={"cards": len(live)})
                return
            view = await self._links.look()
            bridge = view.link(self.name)
            standing = bridge is not None and self._marks.owns_bridge(bridge)
            self._upkeep.cards = {(nic.machine_id, nic.index): nic for nic in live}
            await self._attaching.hold_again(live)
            kept = {self._upkeep.tap(nic) for nic in live}
            for link in view.links:
                if self._marks.machine_of(link) is not None and link.name not in kept:
                    await self._links.remove(link.name)
            if live or standing:
                self._active = True
                # What is refused now is tried again by whoever supervises.
                self._supervision.notice(set(ALL_CHANGES))
                await self._upkeep.apply_rules()
                await self._upkeep.mend(ALL_CHANGES)
                await self._server.write(self._upkeep.names, live)
            elif await self._server.known(self._upkeep.names) or await self._rules_stand():
                await self._remove_rules()
                await self._server.clear(self._upkeep.names)

    async def run(self) -> NoReturn:
        try:
            await self._supervision.run()
        finally:
            await self._server.stop()

    async def checks(self) -> list[Check]:
        return [
            await checks.device_check(self._offering.facts),
            await checks.program_check(self._offering.facts, self._offering.dnsmasq),
            checks.availability_check(await self.availability()),
            await checks.firewall_check(self._ruleset),
            await checks.route_check(self._links, self.name),
            checks.ports_check(self._attaching.unheld),
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
            await self._attaching.abandon()
            await self._server.stop()
            steps: list[Awaitable[None]] = [
                self._links.remove(link.name)
                for link in view.links
                if self._marks.machine_of(link) is not None or self._marks.owns_bridge(link)
            ]
            if await self._offering.facts.has_net_admin():
                steps += [self._remove_rules(), self._upkeep.undo_forwarding()]
            refusals: list[HostRefusedError] = []
            for step in steps:
                try:
                    await step
                except HostRefusedError as error:
                    refusals.append(error)
            await self._server.clear(self._upkeep.names)
        if refusals:
            raise refusals[0]

    async def _mend(self, changes: set[Change]) -> None:
        async with self._lock:
            if self._active:
                await self._upkeep.mend(changes)

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

    async def _supervised(self) -> None:
        try:
            async with asyncio.timeout(_WATCH_TIMEOUT_S):
                await self._supervision.begun()
        except TimeoutError as error:
            verdict = await self.availability()
            if isinstance(verdict, Refused):
                raise BridgeUnavailableError(verdict.reason, verdict.fix) from error
            raise BridgeUnavailableError("nobody watches over it.", "restart the runner.") from error

    async def _remove_rules(self) -> None:
        await self._engine_rules.ensure(())
        await self._ruleset.apply(self._firewall.remove_commands())

    async def _rules_stand(self) -> bool:
        for family in FAMILIES:
            if await self._ruleset.listing(family, self._firewall.table) is not None:
                return True
        return False


def _address(lines: tuple[str, ...]) -> IPv4Address | None:
    try:
        return IPv4Address(lines[0]) if lines else None
    except AddressValueError:
        return None
