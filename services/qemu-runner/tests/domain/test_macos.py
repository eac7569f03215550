"""The argument list for macOS: what differs from Linux's, and that Linux never gets it."""

import itertools
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import PurePosixPath

import pytest
from qemu_runner.domain.accelerator import AcceleratorMode, AcceleratorState, choose
from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.argv import Launch, build_argv
from qemu_runner.domain.machine import DiskFormat, Layer, MachineId
from qemu_runner.domain.macos import SharedNetwork, build_macos_argv, vmnet_netdev

FIRMWARE = "/opt/homebrew/share/qemu/edk2-aarch64-code.fd"
LAUNCH = Launch(
    machine_id=MachineId("7d0c2f1e-0000-4000-8000-000000000001"),
    arch=ARCHES["aarch64"],
    machine_type="virt-9.2",
    accelerator="tcg",
    cpu_model="max",
    cpus=2,
    memory_mib=512,
    directory=PurePosixPath("/state/machines/m"),
    layers=(Layer("overlay.qcow2", DiskFormat.QCOW2),),
)


def options(argv: tuple[str, ...], name: str) -> list[str]:
    return [value for option, value in itertools.pairwise(argv) if option == name]


def test_hvf_runs_the_hosts_own_cpu() -> None:
    argv = build_macos_argv(LAUNCH, ())
    assert (options(argv, "-accel"), options(argv, "-cpu")) == (["hvf"], ["host"])


def test_there_is_no_sandbox_where_there_is_no_seccomp() -> None:
    assert "-sandbox" not in build_macos_argv(LAUNCH, ())


def test_all_else_is_as_on_linux() -> None:
    linux = replace(LAUNCH, accelerator="hvf", cpu_model="host", nic_netdevs=("vmnet-shared,id=net0",))
    words = build_argv(linux)
    where = words.index("-sandbox")
    assert build_macos_argv(LAUNCH, (SharedNetwork(),)) == words[:where] + words[where + 2 :]


def test_each_card_has_a_shared_network() -> None:
    argv = build_macos_argv(LAUNCH, (SharedNetwork(), SharedNetwork(isolated=True)))
    assert options(argv, "-netdev") == ["vmnet-shared,id=net0", "vmnet-shared,id=net1,isolated=on"]


def test_a_subnet_is_given_as_range_and_mask() -> None:
    assert vmnet_netdev(0, SharedNetwork(IPv4Network("192.168.77.0/24"))) == (
        "vmnet-shared,id=net0,start-address=192.168.77.1,end-address=192.168.77.254,subnet-mask=255.255.255.0"
    )


@pytest.mark.parametrize(("subnet", "said"), [("8.8.8.0/24", "not private"), ("10.0.0.0/30", "too small")])
def test_a_subnet_that_cannot_be_one_is_refused(subnet: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        vmnet_netdev(0, SharedNetwork(IPv4Network(subnet)))


def test_the_firmware_is_where_homebrew_has_it() -> None:
    argv = build_macos_argv(LAUNCH, (), FIRMWARE)
    assert any(FIRMWARE in value for value in options(argv, "-blockdev"))
    assert not any("/AAVMF/" in word for word in argv)


def test_the_bios_of_x86_64_needs_no_path() -> None:
    launch = replace(LAUNCH, arch=ARCHES["x86_64"], machine_type="pc-q35-9.2")
    assert build_macos_argv(launch, (), FIRMWARE) == build_macos_argv(launch, ())


@pytest.mark.parametrize("mode", list(AcceleratorMode))
def test_hvf_is_never_chosen_even_if_it_were_offered(mode: AcceleratorMode) -> None:
    offers = tuple(AcceleratorState(name, usable=True, reason="") for name in ("hvf", "kvm", "tcg"))
    assert choose(mode, offers) != "hvf"
