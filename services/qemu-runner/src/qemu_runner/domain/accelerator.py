"""Which accelerator a machine gets, and why. Pure; whether KVM is usable was found out by vm-host.

vm-host calls KVM usable if its device opens for reading and writing, answers API version 12 and, on
x86, the CPU shows vmx or svm: a device that opens may still be unable to run a guest.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

KVM: Final = "kvm"
TCG: Final = "tcg"

SPEED_FACTORS: Final = {KVM: 1.0, TCG: 0.11}
"""Speed relative to hardware virtualisation on one host; TCG's is the ratio of boots of one Debian guest."""


class AcceleratorMode(StrEnum):
    """The runner's setting."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class AcceleratorState:
    """One accelerator as vm-host found it."""

    name: str
    usable: bool
    reason: str


def choose(mode: AcceleratorMode, offers: tuple[AcceleratorState, ...]) -> str:
    """Return the accelerator of new machines.

    Raises:
        ValueError: The setting demands one that is not usable; the message says why it is not.
    """
    by_name = {offer.name: offer for offer in offers}
    kvm = by_name.get(KVM, AcceleratorState(KVM, usable=False, reason="this QEMU has no KVM"))
    match mode:
        case AcceleratorMode.TCG:
            return TCG
        case AcceleratorMode.KVM:
            if not kvm.usable:
                raise ValueError(f"the setting demands KVM, which is not usable: {kvm.reason}")
            return KVM
        case AcceleratorMode.AUTO:
            return KVM if kvm.usable else TCG
