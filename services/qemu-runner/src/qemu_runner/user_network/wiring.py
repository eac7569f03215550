"""Composition of the `user` network from its real adapters, by passt or by slirp.

Called once by the runner's composition root. It must do no work on the host.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from qemu_runner.user_network.adapters.host_network import ProcHostNetwork
from qemu_runner.user_network.adapters.nft import NftGuard
from qemu_runner.user_network.adapters.port_binding import SocketPortBinding
from qemu_runner.user_network.adapters.probe import CachedProbe
from qemu_runner.user_network.adapters.unix_sockets import ProcVmHostNamespace
from qemu_runner.user_network.backend import UserBackend
from qemu_runner.user_network.facade import UserNetwork
from qemu_runner.user_network.guard import GuardSpec
from qemu_runner.user_network.service import PasstNetwork
from qemu_runner.user_network.slirp import SlirpNetwork

_SUBNET = IPv4Network("10.77.0.0/16")


@dataclass(frozen=True, slots=True)
class UserNetworkSettings:
    """What the runner's configuration says about the `user` network.

    Attributes:
        state_dir: The runner's own directory; the probe's answer is cached in it.
        owner: Mark on everything made on the host; distinct for each runner (cluster and node id).
        uid_first: First uid of machines, or None where machines have the runner's own uid.
        uid_last: Last uid of machines, inclusive.
        subnet: Network for the guests' addresses, used nowhere else on this host.
        backend: What turns guests' frames into sockets.
        vm_hosts: Sockets of the vm-hosts, which slirp must not share a network with.
        passt: Program, a name in PATH or a path.
        nft: Program, a name in PATH or a path.
    """

    state_dir: Path
    owner: str
    uid_first: int | None = None
    uid_last: int | None = None
    subnet: IPv4Network = _SUBNET
    backend: UserBackend = UserBackend.PASST
    vm_hosts: tuple[Path, ...] = ()
    passt: str = "passt"
    nft: str = "nft"


def build_user_network(settings: UserNetworkSettings) -> UserNetwork:
    """Build the network of one runner."""
    match settings.backend:
        case UserBackend.PASST:
            return _by_passt(settings)
        case UserBackend.SLIRP:
            return SlirpNetwork(settings.subnet, ProcVmHostNamespace(settings.vm_hosts))


def _by_passt(settings: UserNetworkSettings) -> PasstNetwork:
    guard: NftGuard | None = None
    if settings.uid_first is not None and settings.uid_last is not None:
        spec = GuardSpec(settings.owner, settings.uid_first, settings.uid_last)
        guard = NftGuard(spec, program=settings.nft)
    return PasstNetwork(
        program=settings.passt,
        subnet=settings.subnet,
        guard=guard,
        probe=CachedProbe(settings.passt, settings.state_dir),
        host=ProcHostNetwork(),
        binding=SocketPortBinding(),
    )
