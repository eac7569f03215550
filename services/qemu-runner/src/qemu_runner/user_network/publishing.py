"""Published ports: what a request for one means, and which two of them exclude each other.

Pure values. It owns the rules that need no host; whether a port is free right now is asked by
`adapters.port_binding`. It must never open a socket.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

LOOPBACK = IPv4Address("127.0.0.1")
ANY = IPv4Address("0.0.0.0")  # noqa: S104 - a value to compare with; nothing is bound here
_PORT_MAX = 65535


class Protocol(StrEnum):
    """Transport of a published port, spelled as in the API."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """One port of the host that leads to one port of a guest.

    Attributes:
        host: Port on the host, 1 to 65535.
        guest: Port in the guest, 1 to 65535.
        protocol: Transport.
        address: IPv4 address of the host to listen on; loopback unless the user says otherwise.

    Raises:
        ValueError: If a port number is out of range.
    """

    host: int
    guest: int
    protocol: Protocol = Protocol.TCP
    address: IPv4Address = LOOPBACK

    def __post_init__(self) -> None:
        for field, number in (("host", self.host), ("guest", self.guest)):
            if not 1 <= number <= _PORT_MAX:
                raise ValueError(f"{field} port {number} is not between 1 and {_PORT_MAX}")

    def excludes(self, other: "PublishedPort") -> bool:
        """Tell whether both cannot listen at once; the wildcard address overlaps every other."""
        if self.host != other.host or self.protocol is not other.protocol:
            return False
        return self.address == other.address or ANY in {self.address, other.address}


def first_conflict(
    wanted: Iterable[PublishedPort], reserved: Iterable[PublishedPort]
) -> tuple[PublishedPort, PublishedPort] | None:
    """Find the first wanted port that excludes a reserved one or overlaps an earlier wanted one.

    One passt takes a host port once, whatever the address ("Overlapping port specifier"), so within
    a machine the address does not count.

    Args:
        wanted: Ports of one machine, in the order of the request.
        reserved: Ports that other machines of this host hold, running or not.

    Returns:
        The wanted port and the one in its way, or None.
    """
    held = list(reserved)
    own: dict[tuple[Protocol, int], PublishedPort] = {}
    for port in wanted:
        earlier = own.setdefault((port.protocol, port.host), port)
        if earlier is not port:
            return port, earlier
        for other in held:
            if port.excludes(other):
                return port, other
    return None
