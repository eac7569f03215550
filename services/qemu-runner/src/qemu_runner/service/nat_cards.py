"""A machine's cards on the runner's own bridge, from its record; what is scarce or exclusive among them."""

from collections.abc import Iterable
from ipaddress import IPv4Address

from qemu_runner.bridge_network import BridgeNic
from qemu_runner.domain.machine import NAT_NETWORK, USER_NETWORK, MachineSpec
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import HostCapacityError, SpecFault, SpecInvalidError
from qemu_runner.service.port_rules import published


def nat_cards(record: MachineRecord) -> dict[int, BridgeNic]:
    """Return the cards by the number of their NIC; name and ports belong to the first."""
    numbers = [number for number, nic in enumerate(record.spec.nics) if nic.network == NAT_NETWORK]
    return {
        number: BridgeNic(
            machine_id=record.machine_id,
            name=record.spec.name,
            mac=record.spec.nics[number].mac.lower(),
            address=IPv4Address(record.holdings[number].address),
            ports=published(record.spec.nics[number].ports),
            index=index,
        )
        for index, number in enumerate(numbers)
    }


def reserved_addresses(records: Iterable[MachineRecord]) -> list[IPv4Address]:
    """Return the addresses that machines have, running or not."""
    return [IPv4Address(one.address) for record in records for one in record.holdings if one.address]


def require_own_macs(spec: MachineSpec, others: Iterable[MachineRecord]) -> None:
    """Refuse a MAC that another machine has on the same network.

    On one bridge the two would take each other's frames; guests of passt never meet.

    Raises:
        SpecInvalidError: With all of them.
    """
    known = {(nic.network, nic.mac.lower()) for record in others for nic in record.spec.nics}
    faults = tuple(
        SpecFault(f"/nics/{number}/mac", "another machine has it on this network.")
        for number, nic in enumerate(spec.nics)
        if nic.network != USER_NETWORK and (nic.network, nic.mac.lower()) in known
    )
    if faults:
        raise SpecInvalidError(faults)


def exhausted(wanted: int, left: int) -> HostCapacityError:
    """Return the error of a subnet without enough addresses."""
    return HostCapacityError(f"the network {NAT_NETWORK}", wanted, left, "addresses")
