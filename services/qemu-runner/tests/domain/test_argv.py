"""QEMU's argument list: what it holds whatever the machine, and what it never holds."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.argv import SANDBOX, Launch, argv_hash, build_argv, nic_device
from qemu_runner.domain.machine import DiskFormat, Layer, MachineId

ID = MachineId("7d0c2f1e-0000-4000-8000-000000000001")
LAUNCH = Launch(
    machine_id=ID,
    arch=ARCHES["x86_64"],
    machine_type="pc-q35-7.2",
    accelerator="tcg",
    cpu_model="max",
    cpus=2,
    memory_mib=512,
    directory=PurePosixPath("/state/machines") / ID,
    layers=(Layer("overlay.qcow2", DiskFormat.QCOW2), Layer("base", DiskFormat.RAW, "sha256:" + "0" * 64)),
    nic_netdevs=("stream,id=net0,server=off,addr.type=fd,addr.str={fd:net0}",),
)


def options(argv: tuple[str, ...], name: str) -> list[str]:
    return [value for option, value in itertools.pairwise(argv) if option == name]


def documents(argv: tuple[str, ...], name: str) -> list[dict[str, object]]:
    return [json.loads(value) for value in options(argv, name)]


def test_the_guest_stands_still_until_it_is_told_to_go() -> None:
    assert "-S" in build_argv(LAUNCH)


def test_qemu_is_confined_and_reads_no_configuration() -> None:
    argv = build_argv(LAUNCH)
    assert options(argv, "-sandbox") == [SANDBOX]
    assert SANDBOX == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert {"-nodefaults", "-no-user-config"} <= set(argv)


def test_an_operators_words_end_the_list() -> None:
    argv = build_argv(replace(LAUNCH, extra=("-device", "i6300esb", "-msg", "timestamp=on")))
    assert argv == (
        *build_argv(LAUNCH),
        *("-device", "i6300esb,bus=pcie.0,addr=0x10", "-msg", "timestamp=on"),
    )


def test_every_pci_device_of_an_operator_has_a_slot_of_its_own() -> None:
    words = ("-device", "qemu-xhci,p2=4", "-device", "usb-kbd", "-device", "i6300esb")
    argv = build_argv(replace(LAUNCH, extra=words))
    assert argv[-6:] == (
        *("-device", "qemu-xhci,p2=4,bus=pcie.0,addr=0x10"),
        *("-device", "usb-kbd"),
        *("-device", "i6300esb,bus=pcie.0,addr=0x11"),
    )


def test_the_smbios_uuid_is_the_machines_id() -> None:
    assert options(build_argv(LAUNCH), "-uuid") == [ID]


def test_the_machine_type_is_versioned_and_its_memory_an_object() -> None:
    argv = build_argv(LAUNCH)
    assert options(argv, "-machine") == ["pc-q35-7.2,memory-backend=ram0"]
    assert "memory-backend-ram,id=ram0,size=512M" in options(argv, "-object")


def test_every_pci_device_has_a_fixed_bus_address_and_id() -> None:
    devices = documents(build_argv(LAUNCH), "-device")
    on_pci = [
        device for device in devices if str(device["driver"]).endswith("pci") or "root-port" in str(device)
    ]
    assert len(on_pci) == 8 + 6
    places = {(device["bus"], device["addr"]) for device in on_pci}
    assert len(places) == len(on_pci)
    assert len({device["id"] for device in devices}) == len(devices)


def test_there_are_eight_spare_root_ports() -> None:
    ports = [d for d in documents(build_argv(LAUNCH), "-device") if d["driver"] == "pcie-root-port"]
    assert [port["id"] for port in ports] == [f"port{number}" for number in range(8)]


def test_both_serial_channels_have_ids_so_that_their_opening_is_told() -> None:
    channels = [d for d in documents(build_argv(LAUNCH), "-device") if d["driver"] == "virtserialport"]
    assert {(d["name"], d["id"]) for d in channels} == {
        ("org.qemu.guest_agent.0", "agent0"),
        ("org.qcontroller.identity.0", "identity0"),
    }


@pytest.mark.parametrize("driver", ["vmgenid", "virtio-rng-pci", "pvpanic-pci", "isa-serial"])
def test_a_machine_always_has(driver: str) -> None:
    assert driver in {device["driver"] for device in documents(build_argv(LAUNCH), "-device")}


def test_formats_are_said_and_backing_files_of_headers_are_not_followed() -> None:
    nodes = {node["node-name"]: node for node in documents(build_argv(LAUNCH), "-blockdev")}
    assert nodes["disk0-layer0"]["driver"] == "qcow2"
    assert nodes["disk0-layer0"]["backing"] == "disk0-layer1"
    assert nodes["disk0-layer1"]["driver"] == "raw"


def test_a_base_in_qcow2_is_told_to_have_no_backing_file() -> None:
    base = Layer("base", DiskFormat.QCOW2, "sha256:" + "0" * 64)
    argv = build_argv(replace(LAUNCH, layers=(LAUNCH.layers[0], base)))
    nodes = {node["node-name"]: node for node in documents(argv, "-blockdev")}
    assert nodes["disk0-layer1"]["backing"] is None


def test_only_the_topmost_layer_is_writable() -> None:
    nodes = documents(build_argv(LAUNCH), "-blockdev")
    assert [node["node-name"] for node in nodes if not node["read-only"]] == ["disk0-file0", "disk0-layer0"]


def test_sockets_are_descriptors_that_vm_host_passes_on() -> None:
    words = " ".join(build_argv(LAUNCH))
    assert set(re.findall(r"\{fd:([a-z0-9-]+)\}", words)) == {
        "qmp", "vmhost-qmp", "agent", "identity", "console", "net0",
    }  # fmt: skip
    assert "path=" not in words


def test_the_console_is_logged_whoever_listens() -> None:
    (console,) = [value for value in options(build_argv(LAUNCH), "-chardev") if "id=console" in value]
    assert f"logfile=/state/machines/{ID}/console.log,logappend=on" in console


def test_a_comma_in_the_state_directory_does_not_end_the_option() -> None:
    argv = build_argv(replace(LAUNCH, directory=PurePosixPath("/a,b")))
    assert any("logfile=/a,,b/console.log,logappend=on" in value for value in options(argv, "-chardev"))


def test_kvm_is_named_when_it_is_chosen() -> None:
    argv = build_argv(replace(LAUNCH, accelerator="kvm", cpu_model="host"))
    assert options(argv, "-accel") == ["kvm"]
    assert options(argv, "-cpu") == ["host"]


def test_a_nic_is_plugged_into_the_port_of_its_number_without_a_rom() -> None:
    plugged = nic_device(3, "52:54:00:00:00:01")
    assert (plugged["bus"], plugged["netdev"], plugged["romfile"]) == ("port3", "net3", "")


def test_machines_that_differ_in_id_and_directory_only_have_one_hash() -> None:
    other = MachineId("7d0c2f1e-0000-4000-8000-000000000002")
    clone = replace(LAUNCH, machine_id=other, directory=PurePosixPath("/elsewhere") / other)
    assert argv_hash(build_argv(LAUNCH), LAUNCH.directory) == argv_hash(build_argv(clone), clone.directory)


def test_machines_that_differ_in_hardware_have_different_hashes() -> None:
    bigger = replace(LAUNCH, memory_mib=1024)
    assert argv_hash(build_argv(LAUNCH), LAUNCH.directory) != argv_hash(build_argv(bigger), LAUNCH.directory)
