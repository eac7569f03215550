"""What differs between guest architectures: program, machine family, firmware, console, CPU models.

A table. Source: qemu-system-x86_64(1), qemu-system-aarch64(1); Documentation "Arm virt board" of QEMU.
"""

from dataclasses import dataclass
from typing import Final

VARIABLES_BYTES: Final = 64 * 2**20
"""Size of a flash of the virt board, and so of a machine's own firmware variables."""


@dataclass(frozen=True, slots=True)
class Arch:
    """One guest architecture.

    Attributes:
        name: As in the API.
        program: QEMU's program for it.
        package: Debian's package that holds the program.
        machine_alias: Alias whose versioned machine type new machines get.
        cpu_tcg: CPU model under emulation.
        cpu_kvm: CPU model under KVM.
        root_bus: Name of the PCIe root bus.
        machine_options: Of `-machine`, after its type.
        serial_device: Driver of the serial port; empty: the board has one.
        serial_tty: What the guest's Linux calls that port.
        generation_id: Whether QEMU has vmgenid for it.
        firmware: Path of the UEFI image where vm-host runs; empty: QEMU finds its own.
        firmware_package: Debian's package that holds what the guest begins with.
    """

    name: str
    program: str
    package: str
    machine_alias: str
    cpu_tcg: str
    cpu_kvm: str
    root_bus: str
    firmware_package: str
    serial_tty: str
    machine_options: str = ""
    serial_device: str = ""
    generation_id: bool = False
    firmware: str = ""


ARCHES: Final = {
    arch.name: arch
    for arch in (
        Arch(
            name="x86_64",
            program="qemu-system-x86_64",
            package="qemu-system-x86",
            machine_alias="q35",
            # `host` is refused under TCG; `max` is everything that the emulator knows.
            cpu_tcg="max",
            cpu_kvm="host",
            root_bus="pcie.0",
            firmware_package="seabios",
            serial_tty="/dev/ttyS0",
            serial_device="isa-serial",
            generation_id=True,
        ),
        Arch(
            name="aarch64",
            program="qemu-system-aarch64",
            package="qemu-system-arm",
            machine_alias="virt",
            # The architecture's own algorithm of pointer authentication is slow to emulate.
            cpu_tcg="max,pauth-impdef=on",
            cpu_kvm="host",
            root_bus="pcie.0",
            firmware_package="qemu-efi-aarch64",
            serial_tty="/dev/ttyAMA0",
            # The newest interrupt controller there is: the oldest has room for eight CPUs.
            machine_options="gic-version=max",
            firmware="/usr/share/AAVMF/AAVMF_CODE.fd",
        ),
    )
}
