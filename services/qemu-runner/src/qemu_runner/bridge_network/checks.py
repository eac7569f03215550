"""The doctor's checks of the bridge network: what was seen, and what to do about it.

Each check looks and changes nothing. A check never raises for what it exists to report.
"""

from collections.abc import Sequence

from qemu_runner.bridge_network.engine import CHAIN
from qemu_runner.bridge_network.errors import BridgePortError, HostRefusedError
from qemu_runner.bridge_network.offer import Availability
from qemu_runner.bridge_network.ports import Facts, Links, Ruleset
from qemu_runner.user_network import Check, CheckStatus, Refused

TUN_FIX = "load the module tun (`modprobe tun`), or let the container have /dev/net/tun."
DNSMASQ_FIX = "install the package dnsmasq-base."


def availability_check(verdict: Availability) -> Check:
    """Report whether the network is offered."""
    name = "bridge-network"
    if isinstance(verdict, Refused):
        return Check(name, CheckStatus.FAIL, verdict.reason, verdict.fix)
    if not verdict.dns:
        return Check(
            name,
            CheckStatus.WARN,
            " ".join(verdict.remarks) or "Something else has port 53: guests get DHCP only.",
            "let that resolver listen on its own addresses only (dnsmasq: `bind-dynamic` or "
            "`bind-interfaces`), and restart the runner.",
        )
    return Check(name, CheckStatus.PASS, f"{verdict.subnet}, gateway {verdict.gateway}.")


async def device_check(facts: Facts) -> Check:
    """Report whether taps can be opened."""
    if obstacle := await facts.tap_obstacle():
        return Check("tun", CheckStatus.FAIL, f"taps cannot be opened ({obstacle}).", TUN_FIX)
    return Check("tun", CheckStatus.PASS, "taps can be opened.")


async def program_check(facts: Facts, dnsmasq: str) -> Check:
    """Report whether the program that answers DHCP and DNS is there."""
    path = await facts.program(dnsmasq)
    if path is None:
        return Check("dnsmasq", CheckStatus.FAIL, f"{dnsmasq} is not installed.", DNSMASQ_FIX)
    return Check("dnsmasq", CheckStatus.PASS, f"{path} is there.")


async def firewall_check(ruleset: Ruleset) -> Check:
    """Report whether another firewall of this host drops what guests send."""
    name = "bridge-network-forward"
    try:
        entries = await ruleset.listing("ip", "filter") or []
    except HostRefusedError as error:
        return Check(name, CheckStatus.WARN, str(error), "let the runner read nftables (CAP_NET_ADMIN).")
    chains = {
        chain["name"]: chain.get("policy")
        for entry in entries
        if isinstance(entry, dict) and isinstance(chain := entry.get("chain"), dict)
    }
    if CHAIN in chains:
        return Check(name, CheckStatus.PASS, f"the container engine's chain {CHAIN} is used.")
    if chains.get("FORWARD") == "drop":
        return Check(
            name,
            CheckStatus.WARN,
            "the FORWARD chain of iptables drops, and there is no DOCKER-USER to accept guests in.",
            "allow forwarding from and to the bridge in that firewall.",
        )
    return Check(name, CheckStatus.PASS, "no other firewall drops forwarded packets.")


async def route_check(links: Links, bridge: str) -> Check:
    """Report where guests are forwarded to."""
    name = "bridge-network-route"
    try:
        uplinks = (await links.look()).uplinks(bridge)
    except HostRefusedError as error:
        return Check(name, CheckStatus.FAIL, str(error), "look into the kernel's log.")
    if not uplinks:
        return Check(
            name,
            CheckStatus.WARN,
            "this host has no IPv4 default route, so guests reach no other host.",
            "give the host a default route (`ip route add default …`).",
        )
    return Check(name, CheckStatus.PASS, f"guests are forwarded to {', '.join(uplinks)}.")


def ports_check(unheld: Sequence[BridgePortError]) -> Check:
    """Report published ports that somebody took while the runner was away."""
    name = "bridge-network-ports"
    if not unheld:
        return Check(name, CheckStatus.PASS, "all published ports are reserved.")
    return Check(
        name,
        CheckStatus.WARN,
        " ".join(str(error) for error in unheld),
        "end what took the port, or withdraw it from the instance.",
    )
