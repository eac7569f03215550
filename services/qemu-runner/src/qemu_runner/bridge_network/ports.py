"""What the service of this package asks of its surroundings.

Each port has the real adapter in `adapters/` and a fake in the unit tests.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from qemu_runner.bridge_network.host_view import HostView
from qemu_runner.bridge_network.names_service import NamesService
from qemu_runner.bridge_network.nic import AttachedTap, BridgeNic
from qemu_runner.bridge_network.statements import Command
from qemu_runner.user_network import PublishedPort


class Change(Enum):
    """What may have changed on the host."""

    LINKS = auto()
    RULES = auto()
    ENGINE = auto()
    NAMES = auto()


@dataclass(frozen=True, slots=True)
class BridgePlan:
    """The bridge as it has to be.

    Attributes:
        name: Its name.
        mac: Its MAC: a fixed one, or it would follow its ports' and guests would lose their gateway.
        alias: Our mark.
        address: Its address.
        prefix_len: Length of the subnet's prefix.
    """

    name: str
    mac: str
    alias: str
    address: IPv4Address
    prefix_len: int

    @property
    def subnet(self) -> IPv4Network:
        """The network of its address."""
        return IPv4Network((self.address, self.prefix_len), strict=False)


class Links(Protocol):
    """Interfaces, addresses and routes."""

    def look(self) -> Awaitable[HostView]:
        """Look at all of them.

        Raises:
            LinkError: If the kernel did not answer.
        """

    def mend_bridge(self, plan: BridgePlan) -> Awaitable[int]:
        """Make the bridge be as planned, whatever is missing; give its number.

        Raises:
            LinkError: If the kernel refused.
        """

    def mend_tap(self, name: str, alias: str, bridge: int) -> Awaitable[None]:
        """Mark a tap, put it on the bridge and set it up.

        Raises:
            LinkError: If the kernel refused, or there is no such tap.
        """

    def introduce(self, bridge: int, address: IPv4Address, mac: str) -> Awaitable[None]:
        """Tell the host's table of neighbours who has an address now, whatever it knew before.

        Raises:
            LinkError: If the kernel refused.
        """

    def remove(self, name: str) -> Awaitable[None]:
        """Remove an interface; harmless if there is none.

        Raises:
            LinkError: If the kernel refused.
        """

    def forwards(self, name: str) -> Awaitable[bool]:
        """Tell whether packets that come in by an interface are forwarded."""

    def set_forwarding(self, name: str, *, on: bool) -> Awaitable[None]:
        """Switch forwarding of an interface.

        Raises:
            LinkError: If the kernel refused.
        """


class Taps(Protocol):
    """Opens taps."""

    def open(self, name: str, queues: int) -> Awaitable[AttachedTap]:
        """Open a new tap, down and on no bridge.

        Raises:
            LinkError: If the kernel refused, or one of that name is in use.
        """


class Ruleset(Protocol):
    """Nftables."""

    def apply(self, commands: Sequence[Command]) -> Awaitable[None]:
        """Run commands as one transaction.

        Raises:
            RulesetError: If nftables refused or did not answer.
        """

    def listing(self, family: str, table: str) -> Awaitable[list[object] | None]:
        """List a table's objects, or None if there is no such table.

        Raises:
            RulesetError: If nftables did not answer.
        """


class NamesServer(Protocol):
    """Dnsmasq and its files."""

    @property
    def running(self) -> bool:
        """Whether it runs."""

    def when_ended(self, ended: Callable[[], None]) -> None:
        """Say who is called when it ends without having been told to."""

    def start(self, service: NamesService) -> Awaitable[None]:
        """Start it, instead of one that runs.

        Raises:
            DnsmasqError: If it did not come up.
        """

    def stop(self) -> Awaitable[None]:
        """End it; harmless if it does not run."""

    def write(self, service: NamesService, nics: Iterable[BridgeNic]) -> Awaitable[None]:
        """Make exactly these cards known.

        Raises:
            DnsmasqError: If its files could not be written.
        """

    def add(self, service: NamesService, nic: BridgeNic) -> Awaitable[None]:
        """Make a card known, beside the others.

        Raises:
            DnsmasqError: If its files could not be written, or it had to be started again and did not.
        """

    def known(self, service: NamesService) -> Awaitable[list[str]]:
        """Give the machines that have files."""

    def clear(self, service: NamesService) -> Awaitable[None]:
        """Remove all files.

        Raises:
            DnsmasqError: If they could not be removed.
        """


class EngineRules(Protocol):
    """The rules in the container engine's chain, in each flavour of iptables that has the chain."""

    def ensure(self, rules: Sequence[str]) -> Awaitable[bool]:
        """Make exactly these of ours stand where the chain is; tell whether there is such a chain.

        Raises:
            EngineRulesError: If iptables refused or is missing.
        """

    def unannounced(self) -> Awaitable[bool]:
        """Tell whether there is a flavour of whose changes the kernel tells nobody."""


class HostPorts(Protocol):
    """Sockets that reserve published ports on the host."""

    def hold(self, port: PublishedPort) -> Awaitable[None]:
        """Reserve a port; harmless if it is reserved here already.

        Raises:
            BridgePortTakenError: If something has it.
            BridgePortAddressError: If the address is not this host's.
        """

    def release(self, port: PublishedPort) -> Awaitable[None]:
        """Let a port go; harmless if it is not held."""

    def held(self, port: PublishedPort) -> bool:
        """Tell whether a port is held here."""


class Flows(Protocol):
    """Connection tracking."""

    def forget(self, ports: Iterable[PublishedPort]) -> Awaitable[None]:
        """Delete the entries of UDP flows to published ports, which a change of rules leaves as they are.

        Raises:
            RulesetError: If the kernel refused.
        """


class Changes(Protocol):
    """The kernel's notices of what changed."""

    def watch(self, table: str) -> "AbstractAsyncContextManager[ChangeReader]":
        """Begin to listen.

        Args:
            table: Name of our tables.

        Raises:
            LinkError: If the kernel refused.
        """


class ChangeReader(Protocol):
    """Notices that have come."""

    def next(self) -> Awaitable[set[Change]]:
        """Wait for notices; give what they were about since the last call."""

    def put(self, changes: set[Change]) -> None:
        """Add a notice of one's own."""


class Notes(Protocol):
    """Remembers a few lines across restarts."""

    def read(self, name: str) -> Awaitable[tuple[str, ...]]:
        """Give a note's lines; none if there is no such note.

        Raises:
            NotesError: If it could not be read.
        """

    def write(self, name: str, lines: Sequence[str]) -> Awaitable[None]:
        """Replace a note; without lines it is removed.

        Raises:
            NotesError: If it could not be written.
        """


class Facts(Protocol):
    """What is read of the host and of this process."""

    def has_net_admin(self) -> Awaitable[bool]:
        """Tell whether this process has CAP_NET_ADMIN."""

    def tap_obstacle(self) -> Awaitable[str | None]:
        """Tell why taps cannot be opened, or None."""

    def program(self, name: str) -> Awaitable[str | None]:
        """Find a program."""

    def resolvers(self) -> Awaitable[tuple[IPv4Address, ...]]:
        """Give the resolvers that guests could ask themselves."""

    def port_53_taken(self, address: IPv4Address) -> Awaitable[bool]:
        """Tell whether DNS cannot be served on an address of this host, or on a new one."""
