"""What dnsmasq is told: its argument list, and the two files that make a card known.

dnsmasq answers DHCP for known cards only, each with the address that was reserved for it, and DNS for
their names. Pure; files and process belong to `adapters.dnsmasq`.

Source: dnsmasq(8), 2.90.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from qemu_runner.bridge_network.nic import BridgeNic

DOMAIN: Final = "qc.internal"
_CAPABILITIES: Final = ("net_admin", "net_raw", "net_bind_service", "setgid")
_OCTET: Final = 8


@dataclass(frozen=True, slots=True)
class NamesService:
    """What one dnsmasq serves.

    Attributes:
        interface: The bridge.
        subnet: Network of the guests.
        gateway: Where it listens, and the guests' next hop.
        directory: The runner's directory for it.
        resolv_conf: Whose servers it asks, followed while it runs.
        dns: Whether it answers DNS; False where somebody else has port 53.
        servers: Resolvers that guests are told when it does not.
    """

    interface: str
    subnet: IPv4Network
    gateway: IPv4Address
    directory: Path
    resolv_conf: Path
    dns: bool = True
    servers: tuple[IPv4Address, ...] = ()

    @property
    def leases(self) -> Path:
        """Directory of reservations, one file for each card."""
        return self.directory / "reservations"

    @property
    def names(self) -> Path:
        """Directory of names, one file for each card that has one."""
        return self.directory / "names"

    def argv(self, program: str) -> list[str]:
        """Give the argument list; dnsmasq dies with whoever starts it.

        It stays root, with a bounding set of what it needs: handing over a descriptor for each port is
        nothing it knows, and a uid change would need SETUID, which the runner has no other use for.
        """
        keep = ",".join(f"+{name}" for name in _CAPABILITIES)
        return [
            *("setpriv", "--pdeathsig", "KILL", "--no-new-privs", f"--bounding-set=-all,{keep}", "--"),
            *(program, "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--log-facility=-"),
            *("--user=root", "--group=root"),
            *(f"--interface={self.interface}", "--except-interface=lo", "--bind-interfaces"),
            f"--dhcp-range={self.subnet.network_address},static,{self.subnet.netmask},infinite",
            *("--dhcp-ignore=tag:!known", "--dhcp-authoritative", "--leasefile-ro", "--no-ping"),
            # What a guest calls itself becomes no name of this network.
            *("--dhcp-ignore-names", f"--dhcp-lease-max={self.subnet.num_addresses}"),
            f"--dhcp-hostsdir={self.leases}",
            f"--dhcp-option=option:router,{self.gateway}",
            *self._dns_arguments(),
        ]

    def _dns_arguments(self) -> list[str]:
        if not self.dns:
            told = ",".join(["--dhcp-option=option:dns-server", *map(str, self.servers)])
            return ["--port=0", told]
        zones = [f"--local=/{zone}/" for zone in reverse_zones(self.subnet)]
        return [
            *("--no-hosts", f"--hostsdir={self.names}", f"--resolv-file={self.resolv_conf}"),
            *(f"--domain={DOMAIN}", f"--local=/{DOMAIN}/", *zones, "--cache-size=1000"),
            f"--dhcp-option=option:domain-search,{DOMAIN}",
        ]


def reservation(nic: BridgeNic) -> str:
    """Give the text that makes a card known: MAC, address, and the name for its first card."""
    parts = [nic.mac, str(nic.address), *([nic.name] if nic.index == 0 else [])]
    return ",".join(parts) + "\n"


def name_entry(nic: BridgeNic) -> str | None:
    """Give the line of hosts(5) that names a card, both ways; None for a machine's further cards."""
    return f"{nic.address} {nic.name}.{DOMAIN}\n" if nic.index == 0 else None


def file_name(nic: BridgeNic) -> str:
    """Give the name of a card's files."""
    return f"{nic.machine_id}-{nic.index}"


def machine_of(file: str) -> str:
    """Give the machine that a file belongs to."""
    return file.rpartition("-")[0]


def reverse_zones(subnet: IPv4Network) -> Sequence[str]:
    """Give the zones of in-addr.arpa that cover a subnet; queries for them never leave this host."""
    octets = min(subnet.prefixlen // _OCTET, 3)
    whole = _OCTET * (octets + (subnet.prefixlen % _OCTET > 0)) if octets < 3 else 24
    networks: Iterable[IPv4Network]
    networks = [subnet.supernet(new_prefix=24)] if subnet.prefixlen > 24 else subnet.subnets(new_prefix=whole)
    return [_zone(network) for network in networks]


def _zone(network: IPv4Network) -> str:
    octets = str(network.network_address).split(".")[: network.prefixlen // _OCTET]
    return ".".join([*reversed(octets), "in-addr", "arpa"])
