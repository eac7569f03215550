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


def choose_hardware(
    hello: VmHostHello, arch: Arch, mode: AcceleratorMode, machine_type: str = ""
) -> Hardware:
    """Return what a machine of `arch` is started as.

    Args:
        hello: Of the vm-host that starts it.
        arch: Its architecture.
        mode: The accelerator's setting.
        machine_type: The one that it had before: a guest keeps its hardware under a newer QEMU, for as long
            as that still has it. Empty: the newest.

    Raises:
        QemuUnavailableError: There is no usable QEMU, firmware, machine type or accelerator.
    """
    offer = find_offer(hello, arch)
    if offer is None:
        raise QemuUnavailableError(
            f"vm-host may not start {arch.program}: its allowedPrograms do not name it"
        )
    if offer.error:
        raise QemuUnavailableError(f"{offer.error}; Debian's package {arch.package} holds {arch.program}")
    if offer.missing_firmware:
        files = ", ".join(offer.missing_firmware)
        raise QemuUnavailableError(
            f"{arch.program} {offer.version} does not find its firmware ({files}); "
            f"Debian's package {arch.firmware_package} holds it"
        )
    newest = offer.machine_aliases.get(arch.machine_alias)
    if newest is None:
        raise QemuUnavailableError(f"{arch.program} {offer.version} has no machine {arch.machine_alias}")
    try:
        accelerator = choose(mode, accelerator_states(offer))
    except ValueError as exc:
        raise QemuUnavailableError(str(exc)) from exc
    cpu = arch.cpu_kvm if accelerator == KVM else arch.cpu_tcg
    kept = machine_type if machine_type in offer.machine_types else newest
    return Hardware(kept, accelerator, cpu, offer.version)
