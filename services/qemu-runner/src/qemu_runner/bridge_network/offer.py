"""Whether this host can offer the bridge network, as a value."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from qemu_runner.user_network import Refused


@dataclass(frozen=True, slots=True)
class Offered:
    """The network can be offered.

    Attributes:
        subnet: Network of the guests.
        gateway: The bridge's own address in it; guests' next hop and resolver.
        dns: Whether dnsmasq answers DNS on the gateway; False where a wildcard listener holds port 53
            and guests are told the host's own resolvers instead.
        remarks: What works less well here than it could, as sentences for people.
    """

    subnet: IPv4Network
    gateway: IPv4Address
    dns: bool = True
    remarks: tuple[str, ...] = ()


Availability = Offered | Refused
