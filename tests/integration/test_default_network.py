"""The default network through the public API: an address before the boot, names, ports, and nothing left.

The stack runs in network namespaces of its own. What is claimed of a guest is asked of the guest, and what is
claimed of the host is read from the host. Needs root.
"""

import socket
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address
from typing import Any

import pytest
from framework.cloud import Document, document
from framework.site import Site, SiteOf
from framework.stack import eventually
from user_network_world import HOST, World

pytestmark = pytest.mark.netns

LOOPBACK = IPv4Address("127.0.0.1")
FIRST, SECOND = "net-1", "net-2"
GUEST_PORT = 7777
OWN_ADDRESS = 'ip -4 addr show dev eth0 | awk \'/inet / {sub("/.*", "", $2); print $2}\''
UNTIL_ADDRESSED = f'until [ -n "$({OWN_ADDRESS})" ]; do usleep 100000; done; '


@pytest.fixture(scope="module")
def site(site_of: SiteOf) -> Iterator[Site]:
    """A stack with two guests on the default network."""
    with site_of("qc-dn-") as running:
        for name in (FIRST, SECOND):
            running.inside(partial(running.cloud.launch, name))
        for name in (FIRST, SECOND):
            running.inside(partial(running.cloud.wait_ready, name))
            running.run(name, UNTIL_ADDRESSED)
        yield running


def reserved(instance: Document) -> str:
    """Return the one address of the instance, which must be reserved."""
    (nic,) = instance["status"]["nics"]
    (address,) = nic["addresses"]
    assert (nic["network"], address["source"], address["family"]) == ("qc0", "reserved", "ipv4")
    return str(address["address"])


def patch_ports(site: Site, name: str, *ports: dict[str, Any]) -> tuple[int, Document]:
    response = site.inside(
        lambda: site.cloud.api.request(
            "PATCH", f"/v1/instances/{name}", json={"ports": ports}, headers={"Prefer": "wait=60"}
        )
    )
    return response.status_code, document(response)


def connects(world: World, address: IPv4Address, port: int) -> bool:
    try:
        with world.connect(world.host, address, port) as client:
            client.sendall(b"hello\n")
            return client.recv(64) != b""
    except OSError:
        return False


def test_the_address_stands_before_the_first_boot_and_goes_with_the_instance(site: Site) -> None:
    def launch(name: str) -> Document:
        return site.inside(lambda: site.cloud.launch(name, start=False))

    instance = launch("unborn-1")
    address = reserved(instance)
    assert instance["status"]["state"] == "STOPPED"
    assigned = next(one for one in instance["status"]["conditions"] if one["type"] == "AddressAssigned")
    assert (assigned["status"], assigned["reason"]) == ("TRUE", "AddressReserved")
    site.delete("unborn-1")
    successor = reserved(launch("unborn-2"))
    site.delete("unborn-2")
    assert successor != address, "a released address is not handed out again at once"


def test_the_guest_has_the_address_that_was_reserved(site: Site) -> None:
    for name in (FIRST, SECOND):
        assert site.run(name, OWN_ADDRESS).split() == [reserved(site.get(name))]


def test_guests_find_each_other_by_name_both_ways(site: Site) -> None:
    address = reserved(site.get(FIRST))
    assert address in site.run(SECOND, f"nslookup {FIRST}.qc.internal")
    assert f"{FIRST}.qc.internal" in site.run(SECOND, f"nslookup {address}")


def test_guests_reach_each_other(site: Site) -> None:
    site.serve(FIRST, 7001, "from-net-1")
    assert "1 packets received" in site.run(SECOND, f"ping -c 1 -W 10 {FIRST}.qc.internal")
    assert site.run(SECOND, f"nc -w 10 {FIRST}.qc.internal 7001 </dev/null").strip() == "from-net-1"


def test_a_port_is_published_and_withdrawn_while_the_guest_runs(site: Site) -> None:
    boot_id = site.inside(lambda: site.cloud.boot_id(FIRST))
    site.serve(FIRST, GUEST_PORT, "published")
    status, answer = patch_ports(site, FIRST, {"host": 2201, "guest": GUEST_PORT})
    assert (status, answer.get("notes")) == (200, None), "it takes effect at once"
    assert [port["host"] for port in answer["status"]["nics"][0]["ports"]] == [2201]
    with site.world.connect(site.world.host, LOOPBACK, 2201) as client:
        assert client.recv(64) == b"published\n"
    assert not connects(site.world, HOST, 2201), "on the loopback alone unless an address is given"
    status, _ = patch_ports(site, FIRST)
    assert status == 200
    assert not connects(site.world, LOOPBACK, 2201)
    assert site.inside(lambda: site.cloud.boot_id(FIRST)) == boot_id


def test_a_port_is_published_on_the_address_that_is_given(site: Site) -> None:
    site.serve(FIRST, 7003, "published")
    status, _ = patch_ports(site, FIRST, {"host": 2203, "guest": 7003, "address": str(HOST)})
    assert status == 200
    assert connects(site.world, HOST, 2203)
    assert patch_ports(site, FIRST)[0] == 200


def test_a_port_that_somebody_listens_on_is_refused_at_once(site: Site) -> None:
    listener: socket.socket = site.world.listen(site.world.host, LOOPBACK, 2202)
    with listener:
        status, problem = patch_ports(site, FIRST, {"host": 2202, "guest": 80})
        assert (status, problem["reason"]) == (409, "PORT_IN_USE")
        body = {"name": "late", "image": "tiny", "ports": [{"host": 2202, "guest": 80}]}
        refused = site.inside(lambda: site.cloud.api.request("POST", "/v1/instances", json=body))
        assert (refused.status_code, document(refused)["reason"]) == (409, "PORT_IN_USE")
    assert site.get(FIRST)["status"]["nics"][0]["ports"] == []


def test_a_port_of_another_instance_is_refused_at_once(site: Site) -> None:
    assert patch_ports(site, FIRST, {"host": 2204, "guest": 80})[0] == 200
    status, problem = patch_ports(site, SECOND, {"host": 2204, "guest": 80})
    assert (status, problem["reason"]) == (409, "PORT_IN_USE")
    assert patch_ports(site, FIRST)[0] == 200


def test_restarts_of_the_services_leave_guest_address_and_ports(site: Site) -> None:
    site.serve(FIRST, 7005, "still-here")
    assert patch_ports(site, FIRST, {"host": 2205, "guest": 7005})[0] == 200
    boot_id = site.inside(lambda: site.cloud.boot_id(FIRST))
    address = reserved(site.get(FIRST))
    for service in ("qemu-runner", "controller"):
        site.inside(partial(site.stack.kill_and_wait_restarted, service))
    eventually(lambda: _observed(site, FIRST), "the machine is observed again")
    assert reserved(site.get(FIRST)) == address
    assert site.run(FIRST, OWN_ADDRESS).split() == [address]
    assert site.inside(lambda: site.cloud.boot_id(FIRST)) == boot_id
    eventually(lambda: connects(site.world, LOOPBACK, 2205), "the published port leads to the guest again")
    assert f"{FIRST}.qc.internal" in site.run(SECOND, f"nslookup {address}")
    assert patch_ports(site, FIRST)[0] == 200


def test_the_address_survives_stop_and_start(site: Site) -> None:
    before = reserved(site.get(SECOND))
    stopped = site.inside(lambda: site.cloud.verb(SECOND, "stop", force=True))
    assert reserved(stopped) == before
    site.inside(lambda: site.cloud.verb(SECOND, "start"))
    site.inside(lambda: site.cloud.wait_ready(SECOND))
    assert site.run(SECOND, UNTIL_ADDRESSED + OWN_ADDRESS).split() == [before]


def test_nothing_is_leaked_while_guests_run_and_nothing_is_left_behind_them(site: Site) -> None:
    assert site.inside(site.cloud.leaks) == []
    for name in (FIRST, SECOND):
        site.delete(name)
    assert site.inside(site.cloud.leaks) == []
    left = site.links() - site.links_before
    assert left == {site.stack.layout.bridge}, "the bridge alone belongs to the stack"


def _observed(site: Site, name: str) -> bool:
    conditions = site.get(name)["status"]["conditions"]
    running = next(one for one in conditions if one["type"] == "MachineRunning")
    return bool(running["status"] == "TRUE")


@pytest.mark.native("containers have no passt")
def test_a_guest_on_both_networks_has_both_addresses(site: Site) -> None:
    instance = site.launch_ready("both-1", nics=[{"network": "qc0"}, {"network": "user"}])
    told = [nic["addresses"][0]["address"] for nic in instance["status"]["nics"]]
    own = site.run(
        "both-1", "until [ $(ip -4 addr | grep -c 'inet 10[.]') = 2 ]; do usleep 100000; done; ip -4 addr"
    )
    assert [address for address in told if f"inet {address}/" in own] == told
    site.delete("both-1")
