"""The command line of passt for one guest.

It owns every option that keeps a guest away from the host, so that no caller can forget one: no
mapping of the gateway to the host, IPv4 only, no UDP but what was asked for, an address of its own.
Pure; vm-host spawns the result under a uid of its own (`setpriv`), which this module must never do.

Source: passt(1), versions 2023-03 (Debian 12) and 2025-05 (Debian 13).
"""

from dataclasses import dataclass

from qemu_runner.user_network.addresses import GuestAddress
from qemu_runner.user_network.publishing import LOOPBACK, Protocol, PublishedPort
from qemu_runner.user_network.resolver import ResolverPlan

PASST_ROLE = "passt"
"""Name of the process beside QEMU, in vm-host's words."""

_MAC = "52:55:0a:4d:00:02"


@dataclass(frozen=True, slots=True)
class PasstOptions:
    """Which options this build of passt knows, found out once by the probe.

    Attributes:
        stderr: Whether `--stderr` exists; newer ones log to stderr in the foreground anyway.
        dns_host: Whether `--dns-host` exists; without it passt forwards queries to 127.0.0.1 only.
    """

    stderr: bool
    dns_host: bool


def passt_argv(
    program: str,
    fd: int | str,
    guest: GuestAddress,
    ports: tuple[PublishedPort, ...],
    resolver: ResolverPlan,
    options: PasstOptions,
) -> list[str]:
    """Build the argument list of one guest's passt.

    Args:
        program: Path of the binary.
        fd: Number (or the spawner's placeholder for it) of the connected stream socket whose other
            end QEMU holds.
        guest: What the guest is told by DHCP.
        ports: Ports of the host that lead to this guest; checked beforehand by
            `UserNetwork.check_ports`, since passt ends with code 1 and no word when one is taken.
        resolver: How this guest resolves names.
        options: What this build of passt understands.
    """
    argv = [program, "--foreground"]
    if options.stderr:
        argv.append("--stderr")
    argv += ["--quiet", "--one-off", "--fd", str(fd), "--ipv4-only", "--no-map-gw"]
    argv += ["--no-ndp", "--no-ra", "--no-dhcpv6"]
    # passt's default is the MAC of the host's own interface: no business of a guest.
    argv += ["--mac-addr", _MAC]
    argv += ["--address", str(guest.address), "--netmask", str(guest.prefix_len)]
    argv += ["--gateway", str(guest.gateway)]
    argv += _dns_arguments(guest, resolver, options)
    argv += _port_arguments("--tcp-ports", [p for p in ports if p.protocol is Protocol.TCP])
    # Unless told otherwise passt opens a UDP port beside each TCP port.
    argv += _port_arguments("--udp-ports", [p for p in ports if p.protocol is Protocol.UDP])
    return argv


def _port_arguments(option: str, ports: list[PublishedPort]) -> list[str]:
    if not ports:
        return [option, "none"]
    # Several mappings in one option share the first one's address: one option for each port.
    return [word for p in ports for word in (option, f"{p.address}/{p.host}:{p.guest}")]


def _dns_arguments(guest: GuestAddress, resolver: ResolverPlan, options: PasstOptions) -> list[str]:
    words: list[str] = []
    if resolver.servers:
        for server in resolver.servers:
            words += ["--dns", str(server)]
    elif resolver.forward_to is not None:
        words += ["--dns-forward", str(guest.dns)]
        if options.dns_host:
            words += ["--dns", str(guest.dns), "--dns-host", str(resolver.forward_to)]
        elif resolver.forward_to == LOOPBACK:
            # A --dns of our own makes an old passt forget the host's resolver: it forwards to
            # 0.0.0.0, which is 127.0.0.1. Any other loopback resolver it takes from resolv.conf only,
            # and then answers queries without telling the guest by DHCP where to send them.
            words += ["--dns", str(guest.dns)]
    else:
        words += ["--dns", "none"]
    if resolver.search:
        words += ["--search", " ".join(resolver.search)]
    else:
        words += ["--search", "none"]
    return words
