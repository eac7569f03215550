"""What the runner asks of the bridge network: the port that the real network and its fake stand behind.

A machine's life on it: `check_ports` and `reserve` when it is prepared (the address is stored by the
caller and passed back for ever), `attach` before each start, `publish` while it runs, `detach` when its
process is gone. Around them: `adopt` once after the runner began, `run` as long as it runs, `leave` when
the stack ends. Bridge, rules and dnsmasq are made with the first machine that needs them, so that a host
that never uses the network stays untouched.
"""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import NoReturn, Protocol

from qemu_runner.bridge_network.nic import AttachedTap, BridgeNic
from qemu_runner.bridge_network.offer import Availability
from qemu_runner.user_network import Check, Leak, PublishedPort


class BridgeNetwork(Protocol):
    """One bridge with NAT, DHCP and DNS, owned by one runner."""

    @property
    def name(self) -> str:
        """Name of the bridge, such as `qc0`."""

    @property
    def subnet(self) -> IPv4Network:
        """Network of the guests."""

    @property
    def gateway(self) -> IPv4Address:
        """The bridge's own address."""

    async def availability(self) -> Availability:
        """Say whether the network can be offered here, without changing anything on the host.

        Refused, with what to do about it: no CAP_NET_ADMIN, no /dev/net/tun, dnsmasq or nftables
        missing, a subnet that overlaps one of the host's routes (a free one is proposed), a bridge of that
        name that is not ours. Takes milliseconds; ask again rather than keep the answer.
        """

    async def reserve(self, taken: Collection[IPv4Address], wanted: IPv4Address | None = None) -> IPv4Address:
        """Choose the address of a new card. The caller stores it; it counts as taken from then on.

        Addresses are given in turn, and the turn is kept across restarts: one that was released comes
        back only when all others had theirs.

        Args:
            taken: Addresses of all cards of this runner, of running and stopped machines.
            wanted: The one that the user asked for, if any.

        Raises:
            AddressPoolExhaustedError: If there is none left.
            AddressOutsideError: If the wanted one is not for guests of this subnet.
            AddressTakenError: If another card has the wanted one.
            HostRefusedError: If the turn could not be noted, as on a full disk.
        """

    async def check_ports(
        self, machine_id: str, wanted: Iterable[PublishedPort], reserved: Iterable[PublishedPort]
    ) -> None:
        """Refuse ports that cannot be had, at once rather than at the first connection.

        Ports that the machine holds already are not tried again, so this serves a running one too.

        Args:
            machine_id: The machine.
            wanted: All its ports.
            reserved: Ports of all other machines of this runner on every network, running or not.

        Raises:
            BridgePortTakenError: If a port is in use or reserved.
            BridgePortAddressError: If the address is not this host's.
        """

    async def attach(self, nic: BridgeNic, *, queues: int = 1) -> AttachedTap:
        """Give a card its tap on the bridge, guarded, with its lease, its name and its ports.

        Everything stands when this returns: anti-spoofing before the tap is up. Calling it again for the
        same card replaces what stood (a tap that QEMU still holds is refused). When it fails, nothing of
        the card stays.

        Args:
            nic: The card.
            queues: Queues of the tap, 1 unless the card is multi-queue.

        Raises:
            BridgeUnavailableError: If the network cannot be offered (now), or `run` does not run.
            AddressOutsideError: If the address is not of this subnet, as after a change of settings.
            AddressTakenError: If an attached card of another machine has the address.
            BridgePortTakenError: If a port was taken meanwhile.
            BridgePortAddressError: If an address to publish on is gone meanwhile.
            HostRefusedError: If the host refused.
        """

    async def detach(self, machine_id: str) -> None:
        """Remove everything of a machine's cards; harmless if there is nothing.

        Connections through its published UDP ports are forgotten too.

        Raises:
            HostRefusedError: If the host refused; calling it again goes on.
        """

    async def publish(self, machine_id: str, ports: Iterable[PublishedPort]) -> None:
        """Make these the published ports of a running machine, with effect at once.

        Connections through a TCP port that is withdrawn go on; UDP flows end.

        Raises:
            NotAttachedError: If the machine has no card here.
            BridgePortTakenError: If a port is in use. The ports are as before then.
            BridgePortAddressError: If an address is not this host's. The ports are as before then.
            HostRefusedError: If the host refused.
        """

    async def adopt(self, live: Collection[BridgeNic]) -> None:
        """Take over the cards of machines that run, and remove what belongs to none.

        Call it once after the runner began, when it is known which machines run; nothing on the host is
        removed before. Guests keep their connections. A port that somebody took while the runner was
        away stays published; the doctor tells. Without CAP_NET_ADMIN nothing is taken over.

        Raises:
            HostRefusedError: If the host refused; `run` keeps trying.
        """

    async def run(self) -> NoReturn:
        """Keep the network whole while the runner runs: by events, mended within seconds.

        What the host refuses is logged and tried again. Cancelling it ends dnsmasq, and leaves bridge,
        taps and rules as they are.
        """

    async def checks(self) -> list[Check]:
        """Give the doctor's checks of this network. Never raises for what it exists to report."""

    async def leaks(self, known: Collection[str]) -> list[Leak]:
        """List what carries our mark and no machine needs.

        Args:
            known: Ids of all machines of this runner.

        Raises:
            HostRefusedError: If the host did not answer.
        """

    async def leave(self) -> None:
        """Remove bridge, taps, rules and dnsmasq, at the end of the stack; harmless if there are none.

        Nothing is attached after it. `run` may be cancelled before or after.

        Raises:
            HostRefusedError: If the host refused something; all the rest is removed.
        """
