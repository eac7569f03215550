"""The service goes and comes again, or goes for good. Needs root."""

import json
from ipaddress import IPv4Address

import pytest
from bridge_network_frames import ask_dhcp
from bridge_network_world import BRIDGE, Bench, card, until
from qemu_runner.bridge_network import PublishedPort
from user_network_world import reached

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
SSH = PublishedPort(2222, 22)


def host_state(bench: Bench) -> dict[str, object]:
    """Everything of the host's network that the service could have changed."""
    return {
        "links": sorted(bench.links()),
        "rules": bench.host("nft", "-s", "list", "ruleset"),
        "routes": bench.host("ip", "-4", "route", "show", "table", "all"),
        "processes": bench.processes("dnsmasq"),
        "forwarding": bench.host("sysctl", "net.ipv4.conf.up0.forwarding", "net.ipv4.ip_forward"),
    }


def test_a_host_that_is_not_used_stays_untouched(own_bench: Bench) -> None:
    before = host_state(own_bench)
    own_bench.service.call("availability")
    own_bench.service.call("reserve", [])
    own_bench.service.call("checks")

    assert host_state(own_bench) == before


def test_leaving_leaves_the_host_as_it_was(own_bench: Bench) -> None:
    own_bench.host("sysctl", "-qw", "net.ipv4.ip_forward=0")
    before = host_state(own_bench)
    guest = own_bench.boot(5, SSH)
    assert host_state(own_bench) != before, "the control failed"
    guest.end()
    own_bench.service.call("leave")

    assert host_state(own_bench) == before
    assert own_bench.service.call("leaks", []) == []
    own_bench.listen_on_host(LOOPBACK, 2222).close()


def test_leaving_twice_is_harmless_and_nothing_is_attached_after_it(own_bench: Bench) -> None:
    own_bench.boot(5)
    own_bench.service.call("leave")
    own_bench.service.call("leave")

    with pytest.raises(Exception, match="BridgeUnavailableError"):
        own_bench.boot(6)


def test_leaving_removes_what_an_earlier_service_left(own_bench: Bench) -> None:
    before = host_state(own_bench)
    guest = own_bench.boot(5)
    own_bench.service.kill()
    guest.end()
    own_bench.service.start()
    own_bench.service.call("leave")

    assert host_state(own_bench) == before


@pytest.mark.parametrize("end", ["kill", "close"])
def test_connections_and_ports_outlive_the_service(own_bench: Bench, end: str) -> None:
    guest = own_bench.boot(5, SSH)
    with own_bench.talking(guest), guest.listen(22) as listener:
        getattr(own_bench.service, end)()
        with own_bench.connect_from_host(LOOPBACK, 2222):
            assert reached(listener)


def test_a_killed_service_leaves_no_dnsmasq_behind(own_bench: Bench) -> None:
    own_bench.boot(5)
    assert own_bench.processes("dnsmasq"), "the control failed"
    own_bench.service.kill()

    assert until(lambda: not own_bench.processes("dnsmasq"))


def test_a_new_service_adopts_the_machines_that_live(own_bench: Bench) -> None:
    guest = own_bench.boot(5, SSH)
    with own_bench.talking(guest):
        own_bench.service.kill()
        own_bench.service.start()
        own_bench.service.adopt(guest.nic)
    with guest.packet_socket() as wire:
        answer = ask_dhcp(wire, guest.nic.mac)
    assert answer is not None
    assert answer.address == guest.nic.address
    with pytest.raises(OSError, match="in use"):
        own_bench.listen_on_host(LOOPBACK, 2222)


def test_an_adopted_machine_is_kept_whole_and_can_be_changed(own_bench: Bench) -> None:
    guest = own_bench.boot(5)
    own_bench.service.kill()
    own_bench.service.start()
    own_bench.service.adopt(guest.nic)
    own_bench.host("ip", "link", "del", BRIDGE)
    assert until(lambda: own_bench.is_port(guest.tap))
    own_bench.service.publish(guest.nic.machine_id, SSH)
    with guest.listen(22) as listener, own_bench.connect_from_host(LOOPBACK, 2222):
        assert reached(listener)


def test_what_belongs_to_no_living_machine_is_removed_when_the_others_are_adopted(own_bench: Bench) -> None:
    living, dead = own_bench.boot(5), own_bench.boot(6, SSH)
    own_bench.service.kill()
    own_bench.service.start()
    assert dead.tap in own_bench.links(), "removed before anybody said which machines live"
    own_bench.service.adopt(living.nic)

    assert dead.tap not in own_bench.links()
    assert str(dead.nic.address) not in own_bench.host("nft", "list", "ruleset")
    assert own_bench.service.call("leaks", [living.nic.machine_id]) == []


def test_a_port_that_was_taken_meanwhile_is_told_by_the_doctor(own_bench: Bench) -> None:
    guest = own_bench.boot(5, SSH)
    own_bench.service.kill()
    with own_bench.listen_on_host(LOOPBACK, 2222):
        own_bench.service.start()
        own_bench.service.adopt(guest.nic)
        (check,) = [c for c in own_bench.service.call("checks") if c["name"] == "bridge-network-ports"]

    assert check["status"] == "WARN"
    assert "2222" in check["detail"]


def test_what_no_machine_needs_is_listed_as_a_leak_with_its_owner(own_bench: Bench) -> None:
    guest = own_bench.boot(5)
    leaks = own_bench.service.call("leaks", [])

    assert {leak["kind"] for leak in leaks} == {"tap", "lease", "rule"}
    assert {leak["owner"] for leak in leaks} == {"tests/1"}
    assert own_bench.service.call("leaks", [guest.nic.machine_id]) == []


def test_detaching_leaves_the_others_and_no_leak(own_bench: Bench) -> None:
    going, staying = own_bench.boot(5), own_bench.boot(6)
    going.end()
    with own_bench.talking(staying):
        own_bench.service.call("detach", going.nic.machine_id)
        own_bench.service.call("detach", going.nic.machine_id)

    assert own_bench.service.call("leaks", [staying.nic.machine_id]) == []


def test_a_tap_ends_with_its_last_holder(own_bench: Bench) -> None:
    guest = own_bench.boot(5)
    assert guest.tap in own_bench.links()
    guest.end()

    assert guest.tap not in own_bench.links()


def test_a_machine_starts_again_on_the_same_tap_and_address(own_bench: Bench) -> None:
    first = own_bench.boot(5)
    first.end()
    own_bench.service.call("detach", first.nic.machine_id)
    own_bench.clear()
    second = own_bench.boot(5)

    assert second.tap == first.tap


def test_a_tap_that_is_in_use_is_not_given_twice(own_bench: Bench) -> None:
    guest = own_bench.boot(5)
    own_bench.service.kill()
    own_bench.service.start()
    own_bench.service.adopt(guest.nic)
    own_bench.service.call("reserve", [])
    with pytest.raises(Exception, match="AddressTakenError"):
        own_bench.boot(6, address=guest.nic.address)


def test_the_turn_of_addresses_outlives_the_service(own_bench: Bench) -> None:
    first = own_bench.service.call("reserve", [])
    own_bench.service.kill()
    own_bench.service.start()

    assert own_bench.service.call("reserve", []) != first


def test_a_taps_alias_names_its_machine(own_bench: Bench) -> None:
    guest = own_bench.boot(5)
    (link,) = json.loads(own_bench.host("ip", "-j", "link", "show", guest.tap))

    assert card(5).machine_id in link["ifalias"]
