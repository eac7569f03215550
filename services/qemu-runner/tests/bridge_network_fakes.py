"""A bridge network in memory, for tests of what stands on it."""

import asyncio
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import NoReturn

from qemu_runner.bridge_network import (
    AttachedTap,
    Availability,
    BridgeNetworkError,
    BridgeNic,
    BridgePortError,
    BridgePortTakenError,
    BridgeUnavailableError,
    Check,
    CheckStatus,
    Leak,
    NotAttachedError,
    Offered,
    PublishedPort,
    Refused,
    tap_name,
)
from qemu_runner.bridge_network.pool import AddressPool

SUBNET = IPv4Network("10.76.0.0/24")
NO_NET_ADMIN = Refused(reason="this process lacks CAP_NET_ADMIN.", fix="grant it.")


@dataclass
class FakeBridgeNetwork:
    """Answers as the real one does and keeps what it was told.

    Attributes:
        refused: Why it cannot be offered, if it cannot.
        failing: What the next change raises, once.
        taken_ports: Ports of the host that cannot be bound, with their error.
        attached: Cards by machine and number.
        adopted: What `adopt` was given, or None before.
        left: Whether `leave` was called.
    """

    name: str = "qc0"
    pool: AddressPool = field(default_factory=lambda: AddressPool(SUBNET))
    refused: Refused | None = None
    failing: BridgeNetworkError | None = None
    taken_ports: dict[PublishedPort, BridgePortError] = field(default_factory=dict)
    attached: dict[tuple[str, int], BridgeNic] = field(default_factory=dict)
    adopted: tuple[BridgeNic, ...] | None = None
    found_leaks: list[Leak] = field(default_factory=list)
    left: bool = False
    last: IPv4Address | None = None

    @property
    def subnet(self) -> IPv4Network:
        return self.pool.subnet

    @property
    def gateway(self) -> IPv4Address:
        return self.pool.gateway

    async def availability(self) -> Availability:
        return self.refused or Offered(self.subnet, self.gateway)

    async def reserve(self, taken: Collection[IPv4Address], wanted: IPv4Address | None = None) -> IPv4Address:
        if wanted is not None:
            return self.pool.exactly(wanted, taken)
        self.last = self.pool.next(taken, self.last)
        return self.last

    async def check_ports(
        self, machine_id: str, wanted: Iterable[PublishedPort], reserved: Iterable[PublishedPort]
    ) -> None:
        held = self._ports(machine_id)
        seen = list(reserved)
        for port in wanted:
            if any(port.excludes(other) for other in seen):
                raise BridgePortTakenError(port, "it is reserved already.")
            seen.append(port)
            if port not in held and port in self.taken_ports:
                raise self.taken_ports[port]

    async def attach(self, nic: BridgeNic, *, queues: int = 1) -> AttachedTap:
        if self.refused is not None:
            raise BridgeUnavailableError(self.refused.reason, self.refused.fix)
        self._fail()
        self.attached[nic.machine_id, nic.index] = nic
        taps = tuple(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(queues))
        return AttachedTap(tap_name("tests", nic.machine_id, nic.index), taps)

    async def detach(self, machine_id: str) -> None:
        self._fail()
        for key in [key for key in self.attached if key[0] == machine_id]:
            del self.attached[key]

    async def publish(self, machine_id: str, ports: Iterable[PublishedPort]) -> None:
        self._fail()
        wanted = tuple(ports)
        if (nic := self.attached.get((machine_id, 0))) is None:
            raise NotAttachedError(machine_id)
        await self.check_ports(machine_id, wanted, ())
        self.attached[machine_id, 0] = replace(nic, ports=wanted)

    async def adopt(self, live: Collection[BridgeNic]) -> None:
        self.adopted = tuple(live)
        self.attached = {(nic.machine_id, nic.index): nic for nic in live}

    async def run(self) -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future that nobody sets was done")

    async def checks(self) -> list[Check]:
        if self.refused is not None:
            return [Check("bridge-network", CheckStatus.FAIL, self.refused.reason, self.refused.fix)]
        return [Check("bridge-network", CheckStatus.PASS, "offered.")]

    async def leaks(self, known: Collection[str]) -> list[Leak]:
        return list(self.found_leaks)

    async def leave(self) -> None:
        self._fail()
        self.attached.clear()
        self.left = True

    def _ports(self, machine_id: str) -> tuple[PublishedPort, ...]:
        nic = self.attached.get((machine_id, 0))
        return () if nic is None else nic.ports

    def _fail(self) -> None:
        if self.failing is not None:
            error, self.failing = self.failing, None
            raise error
