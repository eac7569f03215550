"""When the network is refused, with what to do about it. Needs root."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from bridge_network_frames import ask_dhcp
from bridge_network_world import BRIDGE, GATEWAY, WORLD, Bench, CallError, card, made_bench

pytestmark = pytest.mark.netns


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    with made_bench(tmp_path) as bench:
        yield bench


def refusal(bench: Bench) -> dict[str, Any]:
    verdict: dict[str, Any] = bench.service.call("availability")
    assert verdict["refused"], f"it was offered: {verdict}"
    return verdict


def test_an_interface_of_that_name_that_is_not_ours_is_refused_and_left_alone(bench: Bench) -> None:
    bench.host("ip", "link", "add", BRIDGE, "type", "bridge")

    assert BRIDGE in refusal(bench)["reason"]
    with pytest.raises(CallError, match="BridgeUnavailableError"):
        bench.boot(5)
    bench.service.call("leave")
    assert BRIDGE in bench.links()


@pytest.mark.parametrize("taken", ["10.76.0.0/24", "10.76.0.128/25", "10.0.0.0/8"])
def test_a_subnet_that_overlaps_a_route_is_refused_with_a_free_one(bench: Bench, taken: str) -> None:
    bench.host("ip", "route", "add", taken, "dev", "up0")
    told = refusal(bench)

    assert taken in told["reason"]
    assert "up0" in told["reason"]
    free = "172.16.0.0/24" if taken == "10.0.0.0/8" else "10.78.0.0/24"
    assert free in told["fix"]


def test_the_route_of_our_own_bridge_is_no_clash(bench: Bench) -> None:
    bench.boot(5)
    bench.service.kill()
    bench.service.start()

    assert not bench.service.call("availability")["refused"]


def test_a_missing_dnsmasq_is_refused_with_its_package(bench: Bench) -> None:
    bench.service.kill()
    bench.service.start(dnsmasq="dnsmasq-that-is-not-there")

    assert "dnsmasq-base" in refusal(bench)["fix"]


def test_without_net_admin_it_is_refused_and_the_service_lives(bench: Bench) -> None:
    bench.service.kill()
    bench.service.start(drop="-net_admin")

    assert "CAP_NET_ADMIN" in refusal(bench)["reason"]
    bench.service.adopt()
    bench.service.call("leave")


def test_a_wildcard_listener_on_port_53_leaves_dhcp_and_tells_the_hosts_resolvers(bench: Bench) -> None:
    with bench.world.receive_on(bench.world.host, IPv4Address("0.0.0.0"), 53):
        assert bench.service.call("availability")["dns"] == "False"
        guest = bench.boot(5, configured=False)
        with guest.packet_socket() as wire:
            answer = ask_dhcp(wire, guest.nic.mac)
        checks = {check["name"]: check["status"] for check in bench.service.call("checks")}

    assert answer is not None
    assert answer.address == guest.nic.address
    assert answer.options[6] == WORLD.packed
    assert checks["bridge-network"] == "WARN"


def test_a_wildcard_listener_on_port_53_is_not_opened_to_guests(bench: Bench) -> None:
    with bench.world.receive_on(bench.world.host, IPv4Address("0.0.0.0"), 53) as resolver:
        guest = bench.boot(5)
        with guest.udp_socket() as wire:
            wire.sendto(b"query", (str(GATEWAY), 53))
            resolver.settimeout(1.0)
            with pytest.raises(TimeoutError):
                resolver.recv(16)


def test_an_address_of_another_subnet_is_refused(bench: Bench) -> None:
    with pytest.raises(CallError, match="AddressOutsideError"):
        bench.boot(5, address=IPv4Address("10.99.0.5"))


def test_without_a_default_route_it_is_offered_and_the_doctor_warns(bench: Bench) -> None:
    bench.host("ip", "route", "del", "default")
    one, other = bench.boot(5), bench.boot(6)
    with other.listen(7777):
        assert one.reaches(card(6).address, 7777)
    (check,) = [c for c in bench.service.call("checks") if c["name"] == "bridge-network-route"]

    assert check["status"] == "WARN"


def test_a_listener_on_one_address_is_no_wildcard(bench: Bench) -> None:
    with bench.world.receive_on(bench.world.host, IPv4Address("127.0.0.53"), 53) as stub:
        assert stub.type == socket.SOCK_DGRAM
        assert bench.service.call("availability")["dns"] == "True"
