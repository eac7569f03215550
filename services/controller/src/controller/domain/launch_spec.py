"""What a launch may ask for: every fault found at once, defaults filled in.

It never asks another service: what only the image or the node can tell is checked by `launching`.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller.domain.fault import Fault
from controller.domain.first_boot import FirstBoot, first_boot_faults
from controller.domain.image_source import is_url, shown_image
from controller.domain.instance import MIB
from controller.domain.machine import BRIDGE_PREFIX, Port, publishing_nic
from controller.domain.policy import PolicyWish
from controller.domain.probe import NEED_A_NIC, probe_faults
from controller.domain.readiness import Readiness

MAX_CPUS: Final = 256
MIN_MEMORY_MIB: Final = 64
MAX_MEMORY_MIB: Final = 4 * 1024 * 1024
MAX_DISK_MIB: Final = 64 * 1024 * 1024
MAX_NICS: Final = 8
MAX_PORTS: Final = 64
MAX_LABELS: Final = 64
DEFAULT_MEMORY_MIB: Final = 1024

NOTHING_PUBLISHES: Final = "no NIC is on a network that publishes ports (qc0, user)"

NETWORKS: Final = ("default", "qc0", "user", "none")
ARCHES: Final = ("x86_64", "aarch64")

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
# What the kernel takes as a name (dev_valid_name), in printable ASCII.
_BRIDGE: Final = re.compile(r"bridge:(?!\.{1,2}$)[!-.0-9;-~]{1,15}")
_LABEL_VALUE_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class NicWish:
    """A NIC as it was asked for; empty members mean the default."""

    network: str = ""
    mac: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchWish:
    """A launch as it was asked for.

    Attributes:
        memory_mib: None: it could not be read, which is a fault already.
        disk_mib: 0: the image's own size. None as above.
        readiness: None as above.
        user_data: Secret, as is network_config.
        remarks: What whoever asks should know of the user-data.
    """

    name: str
    image: str
    image_digest: str = ""
    cpus: int = 1
    memory_mib: int | None = DEFAULT_MEMORY_MIB
    disk_mib: int | None = 0
    user_data: bytes = b""
    network_config: str = ""
    first_boot: FirstBoot = field(default_factory=FirstBoot)
    remarks: tuple[str, ...] = ()
    start: bool = False
    labels: Mapping[str, str]
    readiness: Readiness | None
    nics: tuple[NicWish, ...] = ()
    ports: tuple[Port, ...] = ()
    arch: str = ""
    policies: PolicyWish = field(default_factory=PolicyWish)

    def __repr__(self) -> str:
        """Show nothing that may be secret."""
        return f"LaunchWish(name={self.name!r}, image={shown_image(self.image)!r})"

    @property
    def wanted_nics(self) -> tuple[NicWish, ...]:
        """The NICs to make: one on the default network unless given; "none" is none."""
        if not self.nics:
            return (NicWish("default"),)
        return tuple(nic for nic in self.nics if nic.network != "none")


def faults_of(wish: LaunchWish) -> list[Fault]:
    """Return everything that is wrong with `wish` by itself."""
    return [
        *_identity(wish),
        *cpus_faults(wish.cpus),
        *([] if wish.memory_mib is None else memory_faults(wish.memory_mib)),
        *([] if not wish.disk_mib else disk_faults(wish.disk_mib, 0)),
        *label_faults(wish.labels),
        *first_boot_faults(wish.first_boot),
        *_nics(wish),
        *port_faults(wish.ports),
        *_ports_have_a_nic(wish),
        *_readiness(wish),
    ]


def name_faults(name: str) -> list[Fault]:
    """Return what is wrong with a name."""
    if _NAME.fullmatch(name) is not None:
        return []
    return [Fault("/name", "must be a DNS label: 1 to 63 of a-z, 0-9 and '-', not at either end '-'")]


def cpus_faults(cpus: int) -> list[Fault]:
    """Return what is wrong with a number of CPUs."""
    return [] if 1 <= cpus <= MAX_CPUS else [Fault("/vm/cpus", f"must be 1 to {MAX_CPUS}")]


def memory_faults(memory_mib: int) -> list[Fault]:
    """Return what is wrong with a size of memory."""
    if MIN_MEMORY_MIB <= memory_mib <= MAX_MEMORY_MIB:
        return []
    return [Fault("/vm/memory", f"must be {MIN_MEMORY_MIB} MiB to {MAX_MEMORY_MIB // MIB} TiB")]


def disk_faults(disk_mib: int, least_bytes: int) -> list[Fault]:
    """Return what is wrong with a size of the disk that must hold `least_bytes`."""
    if disk_mib > MAX_DISK_MIB:
        return [Fault("/vm/disk", f"must be at most {MAX_DISK_MIB // MIB} TiB")]
    if disk_mib * MIB < least_bytes:
        return [Fault("/vm/disk", f"must be at least {-(-least_bytes // MIB)} MiB: a disk does not shrink")]
    return []


def label_faults(labels: Mapping[str, str]) -> list[Fault]:
    """Return what is wrong with labels."""
    faults = [] if len(labels) <= MAX_LABELS else [Fault("/labels", f"must be at most {MAX_LABELS}")]
    for key, value in sorted(labels.items()):
        pointer = f"/labels/{key.replace('~', '~0').replace('/', '~1')}"
        if _LABEL_KEY.fullmatch(key) is None:
            faults.append(Fault(pointer, "a key has letters, digits, '.', '_', '/' and '-', at most 128"))
        if len(value) > _LABEL_VALUE_CHARACTERS:
            faults.append(Fault(pointer, f"a value has at most {_LABEL_VALUE_CHARACTERS} characters"))
    return faults


def port_faults(ports: Sequence[Port]) -> list[Fault]:
    """Return what is wrong with published ports."""
    faults = [] if len(ports) <= MAX_PORTS else [Fault("/ports", f"must be at most {MAX_PORTS}")]
    seen: set[tuple[str, str, int]] = set()
    for index, port in enumerate(ports):
        at = f"/ports/{index}"
        faults += [
            Fault(f"{at}/{name}", "must be 1 to 65535")
            for name, number in (("host", port.host), ("guest", port.guest))
            if not 1 <= number <= 65535
        ]
        if port.protocol not in {"tcp", "udp"}:
            faults.append(Fault(f"{at}/protocol", 'must be "tcp" or "udp"'))
        if not _is_address(port.address):
            faults.append(Fault(f"{at}/address", "must be an IP address of the host"))
        key = (port.address, port.protocol, port.host)
        if key in seen:
            faults.append(Fault(f"{at}/host", "is published twice"))
        seen.add(key)
    return faults


def source_faults(wish: LaunchWish) -> list[Fault]:
    """Return what is wrong with where the image comes from."""
    faults = []
    if is_url(wish.image) and not wish.image.lower().startswith(("http://", "https://")):
        faults.append(Fault("/image", "must be a name, or a URL that begins with http:// or https://"))
    if is_url(wish.image) and not wish.image_digest:
        faults.append(Fault("/imageDigest", "is required with a URL: the digest of the file that it serves"))
    if wish.image_digest and _DIGEST.fullmatch(wish.image_digest) is None:
        faults.append(Fault("/imageDigest", 'must be "sha256:" and 64 lower-case hex digits'))
    return faults


def _identity(wish: LaunchWish) -> Iterator[Fault]:
    yield from name_faults(wish.name)
    if not wish.image:
        yield Fault("/image", "is required")
    yield from source_faults(wish)
    if wish.arch and wish.arch not in ARCHES:
        yield Fault("/arch", f"must be one of {', '.join(ARCHES)}")


def _nics(wish: LaunchWish) -> Iterator[Fault]:
    if len(wish.nics) > MAX_NICS:
        yield Fault("/nics", f"must be at most {MAX_NICS}")
    macs: set[str] = set()
    addresses: set[str] = set()
    for index, nic in enumerate(wish.nics):
        at = f"/nics/{index}"
        if nic.network.startswith(BRIDGE_PREFIX):
            if _BRIDGE.fullmatch(nic.network) is None:
                yield Fault(f"{at}/network", "must name an interface after the colon, 15 characters at most")
        elif nic.network and nic.network not in NETWORKS:
            yield Fault(f"{at}/network", f"must be one of {', '.join(NETWORKS)}, bridge:<ifname>")
        elif nic.network == "none" and (len(wish.nics) > 1 or nic.mac or nic.address):
            yield Fault(f"{at}/network", '"none" stands alone')
        if nic.mac:
            if (fault := _mac_fault(nic.mac)) is not None:
                yield Fault(f"{at}/mac", fault)
            elif nic.mac.lower() in macs:
                yield Fault(f"{at}/mac", "is given twice")
            macs.add(nic.mac.lower())
        if nic.address:
            if (fault := _address_fault(nic)) is not None:
                yield Fault(f"{at}/address", fault)
            elif nic.address in addresses:
                yield Fault(f"{at}/address", "is given twice")
            addresses.add(nic.address)


def _mac_fault(mac: str) -> str | None:
    if _MAC.fullmatch(mac.lower()) is None:
        return "must be six bytes such as 52:54:00:12:34:56"
    # IEEE 802: the lowest bit of the first byte marks a group address.
    if int(mac[:2], 16) & 1 or set(mac) <= {"0", ":"}:
        return "must be a unicast address"
    return None


def _address_fault(nic: NicWish) -> str | None:
    """Return what is wrong with a static address; whether it is free only the node knows."""
    if nic.network.startswith(BRIDGE_PREFIX):
        return "cannot be given here: whoever serves that bridge gives its addresses"
    if nic.network == "user":
        return "cannot be given here: a guest of the user network has the address that its runner plans"
    try:
        ipaddress.IPv4Address(nic.address)
    except ValueError:
        return "must be an IPv4 address"
    return None


def _ports_have_a_nic(wish: LaunchWish) -> Iterator[Fault]:
    if wish.ports and publishing_nic([nic.network for nic in wish.wanted_nics]) is None:
        yield Fault("/ports", NOTHING_PUBLISHES)


def _readiness(wish: LaunchWish) -> Iterator[Fault]:
    probes = () if wish.readiness is None else wish.readiness.probes
    yield from probe_faults(probes)
    if not wish.wanted_nics:
        for index, probe in enumerate(probes):
            if probe.kind in NEED_A_NIC:
                yield Fault(
                    f"/readiness/all/{index}/{probe.kind}", "needs a network card; the instance has none"
                )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
