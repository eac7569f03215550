"""Which DNS server a guest is told, decided from the host's resolv.conf.

A resolver on the host's loopback (systemd-resolved's 127.0.0.53) cannot be handed to a guest: passt
has to forward to it, and the guard has to let exactly that through. Pure; reading the file belongs
to the caller.
"""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address


@dataclass(frozen=True, slots=True)
class ResolverPlan:
    """How the guests of this host resolve names.

    Attributes:
        servers: Resolvers that a guest can ask itself, in the host's order.
        forward_to: Loopback resolver that passt has to forward to, when there is no other.
        search: Search domains of the host.
    """

    servers: tuple[IPv4Address, ...] = ()
    forward_to: IPv4Address | None = None
    search: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a guest will be able to resolve any name."""
        return bool(self.servers) or self.forward_to is not None


def parse_resolv_conf(text: str) -> ResolverPlan:
    """Read the plan from the text of resolv.conf(5).

    IPv6 servers are left out: guests of this network have IPv4 only. The last `search` or `domain`
    line counts, as in the C library.
    """
    servers: list[IPv4Address] = []
    loopback: IPv4Address | None = None
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] in {"search", "domain"}:
            search = tuple(words[1:])
        if words[0] != "nameserver":
            continue
        try:
            address = IPv4Address(words[1])
        except AddressValueError:
            continue
        if not address.is_loopback:
            servers.append(address)
        elif loopback is None:
            loopback = address
    return ResolverPlan(servers=tuple(servers), forward_to=None if servers else loopback, search=search)


def choose_resolver(own: str, upstream: str) -> ResolverPlan:
    """Choose between the host's own resolv.conf and what its local resolver asks in turn.

    Handing guests the servers behind systemd-resolved needs no forwarding and no hole in the guard.

    Args:
        own: Text of /etc/resolv.conf.
        upstream: Text of systemd-resolved's list of real servers; empty where it does not run.
    """
    plan = parse_resolv_conf(own)
    if plan.servers:
        return plan
    behind = parse_resolv_conf(upstream)
    if not behind.servers:
        return plan
    return ResolverPlan(servers=behind.servers, search=plan.search or behind.search)
