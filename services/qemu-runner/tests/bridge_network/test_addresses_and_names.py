"""DHCP and DNS as guests see them. Needs root."""

import socket
import threading
from ipaddress import IPv4Address

import pytest
from bridge_network_frames import ACK, answer_dns, ask_dhcp, ask_dns
from bridge_network_world import BRIDGE, GATEWAY, WORLD, Bench, Guest, card, until

pytestmark = pytest.mark.netns

PTR = 12


def leased(guest: Guest) -> IPv4Address | None:
    with guest.packet_socket() as wire:
        answer = ask_dhcp(wire, guest.nic.mac)
    return answer.address if answer is not None and answer.kind == ACK else None


def test_a_guest_is_given_the_address_that_was_reserved_for_it(bench: Bench) -> None:
    guest = bench.boot(5, configured=False)

    assert leased(guest) == guest.nic.address


def test_the_host_knows_at_once_who_has_an_address_now(bench: Bench) -> None:
    bench.boot(6)
    predecessor = ("lladdr", "52:54:00:00:00:99", "nud", "reachable")
    bench.host("ip", "neigh", "replace", str(card(5).address), "dev", BRIDGE, *predecessor)
    guest = bench.boot(5, configured=False)

    assert guest.nic.mac in bench.host("ip", "neigh", "show", str(guest.nic.address), "dev", BRIDGE)


def test_a_guest_is_told_its_gateway_resolver_and_name(bench: Bench) -> None:
    guest = bench.boot(5, configured=False)
    with guest.packet_socket() as wire:
        answer = ask_dhcp(wire, guest.nic.mac)

    assert answer is not None
    assert answer.options[3] == GATEWAY.packed
    assert answer.options[6] == GATEWAY.packed
    assert answer.options[12] == b"guest-5"


def test_a_lease_never_ends_so_that_a_guest_keeps_its_address_without_the_runner(bench: Bench) -> None:
    guest = bench.boot(5, configured=False)
    with guest.packet_socket() as wire:
        answer = ask_dhcp(wire, guest.nic.mac)

    assert answer is not None
    assert answer.options[51] == b"\xff" * 4


def test_a_card_that_is_not_known_any_more_is_given_nothing(bench: Bench) -> None:
    guest = bench.boot(5, configured=False)
    assert leased(guest) == guest.nic.address, "the control failed"
    reservations = bench.service.state_dir / "bridge-network" / "reservations"

    bench.boot(6)
    bench.service.call("detach", guest.nic.machine_id)

    assert [path.name for path in reservations.iterdir()] == [f"{card(6).machine_id}-0"]


def test_an_unknown_mac_on_the_bridge_is_given_nothing(bench: Bench) -> None:
    known = bench.boot(5, configured=False)
    bench.host("ip", "link", "add", "stray0", "type", "veth", "peer", "stray1")
    bench.undo(lambda: bench.host("ip", "link", "del", "stray0"))
    for name in ("stray0", "stray1"):
        bench.host("ip", "link", "set", name, "up")
    bench.host("ip", "link", "set", "stray1", "master", "qct0")

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        made.bind(("stray0", 0))
        return made

    with bench.world.inside(bench.world.host, opened) as wire:
        assert ask_dhcp(wire, known.nic.mac, 2.0) is not None, "the control failed: no DHCP by this wire"
        assert ask_dhcp(wire, "52:54:00:99:99:99", 2.0) is None


def test_guests_resolve_each_others_names_both_ways(bench: Bench) -> None:
    asker = bench.boot(5)
    bench.boot(6)
    with asker.udp_socket() as wire:
        assert ask_dns(wire, GATEWAY, "guest-6.qc.internal") == [IPv4Address("10.76.0.6").packed]
        assert ask_dns(wire, GATEWAY, "6.0.76.10.in-addr.arpa", PTR) == [b"\x07guest-6\x02qc\x08internal\0"]


def test_what_a_guest_calls_itself_is_no_name_of_the_network(bench: Bench) -> None:
    guest = bench.boot(5, configured=False)
    with guest.packet_socket() as wire:
        assert ask_dhcp(wire, guest.nic.mac, hostname="impostor") is not None
    guest.configure()
    with guest.udp_socket() as asker:
        assert ask_dns(asker, GATEWAY, "guest-5.qc.internal"), "the control failed"
        assert ask_dns(asker, GATEWAY, "impostor.qc.internal") == []


def test_the_name_of_a_machine_that_was_detached_is_gone(bench: Bench) -> None:
    asker = bench.boot(5)
    bench.boot(6)
    with asker.udp_socket() as wire:
        assert ask_dns(wire, GATEWAY, "guest-6.qc.internal"), "the control failed"
        bench.service.call("detach", card(6).machine_id)

        assert until(lambda: not ask_dns(wire, GATEWAY, "guest-6.qc.internal"))


def test_other_names_are_asked_of_the_hosts_resolver_as_it_is_now(bench: Bench) -> None:
    guest = bench.boot(5)
    given = IPv4Address("203.0.113.7")
    upstream = bench.world.receive_on(bench.world.world, WORLD, 53)

    def answer_once() -> None:
        query, client = upstream.recvfrom(4096)
        upstream.sendto(answer_dns(query, given), client)

    server = threading.Thread(target=answer_once)
    server.start()
    with upstream, guest.udp_socket() as wire:
        assert ask_dns(wire, GATEWAY, "example.test") == [given.packed]
    server.join()


def test_a_new_machine_gets_an_address_that_another_had_before(bench: Bench) -> None:
    first = bench.boot(5, configured=False)
    assert leased(first) == first.nic.address, "the control failed"
    bench.service.call("detach", first.nic.machine_id)
    first.end()
    second = bench.boot(7, configured=False, address=first.nic.address)

    assert leased(second) == first.nic.address
