"""The pool of addresses: what it gives, in which turn, and what it refuses."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from qemu_runner.bridge_network import AddressOutsideError, AddressPoolExhaustedError, AddressTakenError
from qemu_runner.bridge_network.pool import AddressPool

POOL = AddressPool(IPv4Network("10.76.0.0/29"))


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"10.76.0.{last}")


def test_the_first_address_is_the_gateways_and_the_next_the_first_guests() -> None:
    assert POOL.gateway == ip(1)
    assert POOL.next((), None) == ip(2)


def test_the_broadcast_address_is_given_to_nobody() -> None:
    assert POOL.capacity == 5
    assert not POOL.has(ip(7))


def test_a_released_address_comes_back_when_all_others_had_their_turn() -> None:
    last: IPv4Address | None = None
    given = []
    for _ in range(POOL.capacity + 1):
        last = POOL.next((), last)
        given.append(last)

    assert given == [ip(2), ip(3), ip(4), ip(5), ip(6), ip(2)]


def test_addresses_in_use_are_passed_over() -> None:
    assert POOL.next({ip(3), ip(4)}, ip(2)) == ip(5)


def test_a_remembered_address_of_another_subnet_begins_the_turn_anew() -> None:
    assert POOL.next((), IPv4Address("192.0.2.9")) == ip(2)


def test_a_full_pool_says_how_many_it_had() -> None:
    with pytest.raises(AddressPoolExhaustedError, match="All 5 addresses"):
        POOL.next({ip(last) for last in range(2, 7)}, None)


def test_an_address_that_was_asked_for_is_given_if_it_is_free() -> None:
    assert POOL.exactly(ip(5), {ip(4)}) == ip(5)


def test_an_address_that_was_asked_for_and_is_in_use_is_refused() -> None:
    with pytest.raises(AddressTakenError):
        POOL.exactly(ip(5), {ip(5)})


@pytest.mark.parametrize("address", ["10.76.0.0", "10.76.0.1", "10.76.0.7", "10.76.0.9"])
def test_an_address_that_is_no_guests_is_refused(address: str) -> None:
    with pytest.raises(AddressOutsideError):
        POOL.exactly(IPv4Address(address), ())


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "10.76.0.0/30"])
def test_a_subnet_that_is_too_wide_or_too_narrow_is_refused(subnet: str) -> None:
    with pytest.raises(ValueError, match="between"):
        AddressPool(IPv4Network(subnet))
