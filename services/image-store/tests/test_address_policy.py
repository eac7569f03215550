"""Which addresses may be connected to, by table."""

import pytest
from image_store.fetching.address_policy import AddressPolicy
from image_store.fetching.download import system_resolver

PUBLIC = ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
FORBIDDEN = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%1", "fec0::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "broadcast and reserved": ["255.255.255.255", "240.0.0.1"],
    "protocols and documentation": ["192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.9", "2001:db8::1"],
    "carried: mapped": ["::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:a00:1"],
    "carried: compatible": ["::127.0.0.1"],
    "carried: NAT64": ["64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1"],
    "carried: 6to4": ["2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:a00:1::"],
    "carried: Teredo": ["2001:0:53aa:64c:0:fbd2:80ff:fffe"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_fetched_from(address: str) -> None:
    assert AddressPolicy().permits("host", address)


@pytest.mark.parametrize(
    "address", [pytest.param(one, id=f"{kind} {one}") for kind, some in FORBIDDEN.items() for one in some]
)
def test_others_are_not(address: str) -> None:
    assert not AddressPolicy().permits("host", address)


@pytest.mark.parametrize("address", ["64:ff9b::101:101", "2002:101:101::1", "::ffff:1.1.1.1"])
def test_an_address_that_leads_to_a_public_one_is_public(address: str) -> None:
    assert AddressPolicy().permits("host", address)


def test_an_allowed_network_lets_its_addresses_in_however_they_are_written() -> None:
    policy = AddressPolicy.of(["10.20.0.0/16", "127.0.0.1", "fd00::/8"])
    assert [
        policy.permits("host", one) for one in ("10.20.3.4", "::ffff:10.20.3.4", "127.0.0.1", "fd01::1")
    ] == [True] * 4
    assert [policy.permits("host", one) for one in ("10.21.0.1", "127.0.0.2", "fe80::1")] == [False] * 3


def test_an_allowed_host_may_have_any_address_and_no_other_host_its() -> None:
    policy = AddressPolicy.of(["Mirror.Example.org"])
    assert policy.permits("mirror.example.org", "10.0.0.1")
    assert not policy.permits("example.org", "10.0.0.1")


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "::ffff:127.0.0.1"]
)
async def test_every_way_to_write_the_loopback_address_leads_to_it(host: str) -> None:
    found = await system_resolver(host, 80)
    assert found
    assert not any(AddressPolicy().permits(host, address) for address in found)
