"""What the runner asks of the `user` network: the port that passt and slirp stand behind."""

from collections.abc import Iterable
from typing import Protocol

from qemu_runner.user_network.addresses import AddressPlan
from qemu_runner.user_network.behaviour import Available, Refused
from qemu_runner.user_network.publishing import PublishedPort
from qemu_runner.user_network.report import Check, Leak
from qemu_runner.user_network.service import PasstStart
from qemu_runner.user_network.slirp import SlirpAvailable


class UserNetwork(Protocol):
    """Private addresses behind sockets of a process, without a bridge."""

    @property
    def plan(self) -> AddressPlan:
        """Which index has which address."""

    async def availability(self) -> Available | SlirpAvailable | Refused:
        """Say whether the network can be offered here, without changing anything on the host."""

    async def check_ports(
        self, wanted: Iterable[PublishedPort], reserved: Iterable[PublishedPort], *, bind: bool = True
    ) -> None:
        """Refuse ports that cannot be had, at once rather than at the first connection.

        Args:
            wanted: Ports of one machine.
            reserved: Ports of all other machines of this runner, running or not.
            bind: Whether to try the ports on the host; not for a machine that already holds them.

        Raises:
            PortError: If one cannot be published.
            ProbeError: If whether it can could not be found out.
        """

    async def prepare_start(self, index: int, ports: Iterable[PublishedPort]) -> PasstStart | None:
        """Make sure that a guest may start now; called before every start.

        Returns:
            What is spawned beside QEMU; None: nothing is.

        Raises:
            UserNetworkUnavailableError: If the network cannot be offered.
            GuardError: If nftables refused the guard.
        """

    def netdev_option(self, netdev_id: str, index: int, fd: str) -> str:
        """Give the value of QEMU's `-netdev`.

        Args:
            netdev_id: Id of the netdev.
            index: The machine's index in `plan`.
            fd: The placeholder of the descriptor that QEMU inherits, where something is spawned beside it.
        """

    async def remove_guard(self) -> None:
        """Remove what stands between guests and host, when the last machine is gone for good.

        Raises:
            GuardError: If nftables refused.
        """

    async def checks(self) -> list[Check]:
        """Give the doctor's checks of this network. Never raises for what it exists to report."""

    async def leaks(self, *, needed: bool) -> list[Leak]:
        """List what carries our mark and nobody needs.

        Args:
            needed: Whether this runner has a machine on the user network.

        Raises:
            GuardError: If nftables did not answer.
        """
