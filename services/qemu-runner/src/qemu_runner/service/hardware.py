"""Which QEMU, machine type and accelerator a new machine gets, from what vm-host offers."""

from dataclasses import dataclass

from qemu_runner.domain.accelerator import KVM, AcceleratorMode, AcceleratorState, choose
from qemu_runner.domain.arch import Arch
from qemu_runner.errors import QemuUnavailableError
from qemu_runner.ports import QemuOffer, VmHostHello


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is started as."""

    machine_type: str
    accelerator: str
    cpu_model: str
    qemu_version: str


def find_offer(hello: VmHostHello, arch: Arch) -> QemuOffer | None:
    """Return what vm-host offers for an architecture."""
    return next((offer for offer in hello.qemu if offer.arch == arch.name), None)


def accelerator_states(offer: QemuOffer) -> tuple[AcceleratorState, ...]:
    """Return the accelerators of an offer as the domain knows them."""
    return tuple(AcceleratorState(a.name, a.usable, a.reason) for a in offer.accelerators)


def choose_hardware(hello: VmHostHello, arch: Arch, mode: AcceleratorMode) -> Hardware:
    """Return what a new machine of `arch` is started as.

    Raises:
        QemuUnavailableError: There is no usable QEMU, firmware, machine type or accelerator.
    """
    offer = find_offer(hello, arch)
    if offer is None:
        raise QemuUnavailableError(f"vm-host may not start {arch.program}")
    if offer.error:
        raise QemuUnavailableError(offer.error)
    if offer.missing_firmware:
        files = ", ".join(offer.missing_firmware)
        raise QemuUnavailableError(f"{arch.program} {offer.version} does not find its firmware ({files})")
    machine_type = offer.machine_aliases.get(arch.machine_alias)
    if machine_type is None:
        raise QemuUnavailableError(f"{arch.program} {offer.version} has no machine {arch.machine_alias}")
    try:
        accelerator = choose(mode, accelerator_states(offer))
    except ValueError as exc:
        raise QemuUnavailableError(str(exc)) from exc
    cpu = arch.cpu_kvm if accelerator == KVM else arch.cpu_tcg
    return Hardware(machine_type, accelerator, cpu, offer.version)
