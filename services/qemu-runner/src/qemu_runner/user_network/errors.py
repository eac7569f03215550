"""What can go wrong with the `user` network, as data.

Tree::

    UserNetworkError
    ├── UserNetworkUnavailableError   this host cannot offer the network safely (reason, fix)
    ├── AddressPlanExhaustedError     every address of the subnet is taken
    ├── PortError                     a published port cannot be had (port, field)
    │   ├── PortTakenError            something else listens there, or another machine reserved it
    │   ├── PortPrivilegedError       an unprivileged process may not bind it
    │   ├── PortAddressError          the address is not one of this host's
    │   ├── UdpPublishingError        this passt loses the replies of published UDP
    │   └── PublishingUnsupportedError  the network publishes no ports at all
    ├── GuardError                    nftables refused or did not answer
    └── ProbeError                    the behaviour of passt could not be found out

These classes know nothing of gRPC or HTTP; the service's one table maps them. They must never carry
anything a guest said.
"""

from qemu_runner.user_network.publishing import PublishedPort


class UserNetworkError(Exception):
    """Root of everything this package raises on purpose."""


class UserNetworkUnavailableError(UserNetworkError):
    """The network cannot be offered on this host without opening the host to its guests."""

    def __init__(self, reason: str, fix: str) -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(f"The user network is not available: {reason} To mend it: {fix}")


class AddressPlanExhaustedError(UserNetworkError):
    """Every address of the plan's subnet belongs to a machine."""

    def __init__(self, subnet: str, capacity: int) -> None:
        self.subnet = subnet
        self.capacity = capacity
        super().__init__(f"All {capacity} addresses of {subnet} are taken.")


class PortError(UserNetworkError):
    """A port of the request cannot be published."""

    def __init__(self, port: PublishedPort, detail: str) -> None:
        self.port = port
        self.detail = detail
        super().__init__(f"{port.protocol} port {port.address}:{port.host} cannot be published: {detail}")


class PortTakenError(PortError):
    """The host port is in use, by a process or by another machine's reservation."""


class PortPrivilegedError(PortError):
    """The host port is below the first port that an unprivileged process may bind."""


class PortAddressError(PortError):
    """The host address to publish on is not an address of this host."""


class UdpPublishingError(PortError):
    """UDP was asked for, and this passt loses the guest's replies."""


class PublishingUnsupportedError(PortError):
    """The network publishes no ports as it is set up here."""


class GuardError(UserNetworkError):
    """Nftables refused the guard, or did not answer in time."""


class ProbeError(UserNetworkError):
    """The behaviour of the installed passt could not be found out."""
