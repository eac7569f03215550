"""QEMU without its firmware: refused at launch with its name, and told by the doctor."""

from dataclasses import replace

import pytest
from qemu_runner.domain.accelerator import AcceleratorMode
from qemu_runner.domain.arch import ARCHES
from qemu_runner.errors import QemuUnavailableError
from qemu_runner.ports import QemuOffer, VmHostHello
from qemu_runner.service.doctor import firmware_check
from qemu_runner.service.hardware import choose_hardware
from qemu_runner.user_network import CheckStatus
from vm_host_fake import OFFER

WITHOUT = replace(OFFER, missing_firmware=("bios-256k.bin",))


def hello(offer: QemuOffer) -> VmHostHello:
    return VmHostHello(
        "test", "start", "boot", 1, root=True, bounding_set_empty=True, stopping=False, qemu=(offer,)
    )


def test_a_launch_without_firmware_is_refused_with_the_files_name() -> None:
    with pytest.raises(QemuUnavailableError, match=r"bios-256k\.bin"):
        choose_hardware(hello(WITHOUT), ARCHES["x86_64"], AcceleratorMode.AUTO)


@pytest.mark.parametrize(
    ("offer", "told"),
    [
        (replace(OFFER, arch="aarch64", error="qemu-system-aarch64 is not installed"), "qemu-system-arm"),
        (replace(OFFER, arch="aarch64", missing_firmware=("CODE.fd",)), "qemu-efi-aarch64"),
        (OFFER, "allowedPrograms"),
    ],
    ids=["emulator", "firmware", "not allowed"],
)
def test_a_foreign_architecture_is_refused_with_what_to_do(offer: QemuOffer, told: str) -> None:
    with pytest.raises(QemuUnavailableError, match=told):
        choose_hardware(hello(offer), ARCHES["aarch64"], AcceleratorMode.AUTO)


@pytest.mark.parametrize(
    ("offer", "status"),
    [
        (OFFER, CheckStatus.PASS),
        (WITHOUT, CheckStatus.FAIL),
        (replace(OFFER, error="qemu-system-x86_64 is not installed"), CheckStatus.FAIL),
        (None, CheckStatus.FAIL),
    ],
)
def test_the_doctor_tells_of_firmware_and_what_to_do(offer: QemuOffer | None, status: CheckStatus) -> None:
    check = firmware_check(offer)
    assert check.status is status
    assert bool(check.fix) is (status is not CheckStatus.PASS)
