"""The default network: bridge `qc0` with NAT, DHCP, DNS and anti-spoofing.

What the runner calls is `BridgeNetwork` (module `facade`), built by `build_bridge_network` (module
`wiring`). How it works and what surprised us: docs/networking-bridge.md.
"""

from qemu_runner.bridge_network.errors import (
    AddressError,
    AddressOutsideError,
    AddressPoolExhaustedError,
    AddressTakenError,
    BridgeNetworkError,
    BridgePortAddressError,
    BridgePortError,
    BridgePortTakenError,
    BridgeUnavailableError,
    DnsmasqError,
    EngineRulesError,
    HostRefusedError,
    LinkError,
    NotAttachedError,
    NotesError,
    RulesetError,
)
from qemu_runner.bridge_network.facade import BridgeNetwork
from qemu_runner.bridge_network.nic import AttachedTap, BridgeNic, netdev_arguments, tap_name
from qemu_runner.bridge_network.offer import Availability, Offered
from qemu_runner.user_network import Check, CheckStatus, Leak, Protocol, PublishedPort, Refused

__all__ = [
    "AddressError",
    "AddressOutsideError",
    "AddressPoolExhaustedError",
    "AddressTakenError",
    "AttachedTap",
    "Availability",
    "BridgeNetwork",
    "BridgeNetworkError",
    "BridgeNic",
    "BridgePortAddressError",
    "BridgePortError",
    "BridgePortTakenError",
    "BridgeUnavailableError",
    "Check",
    "CheckStatus",
    "DnsmasqError",
    "EngineRulesError",
    "HostRefusedError",
    "Leak",
    "LinkError",
    "NotAttachedError",
    "NotesError",
    "Offered",
    "Protocol",
    "PublishedPort",
    "Refused",
    "RulesetError",
    "netdev_arguments",
    "tap_name",
]
