"""Fakes of the user network's ports, for tests that touch nothing."""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from qemu_runner.user_network import (
    GuardError,
    PasstBehaviour,
    PasstOptions,
    PortError,
    ProbeError,
    PublishedPort,
    ResolverPlan,
)

LEAKY = PasstBehaviour(
    binary_sha256="a" * 64,
    version="passt 2023",
    options=PasstOptions(stderr=True, dns_host=False),
    leaks_loopback=True,
    reaches_host_addresses=True,
    udp_loopback_replies=False,
    udp_address_replies=True,
    greeting_first=False,
)
TIGHT = replace(
    LEAKY, version="passt 2025", leaks_loopback=False, udp_loopback_replies=True, greeting_first=True
)


@dataclass
class FakeGuard:
    """A guard that stands in memory; `obstacle` makes nftables refuse, `failing` only the guard."""

    obstacle: str | None = None
    failing: bool = False
    standing: bool = False
    owner: str = "tests/1"
    name: str = "table inet qcontroller_test"
    trials: int = 0

    async def ensure(self, resolver: ResolverPlan) -> None:
        self._answer()
        self.standing = True

    async def remove(self) -> None:
        self._answer()
        self.standing = False

    async def present(self) -> bool:
        self._answer()
        return self.standing

    async def usable(self) -> str | None:
        self.trials += 1
        return self.obstacle

    def _answer(self) -> None:
        if self.obstacle is not None or self.failing:
            raise GuardError(self.obstacle or "busy")


@dataclass
class FakeProbe:
    """A probe that always saw the same, or failed."""

    seen: PasstBehaviour | None = LEAKY

    async def behaviour(self) -> PasstBehaviour:
        if self.seen is None:
            raise ProbeError("passt is not installed.")
        return self.seen


@dataclass
class FakeHost:
    """A host with one uplink and one resolver."""

    interfaces: tuple[str, ...] = ("eth0",)
    plan: ResolverPlan = field(default_factory=lambda: ResolverPlan(servers=(IPv4Address("192.0.2.53"),)))

    async def resolver(self) -> ResolverPlan:
        return self.plan

    async def default_route_interfaces(self) -> tuple[str, ...]:
        return self.interfaces


@dataclass
class FakeBinding:
    """Binds everything but what is listed with its error."""

    refused: dict[PublishedPort, PortError] = field(default_factory=dict)
    tried: list[PublishedPort] = field(default_factory=list)

    async def try_bind(self, port: PublishedPort) -> None:
        self.tried.append(port)
        if port in self.refused:
            raise self.refused[port]


@dataclass
class FakeNamespace:
    """vm-host has a network of its own, or shares the runner's."""

    shared: bool = False

    async def is_shared(self) -> bool:
        return self.shared
