"""Which addresses images may be fetched from: public ones, and what the operator allows besides.

The store can reach what its users cannot: its object store, the host, clouds' metadata services. The policy
is about addresses, not names, and is asked of the very address that is connected to.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's special-purpose registries (RFC 6890 and what followed), multicast, and the reserved rest.
_SPECIAL_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# All that is given out as unicast; everything else is loopback, link-local, private, multicast or unassigned.
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
# Addresses that lead to an IPv4 address: mapped, compatible, NAT64 (RFC 6052), 6to4 with its place in it.
_CARRIERS: Final = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What is allowed besides public addresses.

    Attributes:
        networks: Any address in them.
        hosts: Lower-case names that may be asked for whatever address they have.
    """

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allow: Iterable[str]) -> Self:
        """Read what an operator allows: networks or addresses, and names of hosts."""
        networks, hosts = [], set()
        for text in allow:
            try:
                networks.append(ip_network(text))
            except ValueError:
                hosts.add(text.lower())
        return cls(tuple(networks), frozenset(hosts))

    def permits(self, host: str, address: str) -> bool:
        """Tell whether `address`, which stands for `host`, may be connected to."""
        if host in self.hosts:
            return True
        found = ip_address(address)
        meant = carried(found)
        if any(one in network for network in self.networks for one in (found, meant)):
            return True
        return is_public(meant)


def carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    for network, shift in _CARRIERS:
        if address in network:
            return IPv4Address(int(address) >> shift & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the internet's, reached by anybody."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)
