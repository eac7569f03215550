"""What a machine is asked to be: ids, spec, NICs, disks. Values only.

It never holds user-data: that is written to the seed and forgotten, since it may hold passwords.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

from qemu_runner.domain.probe import Probe

MachineId = NewType("MachineId", str)
"""The instance's id: a UUID in lower case with hyphens. The only name of a machine that becomes a path."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")

USER_NETWORK: Final = "user"
DEFAULT_NETWORK: Final = "default"
NAT_NETWORK: Final = "qc0"
"""The runner's own bridge; its name as a network, whatever the interface is called on this host."""
BRIDGE_PREFIX: Final = "bridge:"
"""Before the name of an existing bridge, which somebody else serves."""


def parse_machine_id(text: str) -> MachineId:
    """Return `text` as an id.

    Raises:
        ValueError: It is no UUID in its canonical form.
    """
    if not _UUID.fullmatch(text):
        raise ValueError(f"{text!r} is not a UUID in lower case with hyphens")
    return MachineId(text)


def is_digest(text: str) -> bool:
    """Tell whether `text` is "sha256:" and 64 hex digits in lower case."""
    return _DIGEST.fullmatch(text) is not None


class DiskFormat(StrEnum):
    """Formats of images and layers; QEMU is always told, never left to guess."""

    QCOW2 = "qcow2"
    RAW = "raw"


class MachinePhase(StrEnum):
    """What the runner knows of a machine's process and files."""

    ABSENT = "ABSENT"
    PREPARING = "PREPARING"
    PREPARED = "PREPARED"
    ACTIVE = "ACTIVE"
    EXITED = "EXITED"


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A published port as the API writes it; an empty address is 127.0.0.1."""

    host: int
    guest: int
    protocol: str = "tcp"
    address: str = ""


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card.

    Attributes:
        network: What it is on.
        mac: Its own.
        ports: Published ones.
        address: Static; empty: the runner chooses.
        planned: What a plan set aside for it: the one to choose, unless another machine has it since.
    """

    network: str
    mac: str
    ports: tuple[PortMapping, ...] = ()
    address: str = ""
    planned: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """The base image by content."""

    stored_digest: str
    format: DiskFormat
    virtual_size_bytes: int

    @property
    def sha256(self) -> str:
        """The digest's hex digits."""
        return self.stored_digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Seed:
    """NoCloud files. Never logged, never stored beside machine.json.

    Attributes:
        network_config: Empty: DHCP on every card.
        public_keys: Lines for the default user's authorized_keys.
        keep: The machine's seed stays as it is; only where it has none is one made of the rest.
    """

    user_data: bytes = field(default=b"", repr=False)
    network_config: bytes = field(default=b"", repr=False)
    hostname: str = ""
    instance_id: str = ""
    keep: bool = False
    vendor_data: bytes = field(default=b"", repr=False)
    public_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a machine is asked to be.

    Attributes:
        name: The instance's name, for people; never a path or an id on the host.
        arch: "x86_64" or "aarch64".
        cpus: Virtual CPUs.
        memory_mib: Memory.
        disk_bytes: Size of the disk that the guest sees, at least the image's.
        image: What the disk begins with.
        nics: Network cards in the guest's order.
        cluster_id: Which controller's database.
        instance_record: Opaque to the runner: what that controller needs to rebuild its row.
        probes: What must hold in the guest before the machine is ready.
    """

    name: str
    arch: str
    cpus: int
    memory_mib: int
    disk_bytes: int
    image: Image
    nics: tuple[Nic, ...] = ()
    cluster_id: str = ""
    instance_record: str = ""
    probes: tuple[Probe, ...] = ()

    @property
    def ports(self) -> tuple[PortMapping, ...]:
        """Published ports of all NICs."""
        return tuple(port for nic in self.nics for port in nic.ports)

    @property
    def nat_nics(self) -> tuple[Nic, ...]:
        """The NICs on the runner's own bridge."""
        return tuple(nic for nic in self.nics if nic.network == NAT_NETWORK)

    @property
    def user_nic(self) -> Nic | None:
        """The NIC on the user network, if there is one."""
        return next((nic for nic in self.nics if nic.network == USER_NETWORK), None)


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of the disk, the topmost first.

    Attributes:
        path: Name in the machine's directory.
        format: Its format.
        digest: Digest of a read-only layer; empty for the one that the guest writes to.
    """

    path: str
    format: DiskFormat
    digest: str = ""
