"""Sets IPv4 switches of one interface by netlink, which works where /proc/sys is read-only.

pyroute2 writes these switches as the kernel reports them, a flat array, while the kernel wants them as
nested attributes.

Source: Linux `include/uapi/linux/ip.h` (IPV4_DEVCONF_*), `net/ipv4/devinet.c`, `inet_set_link_af`.
"""

import socket
import struct
from enum import IntEnum
from typing import Final

from qemu_runner.bridge_network.adapters.rtnetlink import NESTED, RTM_SETLINK, attribute, change

_IFLA_AF_SPEC: Final = 26
_IFLA_INET_CONF: Final = 1


class Switch(IntEnum):
    """The switches that are used here, by the kernel's number."""

    FORWARDING = 1
    ROUTE_LOCALNET = 26


def set_switch(interface_index: int, switch: Switch, value: int) -> None:
    """Set a switch of an interface. Blocks for the kernel's answer.

    Raises:
        OSError: If the kernel refused.
    """
    setting = attribute(switch, struct.pack("=I", value))
    family = attribute(socket.AF_INET | NESTED, attribute(_IFLA_INET_CONF | NESTED, setting))
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, interface_index, 0, 0)
    change(RTM_SETLINK, body + attribute(_IFLA_AF_SPEC | NESTED, family))
