"""What somebody destroyed is whole again, while guests keep their connections. Needs root."""

import json
import socket
from ipaddress import IPv4Address

import pytest
from bridge_network_frames import ask_dhcp, ask_dns
from bridge_network_world import BRIDGE, GATEWAY, WORLD, Bench, until
from qemu_runner.bridge_network import PublishedPort

pytestmark = pytest.mark.netns

HEALED_WITHIN_S = 5.0


def is_up(bench: Bench) -> bool:
    links = json.loads(bench.host("ip", "-j", "link", "show"))
    return any(link["ifname"] == BRIDGE and "UP" in link["flags"] for link in links)


def rules(bench: Bench) -> str:
    return bench.host("nft", "-s", "list", "ruleset")


def test_a_deleted_bridge_is_back_and_connections_go_on(bench: Bench) -> None:
    guest = bench.boot(5)
    with bench.talking(guest):
        bench.host("ip", "link", "del", BRIDGE)
        assert until(lambda: bench.is_port(guest.tap) and bench.has_address(), HEALED_WITHIN_S)


def test_a_deleted_bridge_comes_back_with_the_same_mac(bench: Bench) -> None:
    bench.boot(5)
    before = bench.host("cat", f"/sys/class/net/{BRIDGE}/address")
    bench.host("ip", "link", "del", BRIDGE)

    assert until(lambda: BRIDGE in bench.links() and bench.has_address(), HEALED_WITHIN_S)
    assert bench.host("cat", f"/sys/class/net/{BRIDGE}/address") == before


def test_behind_a_bridge_that_was_made_anew_dhcp_and_names_are_answered(bench: Bench) -> None:
    guest = bench.boot(5)
    (before,) = bench.processes("dnsmasq")
    bench.host("ip", "link", "del", BRIDGE)
    assert until(
        lambda: bool(bench.processes("dnsmasq")) and bench.processes("dnsmasq") != [before], HEALED_WITHIN_S
    )

    with guest.packet_socket() as wire, guest.udp_socket() as asker:
        assert until(lambda: ask_dhcp(wire, guest.nic.mac, 1.0) is not None, HEALED_WITHIN_S)
        assert ask_dns(asker, GATEWAY, "guest-5.qc.internal") == [guest.nic.address.packed]


@pytest.mark.parametrize(
    "damage",
    [
        ["ip", "link", "set", BRIDGE, "down"],
        ["ip", "addr", "flush", "dev", BRIDGE],
        ["ip", "link", "set", BRIDGE, "address", "02:00:00:00:00:99"],
    ],
)
def test_a_bridge_that_was_changed_is_as_before(bench: Bench, damage: list[str]) -> None:
    guest = bench.boot(5)
    mac = bench.host("cat", f"/sys/class/net/{BRIDGE}/address")

    def whole() -> bool:
        same = bench.host("cat", f"/sys/class/net/{BRIDGE}/address") == mac
        return same and is_up(bench) and bench.has_address()

    with bench.talking(guest):
        bench.host(*damage)
        assert until(whole, HEALED_WITHIN_S)


def test_a_tap_that_was_taken_off_the_bridge_is_put_back(bench: Bench) -> None:
    guest = bench.boot(5)
    with bench.talking(guest):
        bench.host("ip", "link", "set", guest.tap, "nomaster")
        assert until(lambda: bench.is_port(guest.tap), HEALED_WITHIN_S)


@pytest.mark.parametrize("family", ["inet", "bridge"])
@pytest.mark.parametrize("damage", ["flush", "delete"])
def test_a_table_that_was_emptied_or_deleted_is_as_before(bench: Bench, damage: str, family: str) -> None:
    guest = bench.boot(5, PublishedPort(2222, 22))
    before = rules(bench)
    name = next(name for of, name in bench.tables() if of == family)
    with bench.talking(guest):
        bench.host("nft", damage, "table", family, name)
        assert until(lambda: rules(bench) == before, HEALED_WITHIN_S)


def test_one_rule_or_element_that_was_removed_is_back(bench: Bench) -> None:
    bench.boot(5)
    before = rules(bench)
    name = bench.tables()[0][1]
    bench.host("nft", "flush", "chain", "inet", name, "input")
    assert until(lambda: rules(bench) == before, HEALED_WITHIN_S)
    bench.host("nft", "flush", "set", "bridge", name, "addresses")
    assert until(lambda: rules(bench) == before, HEALED_WITHIN_S)


def test_a_rule_that_was_slipped_in_is_removed(bench: Bench) -> None:
    bench.boot(5)
    before = rules(bench)
    bench.host("nft", "insert", "rule", "inet", bench.tables()[0][1], "input", "accept")
    assert until(lambda: rules(bench) == before, HEALED_WITHIN_S)


def test_a_flushed_ruleset_is_back(bench: Bench) -> None:
    guest = bench.boot(5)
    before = rules(bench)
    with bench.talking(guest):
        bench.host("nft", "flush", "ruleset")
        assert until(lambda: rules(bench) == before, HEALED_WITHIN_S)


def test_a_killed_dnsmasq_is_back_and_answers(bench: Bench) -> None:
    guest = bench.boot(5)
    (pid,) = bench.processes("dnsmasq")
    bench.host("kill", "-9", pid)
    assert until(
        lambda: bool(bench.processes("dnsmasq")) and bench.processes("dnsmasq") != [pid], HEALED_WITHIN_S
    )

    with guest.packet_socket() as wire:
        assert until(lambda: ask_dhcp(wire, guest.nic.mac, 1.0) is not None, HEALED_WITHIN_S)


def test_forwarding_that_was_switched_off_is_on_again(bench: Bench) -> None:
    guest = bench.boot(5)
    with bench.talking(guest):
        for interface in (BRIDGE, "up0"):
            bench.host("sysctl", "-qw", f"net.ipv4.conf.{interface}.forwarding=0")

        def forwards() -> bool:
            names = [f"net.ipv4.conf.{i}.forwarding" for i in (BRIDGE, "up0")]
            return bench.host("sysctl", "-n", *names).split() == ["1", "1"]

        assert until(forwards, HEALED_WITHIN_S)


def test_guests_follow_the_default_route_to_another_interface(bench: Bench) -> None:
    guest = bench.boot(5)
    other = IPv4Address("203.0.113.1")
    world = bench.world
    bench.host("ip", "link", "add", "up1", "type", "veth", "peer", "up1", "netns", world.world)
    bench.undo(lambda: bench.host("ip", "route", "replace", "default", "via", str(WORLD)))
    bench.undo(lambda: bench.host("ip", "link", "del", "up1"))
    bench.host("ip", "addr", "add", "203.0.113.10/24", "dev", "up1")
    bench.host("ip", "link", "set", "up1", "up")
    world.run_in(world.world, "ip", "addr", "add", f"{other}/24", "dev", "up1")
    world.run_in(world.world, "ip", "link", "set", "up1", "up")
    with world.listen(world.world, other) as listener:
        port = listener.getsockname()[1]
        assert not guest.reaches(other, port), "the control failed: the new way is open before it is the way"
        bench.host("ip", "route", "replace", "default", "via", str(other))

        assert until(lambda: guest.reaches(other, port), HEALED_WITHIN_S)


def test_a_service_in_peace_writes_no_rules(bench: Bench) -> None:
    bench.boot(5)
    bench.service.call("checks")
    with bench.world.inside(bench.world.host, _rules_ear) as ear:
        ear.settimeout(1.5)
        with pytest.raises(TimeoutError):
            ear.recv(65536)


def _rules_ear() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    made.bind((0, 0))
    made.setsockopt(270, 1, 7)
    return made
