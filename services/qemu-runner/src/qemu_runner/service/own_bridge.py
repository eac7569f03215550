"""The runner's own bridge as machines meet it: addresses, cards, ports; nothing where it is switched off.

It owns the translation of that network's errors; whose address is whose stands in the machines' records.
"""

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address
from typing import Final

from qemu_runner.bridge_network import (
    AddressOutsideError,
    AddressPoolExhaustedError,
    AddressTakenError,
    AttachedTap,
    BridgeNetwork,
    BridgeNetworkError,
    BridgeNic,
    BridgePortError,
    Check,
    Leak,
    NotAttachedError,
    PublishedPort,
)
from qemu_runner.domain.machine import NAT_NETWORK, MachineId, MachineSpec, Nic
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import AddressInUseError, NetworkUnavailableError, SpecFault, SpecInvalidError
from qemu_runner.service.nat_cards import exhausted, nat_cards, reserved_addresses
from qemu_runner.service.port_rules import port_refusal, published_on

_LOG = logging.getLogger(__name__)
# Longer than any launch waits for its prepare.
_ASIDE_S: Final = 600.0


class OwnBridge:
    """What machines have on the runner's own bridge.

    Args:
        network: The bridge; None: switched off.
    """

    def __init__(self, network: BridgeNetwork | None) -> None:
        self.network = network
        # Set aside by plans: for whom, and until when by the monotonic clock.
        self._aside: dict[IPv4Address, tuple[MachineId, float]] = {}

    def serves(self, nic: Nic) -> bool:
        """Tell whether a NIC is on this bridge and the bridge is there to be had."""
        return self.network is not None and nic.network == NAT_NETWORK

    def require_room(self, spec: MachineSpec, records: Iterable[MachineRecord]) -> None:
        """Refuse a spec whose NICs would find no address.

        Raises:
            HostCapacityError: There are not enough left.
        """
        if self.network is None or not spec.nat_nics:
            return
        taken = reserved_addresses(records)
        # Network, broadcast and the bridge's own are nobody else's.
        left = max(0, self.network.subnet.num_addresses - 3 - len(taken))
        if left < len(spec.nat_nics):
            raise exhausted(len(spec.nat_nics), left)

    async def check_addresses(self, spec: MachineSpec, others: Sequence[MachineRecord]) -> None:
        """Refuse static addresses that cannot be had; `others` are all other machines' records.

        Raises:
            SpecInvalidError: With all that no guest of this network can have.
            AddressInUseError: Another machine has one, running or not.
        """
        taken = reserved_addresses(others)
        faults = []
        for number, nic in enumerate(spec.nics):
            if not nic.address:
                continue
            pointer = f"/nics/{number}/address"
            if self.network is None or not self.serves(nic):
                faults.append(SpecFault(pointer, f"the network {nic.network} gives its addresses itself."))
                continue
            try:
                await self.network.reserve(taken, IPv4Address(nic.address))
            except (AddressOutsideError, AddressValueError) as exc:
                faults.append(SpecFault(pointer, str(exc)))
            except AddressTakenError as exc:
                raise AddressInUseError(pointer, nic.address, _holder(nic.address, others)) from exc
        if faults:
            raise SpecInvalidError(tuple(faults))

    def taken(
        self, machine_id: MachineId, spec: MachineSpec, others: Iterable[MachineRecord]
    ) -> list[IPv4Address]:
        """Return the addresses that its NICs may not be given: those of others, and its own static ones."""
        now = time.monotonic()
        self._aside = {address: one for address, one in self._aside.items() if one[1] > now}
        aside = (address for address, (owner, _) in self._aside.items() if owner != machine_id)
        static = (IPv4Address(nic.address) for nic in spec.nics if nic.address)
        return [*reserved_addresses(others), *aside, *static]

    async def set_aside(
        self, machine_id: MachineId, spec: MachineSpec, others: Sequence[MachineRecord]
    ) -> tuple[str, ...]:
        """Choose an address for each NIC here, and keep it for this machine's prepare for 10 minutes.

        It is kept in memory: the turn in which addresses are given keeps it from others over a restart.

        Raises:
            HostCapacityError: There are not enough left.
            NetworkUnavailableError: They cannot be had for another reason.
        """
        taken = self.taken(machine_id, spec, others)
        chosen = []
        for nic in spec.nics:
            address = nic.address
            if self.serves(nic) and not address:
                address = await self.choose(nic, taken)
                taken.append(IPv4Address(address))
                self._aside[IPv4Address(address)] = (machine_id, time.monotonic() + _ASIDE_S)
            chosen.append(address)
        return tuple(chosen)

    async def choose(self, nic: Nic, taken: Collection[IPv4Address]) -> str:
        """Choose an address for a NIC: the one that was planned, unless it is another's by now.

        Raises:
            HostCapacityError: There is none left.
            NetworkUnavailableError: It cannot be had for another reason.
        """
        if self.network is None:
            raise _switched_off()
        try:
            if nic.planned and IPv4Address(nic.planned) not in taken:
                with suppress(AddressOutsideError):  # the subnet is another since
                    return str(await self.network.reserve(taken, IPv4Address(nic.planned)))
            return str(await self.network.reserve(taken))
        except AddressPoolExhaustedError as exc:
            raise exhausted(1, 0) from exc
        except BridgeNetworkError as exc:
            raise NetworkUnavailableError(NAT_NETWORK, str(exc)) from exc

    async def check_ports(
        self, machine_id: MachineId, wanted: Sequence[PublishedPort], reserved: Sequence[PublishedPort]
    ) -> None:
        """Refuse ports that cannot be had.

        Raises:
            BridgePortError: One of them.
        """
        if self.network is not None and wanted:
            await self.network.check_ports(machine_id, wanted, reserved)

    async def attach(self, card: BridgeNic, queues: int) -> AttachedTap:
        """Give a card its tap.

        Raises:
            BridgeNetworkError: The host cannot offer it now, or a port was taken meanwhile.
            NetworkUnavailableError: It is switched off.
        """
        if self.network is None:
            raise _switched_off()
        return await self.network.attach(card, queues=queues)

    async def detach(self, machine_id: MachineId) -> None:
        """Remove what a machine that has ended had here; what the host keeps is listed as a leak."""
        if self.network is None:
            return
        try:
            await self.network.detach(machine_id)
        except BridgeNetworkError as exc:
            _LOG.error("machine not detached", extra={"machine": machine_id, "error": str(exc)})

    async def publish(self, record: MachineRecord) -> None:
        """Make the record's ports those of the running machine, at once.

        Raises:
            PortUnavailableError: A port is taken; the ports are as before.
            NetworkUnavailableError: The host refused.
        """
        if self.network is None or not record.spec.nat_nics:
            return
        try:
            await self.network.publish(record.machine_id, published_on(record.spec.nat_nics[0]))
        except NotAttachedError:
            # It is ending; the next start publishes them.
            _LOG.info("ports wait for the next start", extra={"machine": record.machine_id})
        except BridgePortError as exc:
            raise port_refusal(exc, record.spec) from exc
        except BridgeNetworkError as exc:
            raise NetworkUnavailableError(NAT_NETWORK, str(exc)) from exc

    async def adopt(self, records: Iterable[MachineRecord]) -> None:
        """Take over the cards of machines that run, and remove what belongs to none."""
        if self.network is None:
            return
        live = [card for r in records if r.run is not None for card in nat_cards(r).values()]
        try:
            await self.network.adopt(live)
        except BridgeNetworkError as exc:
            _LOG.error("bridge not adopted whole", extra={"error": str(exc)})

    async def leaks(self, known: Collection[str]) -> list[Leak]:
        """List what carries our mark and none of the machines `known` needs.

        Raises:
            NetworkUnavailableError: The host did not answer.
        """
        if self.network is None:
            return []
        try:
            return await self.network.leaks(known)
        except BridgeNetworkError as exc:
            raise NetworkUnavailableError(NAT_NETWORK, str(exc)) from exc

    async def checks(self) -> list[Check]:
        """Give the doctor's checks."""
        return [] if self.network is None else await self.network.checks()

    async def leave(self) -> None:
        """Remove bridge, rules and dnsmasq, at the end of the stack."""
        if self.network is None:
            return
        try:
            await self.network.leave()
        except BridgeNetworkError as exc:
            _LOG.error("something of the bridge stays", extra={"error": str(exc)})


def _switched_off() -> NetworkUnavailableError:
    return NetworkUnavailableError(NAT_NETWORK, "the runner's settings switch it off.")


def _holder(address: str, records: Iterable[MachineRecord]) -> str:
    """Return the name of the machine that has an address."""
    names = (r.spec.name for r in records if address in {held.address for held in r.holdings})
    return next(names, "")
