"""What machines ask of the user network: names resolved, ports checked, starts prepared.

The one place where that package's errors become the service's.
"""

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final, NoReturn

from qemu_runner.domain.argv import SPARE_PORTS
from qemu_runner.domain.machine import (
    BRIDGE_PREFIX,
    DEFAULT_NETWORK,
    USER_NETWORK,
    MachineId,
    MachineSpec,
    PortMapping,
)
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import (
    NetworkUnavailableError,
    PortUnavailableError,
    SpecFault,
    SpecInvalidError,
)
from qemu_runner.user_network import (
    AddressPlanExhaustedError,
    PasstStart,
    PortError,
    Protocol,
    PublishedPort,
    Refused,
    UdpPublishingError,
    UserNetwork,
    UserNetworkError,
)

_LOOPBACK: Final = "127.0.0.1"


class Networking:
    """The networks of this runner's machines.

    Args:
        user: The user network.
    """

    def __init__(self, user: UserNetwork) -> None:
        self.user = user
        self.guard = asyncio.Lock()
        """Held by a start between standing the guard and spawning, and by whoever removes the guard."""

    def address(self, index: int) -> str:
        """Return the user network's address of an index."""
        return str(self.user.plan.at(index).address)

    async def resolve(self, spec: MachineSpec) -> tuple[str, ...]:
        """Return the network that each NIC's name stands for on this host.

        Raises:
            SpecInvalidError: A name stands for nothing that this release offers.
            NetworkUnavailableError: The host cannot offer it.
        """
        faults: list[SpecFault] = []
        networks: list[str] = []
        for number, nic in enumerate(spec.nics):
            pointer = f"/nics/{number}"
            network = USER_NETWORK if nic.network == DEFAULT_NETWORK else nic.network
            networks.append(network)
            if network.startswith(BRIDGE_PREFIX) or network == "qc0":
                faults.append(SpecFault(f"{pointer}/network", f"{network!r} is not offered by this release."))
            elif network != USER_NETWORK:
                faults.append(SpecFault(f"{pointer}/network", f"there is no network {network!r}."))
            elif USER_NETWORK in networks[:-1]:
                faults.append(
                    SpecFault(f"{pointer}/network", "a machine has one NIC on the user network at most.")
                )
        if len(spec.nics) > SPARE_PORTS:
            faults.append(SpecFault("/nics", f"a machine has {SPARE_PORTS} NICs at most."))
        if faults:
            raise SpecInvalidError(tuple(faults))
        if USER_NETWORK in networks and isinstance(verdict := await self.user.availability(), Refused):
            raise NetworkUnavailableError(USER_NETWORK, f"{verdict.reason} To mend it: {verdict.fix}")
        return tuple(networks)

    async def check_ports(
        self, machine_id: MachineId, spec: MachineSpec, others: Iterable[MachineRecord], *, bind: bool
    ) -> None:
        """Refuse ports that the machine cannot have.

        Args:
            machine_id: The machine's; its own record does not count.
            spec: What it wants.
            others: Records of all machines, which keep their ports also while they do not run.
            bind: Whether to try them on the host; not while the machine itself holds them.

        Raises:
            SpecInvalidError: A port or an address is none.
            PortUnavailableError: A port is taken, or may not be published.
        """
        wanted = _published(spec.ports)
        reserved = [
            port
            for record in others
            if record.machine_id != machine_id
            for port in _published(record.spec.ports)
        ]
        try:
            await self.user.check_ports(wanted, reserved, bind=bind)
        except UserNetworkError as exc:
            _raise(exc, wanted)

    def free_index(self, records: Iterable[MachineRecord]) -> int:
        """Return a number in the plan of addresses that no machine has.

        Raises:
            NetworkUnavailableError: All are taken.
        """
        try:
            return self.user.plan.free_index([r.user_index for r in records if r.user_index is not None])
        except AddressPlanExhaustedError as exc:
            raise NetworkUnavailableError(USER_NETWORK, str(exc)) from exc

    async def prepare_start(self, record: MachineRecord) -> PasstStart | None:
        """Make the guard stand and return what passt needs; None for a machine without such a NIC.

        Raises:
            NetworkUnavailableError: The host cannot offer the network.
        """
        if record.spec.user_nic is None or record.user_index is None:
            return None
        try:
            return await self.user.prepare_start(record.user_index, _published(record.spec.ports))
        except UserNetworkError as exc:
            _raise(exc, ())

    async def release(self, remaining: Iterable[MachineRecord]) -> None:
        """Remove the guard if no machine is left on the network.

        Raises:
            NetworkUnavailableError: The rules could not be removed.
        """
        if any(record.spec.user_nic is not None for record in remaining):
            return
        try:
            await self.user.remove_guard()
        except UserNetworkError as exc:
            _raise(exc, ())


def _published(ports: tuple[PortMapping, ...]) -> tuple[PublishedPort, ...]:
    published, faults = [], []
    for number, port in enumerate(ports):
        try:
            protocol = Protocol(port.protocol or Protocol.TCP)
            published.append(
                PublishedPort(port.host, port.guest, protocol, IPv4Address(port.address or _LOOPBACK))
            )
        except ValueError as exc:
            faults.append(SpecFault(f"/ports/{number}", f"{exc}."))
    if faults:
        raise SpecInvalidError(tuple(faults))
    return tuple(published)


def _raise(exc: UserNetworkError, wanted: tuple[PublishedPort, ...]) -> NoReturn:
    match exc:
        case UdpPublishingError():
            fault = SpecFault(f"/ports/{wanted.index(exc.port)}/protocol", exc.detail)
            raise SpecInvalidError((fault,)) from exc
        case PortError():
            pointer = f"/ports/{wanted.index(exc.port)}/host"
            raise PortUnavailableError(pointer, exc.port.host, str(exc)) from exc
        case _:
            raise NetworkUnavailableError(USER_NETWORK, str(exc)) from exc
