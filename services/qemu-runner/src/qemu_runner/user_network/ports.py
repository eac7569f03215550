"""What the service of this package asks of its surroundings.

Each port has the real adapter in `adapters/` and a fake in the unit tests.
"""

from collections.abc import Awaitable
from typing import Protocol

from qemu_runner.user_network.behaviour import PasstBehaviour
from qemu_runner.user_network.publishing import PublishedPort
from qemu_runner.user_network.resolver import ResolverPlan


class Guard(Protocol):
    """The nft rule that keeps guests away from the host's addresses."""

    @property
    def owner(self) -> str:
        """The mark on the rules."""

    @property
    def name(self) -> str:
        """What `nft list` calls it."""

    def ensure(self, resolver: ResolverPlan) -> Awaitable[None]:
        """Make the guard stand as wanted, whatever stands now.

        Raises:
            GuardError: If nftables refused or did not answer.
        """

    def remove(self) -> Awaitable[None]:
        """Remove the guard; harmless if there is none.

        Raises:
            GuardError: If nftables refused or did not answer.
        """

    def present(self) -> Awaitable[bool]:
        """Look whether a guard with our mark stands.

        Raises:
            GuardError: If nftables did not answer.
        """

    def usable(self) -> Awaitable[str | None]:
        """Try a transaction that changes nothing; give what is in the way, or None."""


class VmHostNamespace(Protocol):
    """Where vm-host, and with it every guest's QEMU, has its network."""

    def is_shared(self) -> Awaitable[bool]:
        """Tell whether a vm-host shares the runner's network namespace."""


class BehaviourProbe(Protocol):
    """Finds out what the installed passt does."""

    def behaviour(self) -> Awaitable[PasstBehaviour]:
        """Answer from the cache, or probe.

        Raises:
            ProbeError: If passt is absent or the probe could not run.
        """


class HostNetwork(Protocol):
    """What is read from the host."""

    def resolver(self) -> Awaitable[ResolverPlan]:
        """Read the host's resolv.conf."""

    def default_route_interfaces(self) -> Awaitable[tuple[str, ...]]:
        """Names of the interfaces that IPv4 default routes lead through."""


class PortBinding(Protocol):
    """Whether a port of the host can be bound right now."""

    def try_bind(self, port: PublishedPort) -> Awaitable[None]:
        """Bind the port as passt would, and let it go.

        Raises:
            PortTakenError: If something listens there.
            PortPrivilegedError: If it needs a privilege that passt does not have.
            PortAddressError: If the address is not this host's.
        """
