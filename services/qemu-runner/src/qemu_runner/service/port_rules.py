"""Published ports between a spec and the networks' packages: parsed once, refused with their pointers."""

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final

from qemu_runner.bridge_network import BridgePortError
from qemu_runner.domain.machine import MachineId, MachineSpec, Nic, PortMapping
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import PortUnavailableError, RunnerError, SpecFault, SpecInvalidError
from qemu_runner.user_network import PortError, Protocol, PublishedPort, UdpPublishingError

_LOOPBACK: Final = "127.0.0.1"


def published(ports: Iterable[PortMapping]) -> tuple[PublishedPort, ...]:
    """Return ports as the networks take them.

    Raises:
        SpecInvalidError: With all that are none.
    """
    found, faults = [], []
    for number, port in enumerate(ports):
        try:
            protocol = Protocol(port.protocol or Protocol.TCP)
            address = IPv4Address(port.address or _LOOPBACK)
            found.append(PublishedPort(port.host, port.guest, protocol, address))
        except ValueError as exc:
            faults.append(SpecFault(f"/ports/{number}", f"{exc}."))
    if faults:
        raise SpecInvalidError(tuple(faults))
    return tuple(found)


def published_on(nic: Nic | None) -> tuple[PublishedPort, ...]:
    """Return the ports of one NIC, if there is one."""
    return () if nic is None else published(nic.ports)


def held_by_others(machine_id: MachineId, records: Iterable[MachineRecord]) -> list[PublishedPort]:
    """Return the ports of all other machines, which keep them also while they do not run."""
    return [
        port for record in records if record.machine_id != machine_id for port in published(record.spec.ports)
    ]


def port_refusal(exc: PortError | BridgePortError, spec: MachineSpec) -> RunnerError:
    """Return the service's error for a port of `spec` that a network refused."""
    # The body has one list of ports, whichever NICs they belong to.
    number = published(spec.ports).index(exc.port)
    if isinstance(exc, UdpPublishingError):
        return SpecInvalidError((SpecFault(f"/ports/{number}/protocol", exc.detail),))
    return PortUnavailableError(f"/ports/{number}/host", exc.port.host, str(exc))
