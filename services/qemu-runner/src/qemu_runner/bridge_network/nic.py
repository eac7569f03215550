"""What a machine's card on the bridge is, and what attaching it gives. Values; descriptors are only carried.

Names of interfaces are made here and never come from users: the kernel takes 15 characters at most.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, Self

from qemu_runner.user_network import PublishedPort

_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


@dataclass(frozen=True, slots=True)
class BridgeNic:
    """One card of one machine on the bridge.

    Attributes:
        machine_id: The machine's id.
        name: The instance's name, a DNS label; `<name>.qc.internal` resolves to the address.
        mac: Hardware address, lower case, with colons.
        address: The address that was reserved for it.
        ports: What is published to it.
        index: Number of the card among its machine's cards on the bridge. The name and the ports
            belong to number 0.

    Raises:
        ValueError: If the id, the name, the MAC or the index is malformed.
    """

    machine_id: str
    name: str
    mac: str
    address: IPv4Address
    ports: tuple[PublishedPort, ...] = ()
    index: int = 0

    def __post_init__(self) -> None:
        for what, pattern, text in (
            ("machine id", _ID, self.machine_id),
            ("name", _LABEL, self.name),
            ("MAC", _MAC, self.mac),
        ):
            if not pattern.fullmatch(text):
                raise ValueError(f"{text!r} is not a {what}")
        if not 0 <= self.index <= 9:
            raise ValueError(f"card {self.index} is not one of ten")
        if self.index and self.ports:
            raise ValueError("ports are published to a machine's card 0")


@dataclass(frozen=True, slots=True)
class AttachedTap:
    """A tap that is up on the bridge, as descriptors for QEMU. It vanishes when the last copy is closed.

    Leaving it as a context manager closes this process's copies; do that as soon as they were passed on.

    Attributes:
        interface: Name of the tap on the host.
        taps: Descriptors of its queues; opened with IFF_NO_PI and IFF_VNET_HDR.
        vhosts: One descriptor of /dev/vhost-net for each queue; empty where the host has none.
    """

    interface: str
    taps: tuple[int, ...] = field(repr=False)
    vhosts: tuple[int, ...] = field(default=(), repr=False)

    def close(self) -> None:
        """Close this process's copies."""
        for fd in (*self.taps, *self.vhosts):
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def owner_tag(owner: str) -> str:
    """Give eight hex digits that stand for an owner in names on the host."""
    return hashlib.sha256(owner.encode()).hexdigest()[:8]


def tap_name(owner: str, machine_id: str, index: int) -> str:
    """Give the name of a card's tap; the same card always has the same one."""
    digest = hashlib.sha256(f"{owner}\0{machine_id}".encode()).hexdigest()
    return f"qc{digest[:10]}-{index}"


def netdev_arguments(
    netdev_id: str, tap: AttachedTap, tap_fds: str, vhost_fds: str = ""
) -> dict[str, object]:
    """Give the arguments of QMP `netdev_add` for a tap.

    Args:
        netdev_id: Id of the new netdev.
        tap: What was attached; its own numbers count in this process only.
        tap_fds: The queues' descriptors as QEMU knows them, in order, joined by colons: numbers it
            inherited or names given by `getfd`.
        vhost_fds: Likewise those of /dev/vhost-net; needed if `tap` has any.

    Source: QAPI `NetdevTapOptions`.
    """
    arguments: dict[str, object] = {"type": "tap", "id": netdev_id, "fds": tap_fds}
    if len(tap.taps) == 1:
        arguments = {"type": "tap", "id": netdev_id, "fd": tap_fds}
    if tap.vhosts:
        arguments |= {"vhost": True, "vhostfd" if len(tap.vhosts) == 1 else "vhostfds": vhost_fds}
    return arguments
