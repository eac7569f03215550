"""What is read of links, addresses and routes, against what iproute2 says. Needs root."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest
from qemu_runner.bridge_network.adapters.look import look
from qemu_runner.bridge_network.host_view import HostView
from user_network_world import HOST, WORLD, World, made_world

pytestmark = pytest.mark.netns


@pytest.fixture(name="world", scope="module")
def _world() -> Iterator[World]:
    with made_world() as world:
        world.run("ip", "link", "add", "br7", "address", "02:00:00:00:00:07", "type", "bridge")
        world.run("ip", "link", "set", "dev", "br7", "alias", "a note")
        world.run("ip", "link", "add", "d7", "master", "br7", "type", "veth", "peer", "d8")
        world.run("ip", "route", "add", "10.1.0.0/16", "via", str(WORLD))
        world.run("ip", "route", "add", "10.2.0.0/16", "table", "77", "dev", "up0")
        world.run("ip", "route", "add", "unreachable", "10.3.0.0/16")
        hops = ["nexthop", "via", str(WORLD), "nexthop", "via", "198.51.100.2"]
        world.run("ip", "route", "add", "10.4.0.0/16", *hops)
        yield world


@pytest.fixture(name="view", scope="module")
def _view(world: World) -> HostView:
    return world.inside(world.host, look)


def test_a_link_has_its_kind_alias_mac_and_state(view: HostView) -> None:
    link = view.link("br7")

    assert link is not None
    assert (link.kind, link.alias, link.mac, link.up) == ("bridge", "a note", "02:00:00:00:00:07", False)


def test_a_port_names_its_bridge(view: HostView) -> None:
    bridge, port = view.link("br7"), view.link("d7")

    assert bridge is not None
    assert port is not None
    assert port.master == bridge.index


def test_an_address_names_its_interface(view: HostView) -> None:
    link = view.link("up0")

    assert link is not None
    assert (link.index, HOST) in view.addresses


def test_routes_of_every_table_but_local_are_seen(view: HostView) -> None:
    seen = {route.destination for route in view.routes}

    assert {IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16"), IPv4Network("0.0.0.0/0")} <= seen
    assert IPv4Network(f"{HOST}/32") not in seen


def test_a_route_that_leads_nowhere_is_none(view: HostView) -> None:
    assert IPv4Network("10.3.0.0/16") not in {route.destination for route in view.routes}


def test_every_next_hop_of_a_route_counts(view: HostView) -> None:
    (route,) = [route for route in view.routes if route.destination == IPv4Network("10.4.0.0/16")]
    link = view.link("up0")

    assert link is not None
    assert route.interfaces == (link.index, link.index)


def test_the_default_route_is_the_uplink(view: HostView) -> None:
    assert view.uplinks("br7") == ("up0",)
    assert view.clash(IPv4Network("10.1.128.0/24"), "br7") is not None
    assert view.addresses
    assert IPv4Address("127.0.0.1") in {address for _, address in view.addresses}
