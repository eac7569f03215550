"""An operator's arguments: what is taken, and what is refused and why."""

import pytest
from qemu_runner.domain.extra_arguments import DEVICES, ExtraArgumentError, check_extra_arguments

TAKEN = (
    *("-device", "i6300esb"),
    *("-action", "watchdog=reset"),
    *("-device", "qemu-xhci,p2=4"),
    *("-global", "ICH9-LPC.disable_s3=1"),
    *("-smbios", "type=1,manufacturer=Example,serial=42"),
    *("-smbios", "type=11,value=site:north"),
    *("-fw_cfg", "name=opt/org.example/site,string=north"),
    *("-msg", "timestamp=on,guest-name=on"),
    *("-d", "guest_errors,unimp"),
)


def test_allowed_words_are_taken_as_they_are() -> None:
    assert check_extra_arguments(list(TAKEN)) == TAKEN


def test_no_words_are_no_fault() -> None:
    assert check_extra_arguments([]) == ()


@pytest.mark.parametrize(
    "option",
    [
        *("-monitor", "-qmp", "-chardev", "-serial", "-netdev", "-nic", "-drive", "-blockdev", "-hda"),
        *("-sandbox", "-runas", "-daemonize", "-pidfile", "-D", "-trace", "-readconfig", "-incoming"),
        *("-uuid", "-name", "-machine", "-accel", "-cpu", "-smp", "-m", "-object", "-S", "-kernel", "-L"),
        *("--device", "device", "", "-", "-Device", "-device\n"),
    ],
)
def test_an_option_that_is_not_in_the_list_is_refused_by_name(option: str) -> None:
    with pytest.raises(ExtraArgumentError) as caught:
        check_extra_arguments([option, "i6300esb"])
    assert str(caught.value).startswith(repr(option))
    assert "allowed are -action, -d, -device" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("-device", "vfio-pci,host=01:00.0"),
        ("-device", "ivshmem-plain"),
        ("-device", "i6300esb,id=disk0"),
        ("-device", "i6300esb,bus=port0"),
        ("-device", "i6300esb,addr=5"),
        ("-device", "i6300esb,romfile=/etc/passwd"),
        ("-device", '{"driver":"i6300esb"}'),
        ("-device", "usb-tablet,,x=1"),
        ("-device", "help"),
        ("-global", "virtio-blk-pci.drive=disk0"),
        ("-global", "driver=virtio-blk-pci,property=x,value=y"),
        ("-global", "x"),
        ("-smbios", "file=/etc/passwd"),
        ("-smbios", "type=1"),
        ("-smbios", "type=1,uuid=7d0c2f1e-0000-4000-8000-000000000001"),
        ("-smbios", "type=11,path=/etc/passwd"),
        ("-smbios", "type=4,x=y"),
        ("-fw_cfg", "name=opt/x,file=/etc/passwd"),
        ("-fw_cfg", "name=etc/x,string=y"),
        ("-fw_cfg", "name=opt/x,string=y,file=/etc/passwd"),
        ("-action", "panic=none"),
        ("-action", "watchdog=pause"),
        ("-action", "watchdog=reset,panic=none"),
        ("-msg", "timestamp"),
        ("-d", "in_asm"),
        ("-d", ""),
        ("-d", "unimp\n"),
        ("-device", "i6300esb,x=" + "y" * 256),
    ],
)
def test_a_value_that_reaches_further_is_refused(option: str, value: str) -> None:
    with pytest.raises(ExtraArgumentError, match=f"'{option}'"):
        check_extra_arguments([option, value])


def test_an_option_without_its_value_is_refused() -> None:
    with pytest.raises(ExtraArgumentError, match="'-device' has no value"):
        check_extra_arguments(["-msg", "timestamp=on", "-device"])


def test_more_pci_devices_than_there_are_places_are_refused() -> None:
    with pytest.raises(ExtraArgumentError, match="12 PCI devices"):
        check_extra_arguments(["-device", "virtio-tablet-pci"] * 13)


def test_too_many_words_are_refused() -> None:
    with pytest.raises(ExtraArgumentError, match="66 words"):
        check_extra_arguments(["-device", "usb-kbd"] * 33)


def test_no_device_has_a_part_of_the_host_behind_it() -> None:
    assert not any(word in driver for driver in DEVICES for word in ("vfio", "host", "vhost", "net", "blk"))
