"""The `user` network: passt beside QEMU, with the guards that keep guests away from the host, or slirp in it.

What the runner calls: `build_user_network` (module `wiring`) once, `UserNetwork.check_ports` when a
machine is prepared, `UserNetwork.prepare_start` before each start, `PasstStart.argv` for vm-host and
`UserNetwork.netdev_option` for QEMU. How it works and what surprised us: docs/networking-user.md.
"""

from qemu_runner.user_network.addresses import AddressPlan, GuestAddress
from qemu_runner.user_network.backend import UserBackend
from qemu_runner.user_network.behaviour import Availability, Available, PasstBehaviour, Refused
from qemu_runner.user_network.errors import (
    AddressPlanExhaustedError,
    GuardError,
    PortAddressError,
    PortError,
    PortPrivilegedError,
    PortTakenError,
    ProbeError,
    PublishingUnsupportedError,
    UdpPublishingError,
    UserNetworkError,
    UserNetworkUnavailableError,
)
from qemu_runner.user_network.facade import UserNetwork
from qemu_runner.user_network.netdev import (
    STREAM_CONNECTED_EVENT,
    STREAM_DISCONNECTED_EVENT,
    stream_netdev_arguments,
    stream_netdev_option,
)
from qemu_runner.user_network.passt import PASST_ROLE, PasstOptions, passt_argv
from qemu_runner.user_network.publishing import Protocol, PublishedPort, first_conflict
from qemu_runner.user_network.report import Check, CheckStatus, Leak
from qemu_runner.user_network.resolver import ResolverPlan, parse_resolv_conf
from qemu_runner.user_network.service import PasstNetwork, PasstStart
from qemu_runner.user_network.slirp import SlirpAvailable, SlirpNetwork, slirp_netdev_option

__all__ = [
    "PASST_ROLE",
    "STREAM_CONNECTED_EVENT",
    "STREAM_DISCONNECTED_EVENT",
    "AddressPlan",
    "AddressPlanExhaustedError",
    "Availability",
    "Available",
    "Check",
    "CheckStatus",
    "GuardError",
    "GuestAddress",
    "Leak",
    "PasstBehaviour",
    "PasstNetwork",
    "PasstOptions",
    "PasstStart",
    "PortAddressError",
    "PortError",
    "PortPrivilegedError",
    "PortTakenError",
    "ProbeError",
    "Protocol",
    "PublishedPort",
    "PublishingUnsupportedError",
    "Refused",
    "ResolverPlan",
    "SlirpAvailable",
    "SlirpNetwork",
    "UdpPublishingError",
    "UserBackend",
    "UserNetwork",
    "UserNetworkError",
    "UserNetworkUnavailableError",
    "first_conflict",
    "parse_resolv_conf",
    "passt_argv",
    "slirp_netdev_option",
    "stream_netdev_arguments",
    "stream_netdev_option",
]
