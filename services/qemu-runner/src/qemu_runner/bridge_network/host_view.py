"""What a look at the host's links, addresses and routes shows, and what follows from it. Pure values."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import chain


@dataclass(frozen=True, slots=True)
class Link:
    """One interface.

    Attributes:
        index: The kernel's number.
        name: Its name.
        kind: `bridge`, `tun`, …; empty for hardware.
        alias: The note on it, where our marks stand.
        master: Number of the bridge it is a port of, or 0.
        up: Whether it is administratively up.
        mac: Hardware address.
    """

    index: int
    name: str
    kind: str = ""
    alias: str = ""
    master: int = 0
    up: bool = True
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One unicast IPv4 route of any table but `local`.

    Attributes:
        destination: Where it leads.
        interfaces: Numbers of the interfaces it leads through.
    """

    destination: IPv4Network
    interfaces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HostView:
    """One look."""

    links: tuple[Link, ...] = ()
    addresses: tuple[tuple[int, IPv4Address], ...] = ()
    routes: tuple[Route, ...] = ()

    def link(self, name: str) -> Link | None:
        """Give the interface of a name."""
        return next((link for link in self.links if link.name == name), None)

    def uplinks(self, without: str) -> tuple[str, ...]:
        """Give the interfaces of the default routes, sorted.

        Args:
            without: The bridge itself, which is none whatever somebody routes through it.
        """
        through = {n for r in self.routes if r.destination.prefixlen == 0 for n in r.interfaces}
        return tuple(
            sorted(link.name for link in self.links if link.index in through and link.name != without)
        )

    def clash(self, subnet: IPv4Network, own: str) -> Route | None:
        """Find a route that a subnet overlaps, other than the default ones and those of our own bridge."""
        bridge = self.link(own)
        for route in self.routes:
            ours = bridge is not None and set(route.interfaces) == {bridge.index}
            if not ours and route.destination.prefixlen and route.destination.overlaps(subnet):
                return route
        return None

    def name_of(self, index: int) -> str:
        """Give the name of an interface's number, or its number."""
        return next((link.name for link in self.links if link.index == index), f"interface {index}")


def free_subnet(
    view: HostView, prefix_len: int, avoid: Iterable[IPv4Network], own: str
) -> IPv4Network | None:
    """Propose a private subnet of this size that overlaps nothing of this host."""
    avoided = list(avoid)
    candidates = chain(
        (IPv4Network(f"10.{second}.0.0/16") for second in range(76, 256)),
        (IPv4Network(f"10.{second}.0.0/16") for second in range(1, 76)),
        (IPv4Network(f"172.{second}.0.0/16") for second in range(16, 32)),
    )
    for block in candidates:
        subnet = next(block.subnets(new_prefix=prefix_len))
        if not any(subnet.overlaps(other) for other in avoided) and view.clash(subnet, own) is None:
            return subnet
    return None
