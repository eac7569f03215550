"""A QEMU binary that does not work must not hold up the others' guests."""

from pathlib import Path

from vm_host.offers import Offers
from vm_host.programs import Programs


def test_a_broken_binary_is_not_run_again_by_every_hello(tmp_path: Path) -> None:
    binary = broken_binary(tmp_path)
    offers = Offers(Programs([str(binary)]))
    first, second = offers.describe(), offers.describe()
    assert "does not work" in first[0]["error"]
    assert second == first
    assert (tmp_path / "runs").read_text().count("run") == 1


def test_a_broken_binary_is_asked_again_when_it_was_replaced(tmp_path: Path) -> None:
    binary = broken_binary(tmp_path)
    offers = Offers(Programs([str(binary)]))
    offers.describe()
    binary.write_text("#!/bin/sh\necho version 7.2.22 of a machine that was mended\n")
    (offer,) = offers.describe()
    assert (offer["error"], offer["version"]) == ("", "7.2.22")


def test_firmware_that_is_not_there_is_named_until_it_is(tmp_path: Path) -> None:
    firmware = tmp_path / "share"
    firmware.mkdir()
    binary = tmp_path / "qemu-system-x86_64"
    binary.write_text(f'#!/bin/sh\n[ "$1" = -L ] && echo {firmware} || echo version 7.2.22\n')
    binary.chmod(0o755)
    offers = Offers(Programs([str(binary)]))
    (offer,) = offers.describe()
    assert (offer["missingFirmware"], offer["error"]) == (["bios-256k.bin"], "")
    (firmware / "bios-256k.bin").touch()
    (offer,) = offers.describe()
    assert offer["missingFirmware"] == []


def broken_binary(directory: Path) -> Path:
    binary = directory / "qemu-system-x86_64"
    binary.write_text(f"#!/bin/sh\necho run >>{directory}/runs\nexit 1\n")
    binary.chmod(0o755)
    return binary
