"""The address plan gives each index one private address, and each block a gateway."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from qemu_runner.user_network import AddressPlan, AddressPlanExhaustedError

PLAN = AddressPlan(IPv4Network("10.77.0.0/16"))
SMALL = AddressPlan(IPv4Network("192.168.9.0/24"))


def test_the_first_guest_is_behind_the_first_gateway() -> None:
    guest = PLAN.at(0)

    assert (guest.address, guest.gateway) == (IPv4Address("10.77.0.16"), IPv4Address("10.77.0.2"))


def test_no_two_indices_share_an_address() -> None:
    addresses = {PLAN.at(index).address for index in range(1000)}

    assert len(addresses) == 1000


def test_every_guest_is_in_the_network_of_its_gateway() -> None:
    for index in range(0, PLAN.capacity, 97):
        guest = PLAN.at(index)
        network = IPv4Network((guest.gateway, guest.prefix_len), strict=False)
        assert {guest.address, guest.dns} <= set(network.hosts())


def test_the_last_index_is_still_inside_the_subnet() -> None:
    assert PLAN.at(PLAN.capacity - 1).address in PLAN.subnet


@pytest.mark.parametrize("index", [-1, SMALL.capacity])
def test_an_index_outside_the_plan_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        SMALL.at(index)


def test_the_lowest_free_index_is_given() -> None:
    assert PLAN.free_index({0, 1, 3}) == 2


def test_a_full_plan_says_so() -> None:
    with pytest.raises(AddressPlanExhaustedError):
        SMALL.free_index(range(SMALL.capacity))


def test_a_subnet_without_room_for_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="narrower"):
        AddressPlan(IPv4Network("10.0.0.0/25"))
