"""The command line of passt holds every option that keeps the guest away from the host."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from qemu_runner.user_network import (
    AddressPlan,
    PasstOptions,
    Protocol,
    PublishedPort,
    ResolverPlan,
    passt_argv,
    stream_netdev_arguments,
    stream_netdev_option,
)

GUEST = AddressPlan(IPv4Network("10.77.0.0/16")).at(0)
OLD = PasstOptions(stderr=True, dns_host=False)
NEW = PasstOptions(stderr=False, dns_host=True)
SERVER = IPv4Address("192.0.2.53")
STUB = IPv4Address("127.0.0.53")
NO_DNS = ResolverPlan()
LOOPBACK = IPv4Address("127.0.0.1")


def argv(
    *ports: PublishedPort,
    resolver: ResolverPlan = NO_DNS,
    options: PasstOptions = NEW,
) -> list[str]:
    return passt_argv("passt", 7, GUEST, ports, resolver, options)


def values(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


@pytest.mark.parametrize("option", ["--no-map-gw", "--ipv4-only", "--no-ndp", "--no-ra", "--no-dhcpv6"])
def test_the_ways_to_the_host_are_closed(option: str) -> None:
    assert option in argv()


def test_a_guest_without_ports_gets_none_of_either_kind() -> None:
    words = argv()

    assert (values(words, "--tcp-ports"), values(words, "--udp-ports")) == (["none"], ["none"])


def test_each_port_has_an_option_of_its_own() -> None:
    words = argv(PublishedPort(2222, 22), PublishedPort(8443, 443, address=IPv4Address("192.0.2.2")))

    assert values(words, "--tcp-ports") == ["127.0.0.1/2222:22", "192.0.2.2/8443:443"]


def test_tcp_ports_bring_no_udp_ports_with_them() -> None:
    assert values(argv(PublishedPort(2222, 22)), "--udp-ports") == ["none"]


def test_udp_ports_are_published_as_udp() -> None:
    words = argv(PublishedPort(5353, 53, Protocol.UDP))

    assert (values(words, "--tcp-ports"), values(words, "--udp-ports")) == (["none"], ["127.0.0.1/5353:53"])


def test_the_hosts_own_mac_stays_unknown() -> None:
    assert values(argv(), "--mac-addr") == ["52:55:0a:4d:00:02"]


def test_servers_that_guests_can_ask_are_handed_out() -> None:
    words = argv(resolver=ResolverPlan(servers=(SERVER,)))

    assert (values(words, "--dns"), values(words, "--dns-forward")) == (["192.0.2.53"], [])


def test_a_resolver_on_the_loopback_is_forwarded_to() -> None:
    words = argv(resolver=ResolverPlan(forward_to=STUB))

    assert values(words, "--dns-forward") == values(words, "--dns") == ["10.77.0.3"]
    assert values(words, "--dns-host") == ["127.0.0.53"]


def test_an_old_passt_is_told_to_forward_to_its_own_loopback_only() -> None:
    words = argv(resolver=ResolverPlan(forward_to=LOOPBACK), options=OLD)

    assert (values(words, "--dns"), values(words, "--dns-host")) == (["10.77.0.3"], [])


def test_an_old_passt_finds_another_loopback_resolver_itself() -> None:
    words = argv(resolver=ResolverPlan(forward_to=STUB), options=OLD)

    assert (values(words, "--dns"), values(words, "--dns-forward")) == ([], ["10.77.0.3"])


def test_without_a_resolver_guests_are_told_of_none() -> None:
    assert values(argv(), "--dns") == ["none"]


def test_search_domains_are_one_value() -> None:
    assert values(argv(resolver=ResolverPlan(search=("a.example", "b.example"))), "--search") == [
        "a.example b.example"
    ]


def test_an_option_that_a_build_does_not_know_is_left_out() -> None:
    assert ("--stderr" in argv(options=OLD), "--stderr" in argv(options=NEW)) == (True, False)


def test_a_placeholder_can_stand_for_the_descriptor() -> None:
    words = passt_argv("passt", "{fd:net0}", GUEST, (), ResolverPlan(), NEW)

    assert values(words, "--fd") == ["{fd:net0}"]


def test_qemu_is_given_the_inherited_descriptor_by_number() -> None:
    assert stream_netdev_arguments("n0", 9)["addr"] == {"type": "fd", "str": "9"}


def test_qemus_option_takes_a_placeholder() -> None:
    assert (
        stream_netdev_option("n0", "{fd:net0}") == "stream,id=n0,server=off,addr.type=fd,addr.str={fd:net0}"
    )
