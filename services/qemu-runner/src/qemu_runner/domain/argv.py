"""QEMU's argument list. Pure: nothing is opened, spawned or read here.

Every device has a fixed bus, address and id, and the machine type is versioned, so that a saved state
of one release loads in the next. Names that users chose never occur: ids are ours. Sockets are listening
descriptors that vm-host passes on, written as `{fd:NAME}`.

Source: qemu-system-x86_64(1); QAPI `BlockdevOptions`.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from qemu_runner.domain.arch import Arch
from qemu_runner.domain.extra_arguments import with_places
from qemu_runner.domain.machine import DiskFormat, Layer, MachineId

# The obsolete, privileged, forking and resource-controlling system calls end QEMU.
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

SPARE_PORTS: Final = 8
"""Root ports for what is plugged by QMP; NIC n goes into port n."""

AGENT_PORT_ID: Final = "agent0"
IDENTITY_PORT_ID: Final = "identity0"
AGENT_CHARDEV_ID: Final = "agent"
AGENT_PORT_NAME: Final = "org.qemu.guest_agent.0"
IDENTITY_PORT_NAME: Final = "org.qcontroller.identity.0"
BALLOON_PATH: Final = "/machine/peripheral/balloon0"
VMHOST_MONITOR_FD: Final = "vmhost-qmp"

_PORTS_SLOT: Final = 2  # 0x2.0 to 0x2.7: the eight root ports
_RNG_SLOT: Final = 3
_SERIAL_SLOT: Final = 4
_DISK_SLOT: Final = 5
_SEED_SLOT: Final = 6
_PANIC_SLOT: Final = 7
_BALLOON_SLOT: Final = 8


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that one start of a machine is made of.

    Attributes:
        machine_id: Also the SMBIOS UUID.
        arch: Row of the table of architectures.
        machine_type: Versioned, never an alias.
        accelerator: "kvm" or "tcg".
        cpu_model: QEMU's name of it.
        cpus: Virtual CPUs.
        memory_mib: Memory.
        directory: The machine's directory.
        layers: Disk, topmost first.
        seed: Name of the seed in the directory; empty: none.
        nic_netdevs: Values of `-netdev` options; the id of NIC n's is `net<n>`. Others are plugged by QMP.
        extra: The operator's own words, checked before, at the end.
    """

    machine_id: MachineId
    arch: Arch
    machine_type: str
    accelerator: str
    cpu_model: str
    cpus: int
    memory_mib: int
    directory: PurePosixPath
    layers: tuple[Layer, ...]
    seed: str = "seed.iso"
    nic_netdevs: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def build_argv(launch: Launch) -> tuple[str, ...]:
    """Return the argument list, program first, with `{fd:NAME}` for descriptors."""
    bus = launch.arch.root_bus
    return (
        launch.arch.program,
        *("-name", f"guest={launch.machine_id}", "-uuid", launch.machine_id),
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-S"),
        *("-sandbox", SANDBOX),
        *("-machine", f"{launch.machine_type},memory-backend=ram0"),
        *("-accel", "tcg,thread=multi" if launch.accelerator == "tcg" else launch.accelerator),
        *("-cpu", launch.cpu_model),
        *("-smp", f"cpus={launch.cpus},maxcpus={launch.cpus}"),
        *("-m", f"size={launch.memory_mib}M"),
        *("-object", f"memory-backend-ram,id=ram0,size={launch.memory_mib}M"),
        *("-rtc", "base=utc,clock=host", "-boot", "strict=on"),
        # A panic is told from a power-off by the exit code too, also while no runner listens.
        *("-action", "panic=exit-failure"),
        *_monitors(),
        *_root_ports(bus),
        *_always(bus),
        *_console(launch.directory),
        *_channels(bus),
        *_disk(launch, bus),
        *_seed(launch, bus),
        *(word for value in launch.nic_netdevs for word in ("-netdev", value)),
        *with_places(launch.extra, bus),
    )


def nic_device(index: int, mac: str, queues: int = 1) -> dict[str, object]:
    """Return the arguments of QMP `device_add` for NIC `index`, whose netdev is `net<index>`.

    Without a ROM: a boot from the network would only cost time, and a saved state would hold the ROM.
    """
    # Two vectors a queue, one for the configuration and one for the control queue.
    several = {"mq": True, "vectors": 2 * queues + 2} if queues > 1 else {}
    return {
        "driver": "virtio-net-pci",
        "id": f"nic{index}",
        "netdev": f"net{index}",
        "mac": mac,
        "bus": f"port{index}",
        "addr": "0",
        "romfile": "",
        **several,
    }


def argv_hash(argv: tuple[str, ...], directory: PurePosixPath) -> str:
    """Return a hash of what the guest's machine is made of: same hash, same machine.

    The machine's own id and directory are left out, so that clones compare equal.
    """
    machine_id = argv[argv.index("-uuid") + 1]
    normal = [word.replace(str(directory), "DIR").replace(machine_id, "ID") for word in argv]
    return hashlib.sha256("\0".join(normal).encode()).hexdigest()


def _escaped(path: PurePosixPath) -> str:
    # In QEMU's key=value options a comma ends the value unless it is doubled.
    return str(path).replace(",", ",,")


def _option(name: str, document: dict[str, object]) -> tuple[str, str]:
    return name, json.dumps(document, separators=(",", ":"))


def _monitors() -> tuple[str, ...]:
    return (
        *("-chardev", "socket,id=qmp,fd={fd:qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        # A monitor serves one client, so vm-host has one of its own, for the end.
        *(
            "-chardev",
            f"socket,id=vmhost,fd={{fd:{VMHOST_MONITOR_FD}}}",
            "-mon",
            "chardev=vmhost,mode=control",
        ),
    )


def _root_ports(bus: str) -> tuple[str, ...]:
    words: list[str] = []
    for number in range(SPARE_PORTS):
        words += _option(
            "-device",
            {
                "driver": "pcie-root-port",
                "id": f"port{number}",
                "bus": bus,
                "addr": f"{_PORTS_SLOT}.{number}",
                "chassis": number + 1,
                "slot": number,
                "multifunction": number == 0,
            },
        )
    return tuple(words)


def _always(bus: str) -> tuple[str, ...]:
    return (
        *("-object", "rng-builtin,id=rng0"),
        *_option(
            "-device",
            {"driver": "virtio-rng-pci", "id": "rng0-dev", "rng": "rng0", "bus": bus, "addr": f"{_RNG_SLOT}"},
        ),
        # Another generation at every start: a restored guest learns that its random state is not its own.
        *_option("-device", {"driver": "vmgenid", "id": "genid0", "guid": "auto"}),
        *_option("-device", {"driver": "pvpanic-pci", "id": "panic0", "bus": bus, "addr": f"{_PANIC_SLOT}"}),
        # Never inflated: it is there for what the guest tells of its memory.
        *_option(
            "-device",
            {"driver": "virtio-balloon-pci", "id": "balloon0", "bus": bus, "addr": f"{_BALLOON_SLOT}"},
        ),
    )


def _console(directory: PurePosixPath) -> tuple[str, ...]:
    log = _escaped(directory / "console.log")
    return (
        *("-chardev", f"socket,id=console,fd={{fd:console}},server=on,wait=off,logfile={log},logappend=on"),
        *_option("-device", {"driver": "isa-serial", "id": "serial0", "chardev": "console", "index": 0}),
    )


def _channels(bus: str) -> tuple[str, ...]:
    words: list[str] = [
        *_option(
            "-device",
            {"driver": "virtio-serial-pci", "id": "vserial0", "bus": bus, "addr": f"{_SERIAL_SLOT}"},
        )
    ]
    channels = (
        (AGENT_CHARDEV_ID, AGENT_PORT_ID, AGENT_PORT_NAME),
        ("identity", IDENTITY_PORT_ID, IDENTITY_PORT_NAME),
    )
    for number, (chardev, port, name) in enumerate(channels, start=1):
        words += ("-chardev", f"socket,id={chardev},fd={{fd:{chardev}}},server=on,wait=off")
        # Without an id QEMU does not tell when the guest opens the port (VSERPORT_CHANGE).
        words += _option(
            "-device",
            {
                "driver": "virtserialport",
                "id": port,
                "bus": "vserial0.0",
                "nr": number,
                "chardev": chardev,
                "name": name,
            },
        )
    return tuple(words)


def _disk(launch: Launch, bus: str) -> tuple[str, ...]:
    words: list[str] = []
    below: str | None = None
    for depth, layer in reversed(list(enumerate(launch.layers))):
        writable = depth == 0
        file, node = f"disk0-file{depth}", f"disk0-layer{depth}"
        words += _option(
            "-blockdev",
            {
                "driver": "file",
                "node-name": file,
                "filename": str(launch.directory / layer.path),
                "read-only": not writable,
                "discard": "unmap",
            },
        )
        node_options: dict[str, object] = {
            "driver": layer.format.value,
            "node-name": node,
            "file": file,
            "read-only": not writable,
            "discard": "unmap",
        }
        if layer.format is DiskFormat.QCOW2:
            # Said in any case: what the file's own header names is never followed.
            node_options["backing"] = below
        words += _option("-blockdev", node_options)
        below = node
    words += _option(
        "-device",
        {
            "driver": "virtio-blk-pci",
            "id": "disk0",
            "drive": "disk0-layer0",
            "bus": bus,
            "addr": f"{_DISK_SLOT}",
            "bootindex": 0,
        },
    )
    return tuple(words)


def _seed(launch: Launch, bus: str) -> tuple[str, ...]:
    if not launch.seed:
        return ()
    return (
        *_option(
            "-blockdev",
            {
                "driver": "file",
                "node-name": "seed0-file",
                "filename": str(launch.directory / launch.seed),
                "read-only": True,
            },
        ),
        *_option(
            "-blockdev", {"driver": "raw", "node-name": "seed0", "file": "seed0-file", "read-only": True}
        ),
        # virtio, since Debian's cloud kernel has no AHCI: an IDE CD-ROM is invisible to it.
        *_option(
            "-device",
            {
                "driver": "virtio-blk-pci",
                "id": "seed0-dev",
                "drive": "seed0",
                "bus": bus,
                "addr": f"{_SEED_SLOT}",
            },
        ),
    )
