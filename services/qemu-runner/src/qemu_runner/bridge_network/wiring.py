"""Composition of the bridge network from its real adapters.

Called once by the runner's composition root. It must do no work on the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from qemu_runner.bridge_network.adapters.changes import NetlinkChanges
from qemu_runner.bridge_network.adapters.dnsmasq import Dnsmasq
from qemu_runner.bridge_network.adapters.facts import HostFacts
from qemu_runner.bridge_network.adapters.flows import Conntrack
from qemu_runner.bridge_network.adapters.host_ports import SocketHostPorts
from qemu_runner.bridge_network.adapters.iptables import IptablesEngineRules
from qemu_runner.bridge_network.adapters.links import NetlinkLinks
from qemu_runner.bridge_network.adapters.nftables import Nftables
from qemu_runner.bridge_network.adapters.notes import FileNotes
from qemu_runner.bridge_network.adapters.taps import TunTaps
from qemu_runner.bridge_network.attaching import Attaching
from qemu_runner.bridge_network.firewall import Firewall
from qemu_runner.bridge_network.marks import Marks
from qemu_runner.bridge_network.names_service import NamesService
from qemu_runner.bridge_network.offering import Offering
from qemu_runner.bridge_network.pool import AddressPool
from qemu_runner.bridge_network.ports import BridgePlan
from qemu_runner.bridge_network.service import OwnedBridgeNetwork
from qemu_runner.bridge_network.upkeep import Upkeep

INTERFACE = "qc0"
SUBNET = IPv4Network("10.76.0.0/16")
_DIRECTORY = "bridge-network"


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What the runner's configuration says about the bridge network.

    Attributes:
        state_dir: The runner's own directory; a directory for dnsmasq and notes is made in it.
        owner: Mark on everything made on the host; distinct for each runner (node and state directory).
        interface: Name of the bridge, 15 characters at most.
        subnet: Network of the guests, /16 to /29, used nowhere else on this host.
        avoid: Other networks that this runner uses, such as the user network's.
        resolv_conf: Resolver configuration whose servers answer for guests.
        dnsmasq: Program, a name in PATH or a path.
        nft: Program, for hosts without libnftables.
    """

    state_dir: Path
    owner: str
    interface: str = INTERFACE
    subnet: IPv4Network = SUBNET
    avoid: Sequence[IPv4Network] = ()
    resolv_conf: Path = Path("/etc/resolv.conf")
    dnsmasq: str = "dnsmasq"
    nft: str = "nft"


def build_bridge_network(settings: BridgeSettings) -> OwnedBridgeNetwork:
    """Build the network of one runner.

    Raises:
        ValueError: If the subnet or the interface's name cannot be used.
    """
    pool = AddressPool(settings.subnet)
    marks = Marks(settings.owner)
    if not 0 < len(settings.interface.encode()) <= 15 or set(settings.interface) & set("/: \t\n"):
        raise ValueError(f"{settings.interface!r} is not a name of an interface")
    firewall = Firewall(settings.owner, settings.interface, settings.subnet, pool.gateway)
    directory = settings.state_dir / _DIRECTORY
    links, ruleset, facts = (
        NetlinkLinks(),
        Nftables(settings.nft),
        HostFacts(resolv_conf=settings.resolv_conf),
    )
    notes = FileNotes(directory)
    engine_rules = IptablesEngineRules(settings.owner, ruleset)
    server = Dnsmasq(settings.dnsmasq)
    names = NamesService(settings.interface, settings.subnet, pool.gateway, directory, settings.resolv_conf)
    plan = BridgePlan(
        settings.interface, marks.bridge_mac, marks.bridge_alias, pool.gateway, settings.subnet.prefixlen
    )
    offering = Offering(marks, firewall, settings.avoid, settings.dnsmasq, links, ruleset, facts)
    upkeep = Upkeep(
        marks,
        plan,
        firewall,
        names,
        links=links,
        ruleset=ruleset,
        server=server,
        engine_rules=engine_rules,
        facts=facts,
        notes=notes,
    )
    return OwnedBridgeNetwork(
        pool,
        offering,
        upkeep,
        Attaching(upkeep, links, TunTaps(), server, SocketHostPorts(), Conntrack()),
        server=server,
        engine_rules=engine_rules,
        changes=NetlinkChanges(),
        notes=notes,
    )
