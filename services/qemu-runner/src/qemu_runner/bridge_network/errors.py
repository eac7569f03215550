"""What can go wrong with the bridge network, as data.

Tree::

    BridgeNetworkError
    ├── BridgeUnavailableError       this host cannot offer the network (reason, fix)
    ├── AddressPoolExhaustedError    every address of the subnet is taken
    ├── AddressError                 one address cannot be had (address)
    │   ├── AddressOutsideError      it is none of the pool
    │   └── AddressTakenError        another machine has it
    ├── BridgePortError              a published port cannot be had (port, detail)
    │   ├── BridgePortTakenError     something else listens there, or another machine reserved it
    │   └── BridgePortAddressError   the address is not one of this host's
    ├── NotAttachedError             the machine has no card on the bridge now
    └── HostRefusedError             the host refused a change, or did not answer (subject, detail)
        ├── LinkError                netlink: bridge, tap, address, forwarding
        ├── RulesetError             nftables
        ├── EngineRulesError         iptables: the rules in DOCKER-USER
        ├── DnsmasqError             dnsmasq did not start, or its files could not be written
        └── NotesError               a note in the runner's directory could not be written

These classes know nothing of gRPC or HTTP; the service's one table maps them. They must never carry
anything a guest said.
"""

from ipaddress import IPv4Address

from qemu_runner.user_network import PublishedPort


class BridgeNetworkError(Exception):
    """Root of everything this package raises on purpose."""


class BridgeUnavailableError(BridgeNetworkError):
    """The network cannot be offered on this host."""

    def __init__(self, reason: str, fix: str) -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(f"The bridge network is not available: {reason} To mend it: {fix}")


class AddressPoolExhaustedError(BridgeNetworkError):
    """Every address of the subnet belongs to a machine."""

    def __init__(self, subnet: str, capacity: int) -> None:
        self.subnet = subnet
        self.capacity = capacity
        super().__init__(f"All {capacity} addresses of {subnet} are taken.")


class AddressError(BridgeNetworkError):
    """An address that was asked for cannot be had."""

    def __init__(self, address: IPv4Address, detail: str) -> None:
        self.address = address
        self.detail = detail
        super().__init__(f"{address} cannot be had: {detail}")


class AddressOutsideError(AddressError):
    """The address is not one that the subnet has for guests."""


class AddressTakenError(AddressError):
    """Another machine has the address."""


class BridgePortError(BridgeNetworkError):
    """A port of the request cannot be published."""

    def __init__(self, port: PublishedPort, detail: str) -> None:
        self.port = port
        self.detail = detail
        super().__init__(f"{port.protocol} port {port.address}:{port.host} cannot be published: {detail}")


class BridgePortTakenError(BridgePortError):
    """The host port is in use, by a process or by another machine's reservation."""


class BridgePortAddressError(BridgePortError):
    """The host address to publish on is not an address of this host."""


class NotAttachedError(BridgeNetworkError):
    """The machine has no card on the bridge now."""

    def __init__(self, machine_id: str) -> None:
        self.machine_id = machine_id
        super().__init__(f"Machine {machine_id} has no card on the bridge.")


class HostRefusedError(BridgeNetworkError):
    """The host refused a change, or did not answer in time."""

    def __init__(self, subject: str, detail: str) -> None:
        self.subject = subject
        self.detail = detail
        super().__init__(f"{subject}: {detail}")


class LinkError(HostRefusedError):
    """The kernel refused a change of a link, an address or an interface's forwarding."""


class RulesetError(HostRefusedError):
    """Nftables refused a transaction or a listing."""


class EngineRulesError(HostRefusedError):
    """Iptables refused the rules in the container engine's chain."""


class DnsmasqError(HostRefusedError):
    """Dnsmasq did not start, or its files could not be written."""


class NotesError(HostRefusedError):
    """A note in the runner's directory could not be read or written."""
