"""The networks of this runner's machines: what a NIC gets when it is prepared, started and ended.

The one place where the networks' packages meet the machines' records, and where their errors become the
service's.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final, NoReturn

from qemu_runner.bridge_network import BridgeNetwork, BridgeNetworkError, BridgePortError, tap_name
from qemu_runner.domain.default_network import DefaultNetwork
from qemu_runner.domain.machine import (
    BRIDGE_PREFIX,
    NAT_NETWORK,
    USER_NETWORK,
    MachineId,
    MachineSpec,
)
from qemu_runner.domain.record import Holding, MachineRecord
from qemu_runner.errors import NetworkUnavailableError
from qemu_runner.existing_bridge import BridgeTapError, ExistingBridges
from qemu_runner.service.nat_cards import nat_cards, require_own_macs
from qemu_runner.service.network_choice import Choice, NetworkChoice
from qemu_runner.service.own_bridge import OwnBridge
from qemu_runner.service.plugging import Taps
from qemu_runner.service.port_rules import held_by_others, port_refusal, published, published_on
from qemu_runner.user_network import (
    AddressPlanExhaustedError,
    Check,
    Leak,
    PasstStart,
    PortError,
    UserNetwork,
    UserNetworkError,
)

_LOG = logging.getLogger(__name__)
_MOST_QUEUES: Final = 8


class Networking:
    """The networks of this runner's machines.

    Args:
        user: The user network.
        nat: The runner's own bridge; None: switched off.
        bridges: Bridges that others made.
        default: What "default" stands for.
        owner: This runner, in names on the host.
    """

    def __init__(
        self,
        user: UserNetwork,
        nat: BridgeNetwork | None,
        bridges: ExistingBridges,
        default: DefaultNetwork,
        owner: str,
    ) -> None:
        self.user = user
        self.own_bridge = OwnBridge(nat)
        self._bridges = bridges
        self._owner = owner
        self._choice = NetworkChoice(user, nat, bridges, default)
        self.guard = asyncio.Lock()
        """Held by a start between standing the guard and spawning, and by whoever removes the guard."""

    def address(self, index: int) -> str:
        """Return the user network's address of an index."""
        return str(self.user.plan.at(index).address)

    def neighbours(self, network: str, mac: str) -> tuple[str, ...]:
        """Return the addresses under which the host knows a NIC on a bridge that somebody else serves."""
        if not network.startswith(BRIDGE_PREFIX):
            return ()
        return self._bridges.neighbours(network.removeprefix(BRIDGE_PREFIX), mac)

    async def resolve(self, spec: MachineSpec) -> Choice:
        """Return what the names of the spec's networks stand for (see `NetworkChoice.resolve`)."""
        return await self._choice.resolve(spec)

    async def check_ports(
        self, machine_id: MachineId, spec: MachineSpec, others: Sequence[MachineRecord], *, bind: bool
    ) -> None:
        """Refuse ports that the machine cannot have.

        Args:
            machine_id: The machine's; its own record does not count.
            spec: What it wants.
            others: Records of all machines, which keep their ports also while they do not run.
            bind: Whether to try them on the host; not while the machine itself holds them. The runner's own
                bridge knows by itself what it holds.

        Raises:
            SpecInvalidError: A port or an address is none.
            PortUnavailableError: A port is taken, or may not be published.
        """
        published(spec.ports)
        reserved = held_by_others(machine_id, others)
        on_user = published_on(spec.user_nic)
        on_nat = published_on(next(iter(spec.nat_nics), None))
        try:
            await self.user.check_ports(on_user, [*reserved, *on_nat], bind=bind)
            await self.own_bridge.check_ports(machine_id, on_nat, reserved)
        except (PortError, BridgePortError) as exc:
            raise port_refusal(exc, spec) from exc
        except UserNetworkError as exc:
            raise NetworkUnavailableError(USER_NETWORK, str(exc)) from exc

    def free_index(self, records: Iterable[MachineRecord]) -> int:
        """Return a number in the plan of user addresses that no machine has.

        Raises:
            NetworkUnavailableError: All are taken.
        """
        try:
            return self.user.plan.free_index([r.user_index for r in records if r.user_index is not None])
        except AddressPlanExhaustedError as exc:
            raise NetworkUnavailableError(USER_NETWORK, str(exc)) from exc

    async def hold(
        self,
        machine_id: MachineId,
        spec: MachineSpec,
        before: MachineRecord | None,
        others: Sequence[MachineRecord],
    ) -> tuple[Holding, ...]:
        """Return what the spec's NICs have on this host; what they had before they keep.

        Raises:
            SpecInvalidError: A MAC is another machine's on the same network, or an address is none to have.
            AddressInUseError: A static address is another machine's.
            HostCapacityError: There is no address left.
            NetworkUnavailableError: The address cannot be had for another reason.
        """
        require_own_macs(spec, others)
        await self.own_bridge.check_addresses(spec, others)
        taken = self.own_bridge.taken(machine_id, spec, others)
        held, cards = [], 0
        for number, nic in enumerate(spec.nics):
            address, tap = "", ""
            if self.own_bridge.serves(nic):
                address = "" if before is None else before.address_of(nic.mac)
                address = nic.address or address or await self.own_bridge.choose(nic, taken)
                taken.append(IPv4Address(address))
                tap = tap_name(self._owner, machine_id, cards)
                cards += 1
            elif nic.network.startswith(BRIDGE_PREFIX):
                # Numbered in a range of its own: no two taps of a machine have one name.
                tap = tap_name(f"{self._owner} bridges", machine_id, number)
            held.append(Holding(nic.mac, address, tap))
        return tuple(held)

    async def require_addresses(self, spec: MachineSpec, others: Sequence[MachineRecord]) -> None:
        """Refuse a spec whose NICs would not find the addresses that they want.

        Raises:
            SpecInvalidError: A static address is none to have.
            AddressInUseError: A static address is another machine's.
            HostCapacityError: There are not enough left.
        """
        await self.own_bridge.check_addresses(spec, others)
        self.own_bridge.require_room(spec, others)

    async def set_aside(
        self, machine_id: MachineId, spec: MachineSpec, others: Sequence[MachineRecord]
    ) -> tuple[str, ...]:
        """Set an address aside for each NIC on the own bridge, for a prepare that follows soon.

        Raises:
            HostCapacityError: There are not enough left.
            NetworkUnavailableError: They cannot be had for another reason.
        """
        return await self.own_bridge.set_aside(machine_id, spec, others)

    def netdev_options(self, spec: MachineSpec, index: int | None, fd: str) -> tuple[str, ...]:
        """Return what QEMU's command line says of the NICs: all but the user network's are plugged by QMP.

        Args:
            spec: The machine's.
            index: Its number in the plan of user addresses; None without such a NIC.
            fd: The placeholder of the descriptor that leads to passt.
        """
        if spec.user_nic is None or index is None:
            return ()
        return (self.user.netdev_option(f"net{spec.nics.index(spec.user_nic)}", index, fd),)

    async def prepare_start(self, record: MachineRecord) -> PasstStart | None:
        """Make sure that the user network may be used; return what is spawned for it, None for nothing.

        Raises:
            NetworkUnavailableError: The host cannot offer the network.
        """
        if record.spec.user_nic is None or record.user_index is None:
            return None
        try:
            return await self.user.prepare_start(record.user_index, published_on(record.spec.user_nic))
        except UserNetworkError as exc:
            raise NetworkUnavailableError(USER_NETWORK, str(exc)) from exc

    async def attach(self, record: MachineRecord) -> Taps:
        """Open the taps of a machine that is about to start; when it fails, none is left.

        Raises:
            NetworkUnavailableError: The host cannot offer a network now.
            PortUnavailableError: A published port was taken meanwhile.
        """
        taps = Taps()
        try:
            await self._attach(record, taps)
        except BaseException as exc:
            taps.close()
            await self.detach(record.machine_id)
            match exc:
                case BridgePortError():
                    raise port_refusal(exc, record.spec) from exc
                case BridgeNetworkError():
                    raise NetworkUnavailableError(NAT_NETWORK, str(exc)) from exc
                case BridgeTapError():
                    raise NetworkUnavailableError(f"{BRIDGE_PREFIX}{exc.bridge}", str(exc)) from exc
            raise
        return taps

    async def detach(self, machine_id: MachineId) -> None:
        """Remove what a machine that has ended had on the bridge; what the host keeps is listed as a leak."""
        await self.own_bridge.detach(machine_id)

    async def publish(self, record: MachineRecord) -> None:
        """Make the record's ports on the bridge those of the running machine, at once.

        Raises:
            PortUnavailableError: A port is taken; the ports are as before.
            NetworkUnavailableError: The host refused.
        """
        await self.own_bridge.publish(record)

    def followers(self, changed: Callable[[], None]) -> Iterator[tuple[str, Coroutine[None, None, NoReturn]]]:
        """Yield what has to run as long as the service does, each with its name.

        `changed` is called when the host knows other neighbours.
        """
        if self.own_bridge.network is not None:
            yield "own bridge", self.own_bridge.network.run()
        yield "neighbours", self._bridges.run(changed)

    async def adopt(self, records: Iterable[MachineRecord]) -> None:
        """Take over the cards of machines that run, and remove what belongs to none."""
        await self.own_bridge.adopt(records)

    async def release(self, remaining: Iterable[MachineRecord]) -> None:
        """Remove the guard if no machine is left on the user network.

        Raises:
            NetworkUnavailableError: The rules could not be removed.
        """
        if any(record.spec.user_nic is not None for record in remaining):
            return
        try:
            await self.user.remove_guard()
        except UserNetworkError as exc:
            raise NetworkUnavailableError(USER_NETWORK, str(exc)) from exc

    async def leaks(
        self,
        records: Sequence[MachineRecord],
        unrecorded: Sequence[MachineId],
        *,
        may_run_unrecorded: bool,
    ) -> list[Leak]:
        """List what carries our mark on this host and no machine needs.

        Args:
            records: Of the machines.
            unrecorded: Machines that are there without a record.
            may_run_unrecorded: Whether one of those may run, behind the guard perhaps.

        Raises:
            NetworkUnavailableError: The host did not answer.
        """
        needed = may_run_unrecorded or any(record.spec.user_nic is not None for record in records)
        try:
            found = await self.user.leaks(needed=needed)
        except UserNetworkError as exc:
            raise NetworkUnavailableError(USER_NETWORK, str(exc)) from exc
        known = {*(record.machine_id for record in records), *unrecorded}
        return [*found, *await self.own_bridge.leaks(known)]

    async def checks(self) -> list[Check]:
        """Give the doctor's checks of all networks."""
        return [*await self.own_bridge.checks(), *await self.user.checks()]

    async def leave(self) -> None:
        """Remove guard, bridge, rules and dnsmasq, at the end of the stack."""
        try:
            await self.user.remove_guard()
        except UserNetworkError as exc:
            _LOG.error("the guard stays", extra={"error": str(exc)})
        await self.own_bridge.leave()

    async def _attach(self, record: MachineRecord, taps: Taps) -> None:
        queues = min(record.spec.cpus, _MOST_QUEUES)
        cards = nat_cards(record)
        for number, nic in enumerate(record.spec.nics):
            if number in cards:
                taps.add(number, await self.own_bridge.attach(cards[number], queues))
            elif nic.network.startswith(BRIDGE_PREFIX):
                bridge = nic.network.removeprefix(BRIDGE_PREFIX)
                name = record.holdings[number].tap
                taps.add(number, await self._bridges.attach(bridge, name, queues=queues))


def with_networks(spec: MachineSpec, networks: Sequence[str]) -> MachineSpec:
    """Return the spec with what its networks stand for."""
    nics = tuple(replace(nic, network=name) for nic, name in zip(spec.nics, networks, strict=True))
    return replace(spec, nics=nics)
