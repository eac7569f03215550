"""Cards and the names of their taps."""

import os
from ipaddress import IPv4Address

import pytest
from qemu_runner.bridge_network import AttachedTap, BridgeNic, PublishedPort, netdev_arguments, tap_name

MACHINE = "7d0c1c2e-54a4-4c36-a3f7-0a52a52e3a11"
ADDRESS = IPv4Address("10.76.0.2")
MAC = "52:54:00:00:00:01"


def test_the_name_of_a_tap_fits_into_what_the_kernel_takes() -> None:
    assert len(tap_name("x" * 300, MACHINE, 9)) <= 15


def test_the_same_card_always_has_the_same_tap() -> None:
    assert tap_name("a", MACHINE, 0) == tap_name("a", MACHINE, 0)


def test_cards_machines_and_owners_have_taps_of_their_own() -> None:
    names = {
        tap_name("a", MACHINE, 0),
        tap_name("a", MACHINE, 1),
        tap_name("a", "other", 0),
        tap_name("b", MACHINE, 0),
    }

    assert len(names) == 4


@pytest.mark.parametrize(
    ("machine_id", "name", "mac", "index"),
    [
        ("../x", "web-1", MAC, 0),
        (MACHINE, "web.1", MAC, 0),
        (MACHINE, "web\n1", MAC, 0),
        (MACHINE, "web-1", "52:54:00:00:00", 0),
        (MACHINE, "web-1", MAC.replace(":", "-"), 0),
        (MACHINE, "web-1", MAC, 10),
    ],
)
def test_a_malformed_card_is_refused(machine_id: str, name: str, mac: str, index: int) -> None:
    with pytest.raises(ValueError):
        BridgeNic(machine_id, name, mac, ADDRESS, index=index)


def test_ports_belong_to_the_first_card() -> None:
    with pytest.raises(ValueError, match="card 0"):
        BridgeNic(MACHINE, "web-1", MAC, ADDRESS, ports=(PublishedPort(2222, 22),), index=1)


def test_leaving_an_attached_tap_closes_its_descriptors() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    with AttachedTap("qc0-test", (fd,)):
        os.fstat(fd)

    with pytest.raises(OSError):
        os.fstat(fd)


def test_the_netdev_of_a_plain_tap_has_one_descriptor() -> None:
    assert netdev_arguments("n0", AttachedTap("t", (7,)), "tap-n0") == {
        "type": "tap",
        "id": "n0",
        "fd": "tap-n0",
    }


def test_the_netdev_of_a_tap_with_queues_and_vhost_lists_all_descriptors() -> None:
    arguments = netdev_arguments("n0", AttachedTap("t", (7, 8), (9, 10)), "a:b", "c:d")

    assert arguments == {"type": "tap", "id": "n0", "fds": "a:b", "vhost": True, "vhostfds": "c:d"}
