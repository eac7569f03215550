"""The doctor's checks of the `user` network: what was seen, and what to do about it.

Each check looks and changes nothing. A check never raises for what it exists to report.
"""

from qemu_runner.user_network.behaviour import GUARD_FIX, Availability, Refused
from qemu_runner.user_network.errors import ProbeError
from qemu_runner.user_network.ports import BehaviourProbe, Guard, HostNetwork
from qemu_runner.user_network.publishing import LOOPBACK
from qemu_runner.user_network.report import Check, CheckStatus

PASST_FIX = (
    "install the package passt, and let the runner create a network namespace (root or user namespaces)."
)
NO_ROUTE = "this host has no IPv4 default route, and passt refuses to start without one."
NO_ROUTE_FIX = "give the host a default route (`ip route add default …`), or launch with `nics: []`."


async def passt_check(probe: BehaviourProbe) -> Check:
    """Report which passt is there and how it behaves."""
    name = "user-network-passt"
    try:
        seen = await probe.behaviour()
    except ProbeError as error:
        return Check(name, CheckStatus.FAIL, str(error), PASST_FIX)
    if seen.udp_loopback_replies:
        udp = "arrive"
    elif seen.udp_address_replies:
        udp = "are lost on the loopback, so UDP ports are refused there"
    else:
        udp = "are lost, so UDP ports are refused"
    loopback = "reach" if seen.leaks_loopback else "do not reach"
    detail = (
        f"{seen.version}; packets to 127.0.0.1 and 0.0.0.0 {loopback} the host's loopback; "
        f"replies of published UDP {udp}; published TCP servers "
        f"{'may speak first' if seen.greeting_first else 'are not told of a client before it speaks'}."
    )
    if seen.leaks_loopback or not (seen.udp_loopback_replies and seen.greeting_first):
        return Check(name, CheckStatus.WARN, detail, "install a passt of 2025 or later.")
    return Check(name, CheckStatus.PASS, detail)


async def guard_check(guard: Guard | None) -> Check:
    """Report whether the nft guard can be applied."""
    name = "user-network-guard"
    if guard is None:
        return Check(
            name, CheckStatus.WARN, "guests have no uids of their own, so no rule can tell them.", GUARD_FIX
        )
    obstacle = await guard.usable()
    if obstacle is not None:
        return Check(name, CheckStatus.WARN, f"nftables cannot be used: {obstacle}", GUARD_FIX)
    return Check(name, CheckStatus.PASS, f"nftables accepts the guard ({guard.name}).")


async def route_check(host: HostNetwork) -> Check:
    """Report whether there is a default route."""
    name = "user-network-route"
    interfaces = await host.default_route_interfaces()
    if not interfaces:
        return Check(name, CheckStatus.FAIL, NO_ROUTE, NO_ROUTE_FIX)
    return Check(name, CheckStatus.PASS, f"IPv4 default route through {', '.join(interfaces)}.")


async def resolver_check(host: HostNetwork) -> Check:
    """Report how guests will resolve names."""
    name = "user-network-resolver"
    plan = await host.resolver()
    if not plan.usable:
        return Check(
            name,
            CheckStatus.WARN,
            "resolv.conf names no IPv4 resolver; guests will resolve no names.",
            "add a `nameserver` line with an IPv4 address to /etc/resolv.conf.",
        )
    if plan.forward_to is not None and plan.forward_to != LOOPBACK:
        return Check(
            name,
            CheckStatus.WARN,
            f"the only resolver is {plan.forward_to}; a passt older than 2025 does not tell guests of it.",
            "add a `nameserver` line with an address that guests can reach to /etc/resolv.conf.",
        )
    if plan.forward_to is not None:
        return Check(name, CheckStatus.PASS, f"guests' queries are forwarded to {plan.forward_to}.")
    return Check(name, CheckStatus.PASS, f"guests ask {', '.join(map(str, plan.servers))}.")


def availability_check(verdict: Availability) -> Check:
    """Report whether the network is offered, and how far the guests are kept out."""
    name = "user-network"
    if isinstance(verdict, Refused):
        return Check(name, CheckStatus.FAIL, verdict.reason, verdict.fix)
    if not verdict.guarded:
        return Check(
            name,
            CheckStatus.WARN,
            "guests cannot reach the host's loopback, but its other addresses, since no guard stands.",
            GUARD_FIX,
        )
    return Check(
        name, CheckStatus.PASS, "new connections from guests to any address of this host are rejected."
    )
