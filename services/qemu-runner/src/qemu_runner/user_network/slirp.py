"""The `user` network of hosts that can have neither a bridge nor passt: slirp, inside QEMU itself.

slirp answers for its gateway's address with the loopback of the namespace that QEMU runs in. So it is
offered only where that namespace is vm-host's own: because a setting says so, and never where vm-host's
socket is found in the runner's namespace. Nothing is spawned, nothing is made on the host.

Source: qemu-system-x86_64(1), `-netdev user`; QAPI `NetdevUserOptions`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from qemu_runner.user_network.addresses import AddressPlan, GuestAddress
from qemu_runner.user_network.behaviour import Refused
from qemu_runner.user_network.errors import PublishingUnsupportedError, UserNetworkUnavailableError
from qemu_runner.user_network.ports import VmHostNamespace
from qemu_runner.user_network.publishing import PublishedPort
from qemu_runner.user_network.report import Check, CheckStatus, Leak

NO_PORTS: Final = (
    "this node publishes no ports on the user network: slirp would open them where vm-host is, out of reach."
)
_SHARED: Final = Refused(
    reason="slirp would hand this host's loopback to guests, since vm-host shares the runner's network.",
    fix="give vm-host a network of its own (compose.user-net.yaml), or take `userBackend` out of the "
    "runner's settings: passt is safe here.",
)


@dataclass(frozen=True, slots=True)
class SlirpAvailable:
    """The network can be offered by slirp: vm-host's loopback is not the runner's."""


def slirp_netdev_option(netdev_id: str, guest: GuestAddress) -> str:
    """Give the value of QEMU's `-netdev` for a guest that gets this address by slirp's own DHCP.

    Without IPv6, which has a loopback of its own to hand out, and without slirp's other servers.
    """
    network = IPv4Network((guest.address, guest.prefix_len), strict=False)
    return (
        f"user,id={netdev_id},restrict=off,ipv4=on,ipv6=off,net={network},"
        f"host={guest.gateway},dns={guest.dns},dhcpstart={guest.address}"
    )


class SlirpNetwork:
    """The user network by slirp.

    Args:
        subnet: Private network for guests, /24 or wider.
        namespace: Tells whether vm-host shares the runner's network.
    """

    def __init__(self, subnet: IPv4Network, namespace: VmHostNamespace) -> None:
        self._namespace = namespace
        self.plan = AddressPlan(subnet)

    async def availability(self) -> SlirpAvailable | Refused:
        """Refuse it where guests would be given the host's loopback."""
        return _SHARED if await self._namespace.is_shared() else SlirpAvailable()

    async def check_ports(
        self,
        wanted: Iterable[PublishedPort],
        reserved: Iterable[PublishedPort],  # noqa: ARG002 - the facade's
        *,
        bind: bool = True,  # noqa: ARG002 - the facade's
    ) -> None:
        """Refuse every port: it would be bound in vm-host's namespace.

        Raises:
            PublishingUnsupportedError: If there is one.
        """
        for port in wanted:
            raise PublishingUnsupportedError(port, NO_PORTS)

    async def prepare_start(self, index: int, ports: Iterable[PublishedPort]) -> None:  # noqa: ARG002 - the facade's
        """Look once more; nothing is spawned beside QEMU.

        Raises:
            UserNetworkUnavailableError: If guests would be given the host's loopback.
            PublishingUnsupportedError: If there is a port.
        """
        await self.check_ports(ports, ())
        verdict = await self.availability()
        if isinstance(verdict, Refused):
            raise UserNetworkUnavailableError(verdict.reason, verdict.fix)

    def netdev_option(self, netdev_id: str, index: int, fd: str) -> str:  # noqa: ARG002 - the facade's
        """Give the value of QEMU's `-netdev`; nothing is inherited."""
        return slirp_netdev_option(netdev_id, self.plan.at(index))

    async def remove_guard(self) -> None:
        """There is none: the namespace is the guard."""

    async def checks(self) -> list[Check]:
        """Say whose loopback guests are given."""
        name = "user-network"
        verdict = await self.availability()
        if isinstance(verdict, Refused):
            return [Check(name, CheckStatus.FAIL, verdict.reason, verdict.fix)]
        return [
            Check(
                name,
                CheckStatus.WARN,
                "slirp gives guests the loopback of vm-host's own network; what listens on this host's other "
                "addresses, the wildcard included, is within their reach.",
                "let nothing but vm-host on that network; let the host's services listen on 127.0.0.1.",
            )
        ]

    async def leaks(self, *, needed: bool) -> list[Leak]:  # noqa: ARG002 - the facade's
        """Nothing is made on the host."""
        return []
