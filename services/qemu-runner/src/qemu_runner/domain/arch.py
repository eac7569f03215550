"""What differs between guest architectures: program, machine family, console, CPU models.

A table. An architecture that is laid out but not built is in it with `built=False`, so that the
refusal can say so.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Arch:
    """One guest architecture.

    Attributes:
        name: As in the API.
        program: QEMU's program for it.
        machine_alias: Alias whose versioned machine type new machines get.
        cpu_tcg: CPU model under emulation.
        cpu_kvm: CPU model under KVM.
        root_bus: Name of the PCIe root bus.
        built: Whether this release can launch it.
    """

    name: str
    program: str
    machine_alias: str
    cpu_tcg: str
    cpu_kvm: str
    root_bus: str
    built: bool


ARCHES: Final = {
    arch.name: arch
    for arch in (
        # `host` is refused under TCG; `max` is everything that the emulator knows.
        Arch("x86_64", "qemu-system-x86_64", "q35", "max", "host", "pcie.0", built=True),
        # Needs UEFI firmware with a variable store per machine.
        Arch("aarch64", "qemu-system-aarch64", "virt", "max", "host", "pcie.0", built=False),
    )
}
