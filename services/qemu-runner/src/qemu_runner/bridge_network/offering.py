"""Decides whether this host can offer the bridge network. It looks and changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from qemu_runner.bridge_network.checks import TUN_FIX
from qemu_runner.bridge_network.errors import HostRefusedError, RulesetError
from qemu_runner.bridge_network.firewall import Firewall
from qemu_runner.bridge_network.host_view import HostView, free_subnet
from qemu_runner.bridge_network.marks import Marks
from qemu_runner.bridge_network.offer import Availability, Offered
from qemu_runner.bridge_network.ports import Facts, Links, Ruleset
from qemu_runner.user_network import Refused

_PROGRAMS: Final = {"setpriv": "util-linux"}


@dataclass(frozen=True, slots=True)
class Offering:
    """What has to be there.

    Attributes:
        marks: How our own bridge is told from another's.
        firewall: Bridge, subnet and gateway; its rules are tried.
        avoid: Other networks of this runner, for a proposal.
        dnsmasq: Program.
        links: The host's links.
        ruleset: Nftables.
        facts: The host's facts.
    """

    marks: Marks
    firewall: Firewall
    avoid: Sequence[IPv4Network]
    dnsmasq: str
    links: Links
    ruleset: Ruleset
    facts: Facts

    async def verdict(self) -> Availability:
        """Give the first thing that is in the way, or what is offered."""
        if not await self.facts.has_net_admin():
            return Refused(
                "this process lacks CAP_NET_ADMIN.",
                "start the runner as root, or its container with `cap_add: [NET_ADMIN]`.",
            )
        if obstacle := await self.facts.tap_obstacle():
            return Refused(
                f"taps cannot be opened ({obstacle}).",
                TUN_FIX,
            )
        for program, package in {self.dnsmasq: "dnsmasq-base", **_PROGRAMS}.items():
            if await self.facts.program(program) is None:
                return Refused(f"{program} is not installed.", f"install the package {package}.")
        try:
            await self.ruleset.apply(self.firewall.trial_commands())
        except RulesetError as error:
            return Refused(f"nftables cannot be used: {error.detail}.", "install the package nftables.")
        try:
            view = await self.links.look()
        except HostRefusedError as error:
            return Refused(str(error), "look into the kernel's log.")
        return self._by_links(view) or await self._offer(view)

    def _by_links(self, view: HostView) -> Refused | None:
        name, subnet = self.firewall.interface, self.firewall.subnet
        found = view.link(name)
        if found is not None and not self.marks.owns_bridge(found):
            return Refused(
                f"there is an interface {name} that this runner did not make.",
                "remove it, or set another name for the bridge.",
            )
        if (route := view.clash(subnet, name)) is None:
            return None
        proposal = free_subnet(view, subnet.prefixlen, self.avoid, name)
        through = ", ".join(view.name_of(index) for index in route.interfaces)
        return Refused(
            f"the subnet {subnet} overlaps the route to {route.destination} through {through}.",
            f"set the bridge's subnet to {proposal}." if proposal else "set a subnet that is free.",
        )

    async def _offer(self, view: HostView) -> Offered:
        name, gateway = self.firewall.interface, self.firewall.gateway
        # Our own dnsmasq may be the one that has the port.
        standing = view.link(name) is not None
        dns = standing or not await self.facts.port_53_taken(gateway)
        remarks = []
        if not dns:
            remarks.append(await self._without_dns(gateway))
        if not view.uplinks(name):
            remarks.append("This host has no IPv4 default route, so guests reach no other host.")
        return Offered(self.firewall.subnet, gateway, dns, tuple(remarks))

    async def _without_dns(self, gateway: IPv4Address) -> str:
        servers = await self.facts.resolvers()
        told = f"guests are told {', '.join(map(str, servers))}" if servers else "guests are told no resolver"
        return (
            f"Something listens on port 53 of every address, so there is no DNS on {gateway}: {told}, "
            "and names of guests do not resolve."
        )
