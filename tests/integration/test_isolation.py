"""From inside a guest the control plane cannot be reached, on any address of the host and on either network.

The whole real stack runs in a network namespace of its own, whose default route leads to a second one that
stands for the world. The positive control: the same probe from the same guest reaches a listener in the
world, and a published port reaches the guest. Needs root.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from framework.attack import HOSTILE
from framework.site import Site, SiteOf
from user_network_world import HOST, WORLD, reached

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
PRISONER = "prisoner"
PUBLISHED = 2222
CONTROL_PORT = 9001


@pytest.fixture(
    scope="module",
    params=[pytest.param("user", marks=pytest.mark.native("containers have no passt")), "qc0"],
)
def site(site_of: SiteOf, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A guest with one published port on one of the networks, behind the whole stack."""
    with site_of("qc-ns-") as running:
        running.launch_ready(
            PRISONER, nics=[{"network": request.param}], ports=[{"host": PUBLISHED, "guest": 7777}]
        )
        yield running
        running.delete(PRISONER)


@pytest.fixture
def targets(site: Site) -> list[tuple[str, int]]:
    """Every port of the control plane, on every address that might lead to the host."""
    layout = site.stack.layout
    ports = [layout.gateway_port, layout.controller_port, layout.image_store_port, PUBLISHED]
    gateway = site.run(PRISONER, "ip route | awk '/^default/ {print $3; exit}'").strip()
    addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", str(HOST), gateway]
    addresses += site.stack.gateways()
    return [*((address, port) for address in addresses for port in ports), *site.stack.inner_doors()]


def test_a_guest_reaches_the_world_but_no_port_of_the_control_plane(
    site: Site, targets: list[tuple[str, int]]
) -> None:
    control = site.world.listen(site.world.world, WORLD, CONTROL_PORT)
    with control:
        found = site.probe(PRISONER, [*targets, (str(WORLD), CONTROL_PORT)])
        assert reached(control), "the control failed: the probe reaches nothing at all"
    assert found == {(str(WORLD), CONTROL_PORT)}


def test_a_published_port_leads_to_the_guest(site: Site) -> None:
    site.serve(PRISONER, 7777, "from-the-guest")
    with site.world.connect(site.world.host, LOOPBACK, PUBLISHED) as client:
        # Debian 12's passt tells a server of its client only when the client has said something.
        client.sendall(b"hello\n")
        assert client.recv(64) == b"from-the-guest\n"


def test_a_hostile_guest_that_sends_to_the_loopback_reaches_nothing_either(
    site: Site, targets: list[tuple[str, int]]
) -> None:
    control = site.world.listen(site.world.world, WORLD, CONTROL_PORT)
    site.run(PRISONER, HOSTILE)
    with control:
        found = site.probe(PRISONER, [*targets, (str(WORLD), CONTROL_PORT)])
        assert reached(control), "the control failed: the probe reaches nothing at all"
    assert found == {(str(WORLD), CONTROL_PORT)}
