"""Which accelerator a machine gets."""

import pytest
from qemu_runner.domain.accelerator import AcceleratorMode, AcceleratorState, choose

TCG = AcceleratorState("tcg", usable=True, reason="")
KVM = AcceleratorState("kvm", usable=True, reason="")
NO_KVM = AcceleratorState("kvm", usable=False, reason="CPU flags show neither vmx nor svm")


@pytest.mark.parametrize(
    ("mode", "offers", "chosen"),
    [
        (AcceleratorMode.AUTO, (KVM, TCG), "kvm"),
        (AcceleratorMode.AUTO, (NO_KVM, TCG), "tcg"),
        (AcceleratorMode.AUTO, (TCG,), "tcg"),
        (AcceleratorMode.TCG, (KVM, TCG), "tcg"),
        (AcceleratorMode.KVM, (KVM, TCG), "kvm"),
    ],
)
def test_the_setting_and_the_host_decide(
    mode: AcceleratorMode, offers: tuple[AcceleratorState, ...], chosen: str
) -> None:
    assert choose(mode, offers) == chosen


def test_kvm_that_is_demanded_and_not_usable_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="neither vmx nor svm"):
        choose(AcceleratorMode.KVM, (NO_KVM, TCG))
