"""From inside a guest the control plane cannot be reached, on any address of the host.

The whole real stack runs in a network namespace of its own, whose default route leads to a second one that
stands for the world. The positive control: the same probe from the same guest reaches a listener in the
world, and a published port reaches the guest. Needs root.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document
from framework.stack import Stack, running_stack
from user_network_world import HOST, WORLD, World, made_world, reached

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
PUBLISHED = 2222
CONTROL_PORT = 9001
# Makes the guest's kernel send packets for the loopback network to its gateway instead of itself.
HOSTILE = """
gateway=$(ip route | awk '/^default/ {print $3; exit}')
address=$(ip -4 addr show dev eth0 | awk '/inet / {sub("/.*", "", $2); print $2; exit}')
for f in all default eth0; do
  echo 1 > /proc/sys/net/ipv4/conf/$f/route_localnet
  echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter
done
ip addr flush dev lo; ip link set lo down
ip route add 127.0.0.0/8 via $gateway dev eth0 src $address
"""


class Site:
    """The stack inside its namespace, and a guest in it."""

    def __init__(self, world: World, stack: Stack, cloud: Cloud, instance: Document) -> None:
        """Keep the parts."""
        self.world = world
        self.stack = stack
        self.cloud = cloud
        self.name: str = instance["name"]
        nic = instance["status"]["nics"][0]
        self.addresses = [address["address"] for address in nic["addresses"]]

    def run(self, script: str) -> str:
        """Run a shell script in the guest and return what it printed."""
        answer: Document = self.world.inside(
            self.world.host, lambda: self.cloud.exec(self.name, "/bin/sh", "-c", script, timeout="60s")
        )
        return str(answer["stdout"])

    def probe(self, targets: list[tuple[str, int]]) -> set[tuple[str, int]]:
        """Try to connect from the guest to every target at once; return those that were reached."""
        tries = "".join(
            f"(nc -w 4 {address} {port} </dev/null >/dev/null 2>&1 && echo {address} {port}) &\n"
            for address, port in targets
        )
        lines = self.run(f"{tries}wait").splitlines()
        return {(address, int(port)) for address, port in (line.split() for line in lines)}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A guest with one published port, behind the whole stack."""
    with made_world() as world:
        stack_context = running_stack("qc-ns-")
        stack = world.inside(world.host, stack_context.__enter__)
        try:
            with BlockingApiClient(stack.base_url) as api:
                cloud = Cloud(stack, api)

                def launch() -> Document:
                    cloud.upload("tiny", guests.tiny())
                    return cloud.launch_ready("prisoner", ports=[{"host": PUBLISHED, "guest": 7777}])

                yield Site(world, stack, cloud, world.inside(world.host, launch))
                world.inside(world.host, lambda: cloud.delete("prisoner"))
        finally:
            world.inside(world.host, lambda: stack_context.__exit__(None, None, None))


@pytest.fixture
def targets(site: Site) -> list[tuple[str, int]]:
    """Every port of the control plane, on every address that might lead to the host."""
    layout = site.stack.layout
    ports = [layout.gateway_port, layout.controller_port, layout.image_store_port, PUBLISHED]
    gateway = site.run("ip route | awk '/^default/ {print $3; exit}'").strip()
    addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", str(HOST), gateway]
    return [(address, port) for address in addresses for port in ports]


def test_a_guest_reaches_the_world_but_no_port_of_the_control_plane(
    site: Site, targets: list[tuple[str, int]]
) -> None:
    control = site.world.listen(site.world.world, WORLD, CONTROL_PORT)
    with control:
        found = site.probe([*targets, (str(WORLD), CONTROL_PORT)])
        assert reached(control), "the control failed: the probe reaches nothing at all"
    assert found == {(str(WORLD), CONTROL_PORT)}


def test_a_published_port_leads_to_the_guest(site: Site) -> None:
    listening = "until grep -q ':1E61 ' /proc/net/tcp /proc/net/tcp6; do usleep 50000; done"
    site.run(
        "(while :; do echo from-the-guest | nc -l -p 7777; done) >/dev/null 2>&1 </dev/null &\n" + listening
    )
    with site.world.connect(site.world.host, LOOPBACK, PUBLISHED) as client:
        # Debian 12's passt tells a server of its client only when the client has said something.
        client.sendall(b"hello\n")
        assert client.recv(64) == b"from-the-guest\n"


def test_a_hostile_guest_that_sends_to_the_loopback_reaches_nothing_either(
    site: Site, targets: list[tuple[str, int]]
) -> None:
    control = site.world.listen(site.world.world, WORLD, CONTROL_PORT)
    site.run(HOSTILE)
    with control:
        found = site.probe([*targets, (str(WORLD), CONTROL_PORT)])
        assert reached(control), "the control failed: the probe reaches nothing at all"
    assert found == {(str(WORLD), CONTROL_PORT)}
