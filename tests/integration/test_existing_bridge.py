"""A bridge that somebody else made, with a DHCP server of its own: the network `bridge:<ifname>`.

Bridge and dnsmasq are the documented example (examples/bridge-dnsmasq.conf), in network namespaces of the
test's own. Needs root.
"""

import json
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from framework.cloud import Document, document
from framework.guests import ROOT
from framework.site import Site, SiteOf
from framework.stack import eventually

pytestmark = pytest.mark.netns

BRIDGE = "br-lab"
OWN = IPv4Address("10.99.0.1")
POOL = IPv4Network("10.99.0.0/24")
NAME = "bridged"
# Gone for good, also for whoever would start it again.
WITHOUT_AGENT = "chmod 0 $(which qemu-ga); (sleep 1; killall -9 qemu-ga) >/dev/null 2>&1 </dev/null &"


@pytest.fixture(scope="module")
def site(site_of: SiteOf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack on a host that has a bridge and a DHCP server on it."""
    leases = tmp_path_factory.mktemp("dnsmasq") / "leases"
    with site_of("qc-br-") as running:
        for words in (
            f"link add {BRIDGE} type bridge",
            f"addr add {OWN}/{POOL.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
        ):
            running.world.run("ip", *words.split())
        with _dnsmasq(running, leases):
            yield running


def _dnsmasq(site: Site, leases: Path) -> "_Server":
    example = ROOT / "examples" / "bridge-dnsmasq.conf"
    options = ["--keep-in-foreground", f"--conf-file={example}", f"--dhcp-leasefile={leases}", "--pid-file="]
    words = [*site.world.enter(site.world.host), "dnsmasq", *options, "--user=root", "--group=root"]
    return _Server(words)


class _Server:
    """A process that is ended with the context."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL)

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture(scope="module")
def instance(site: Site) -> Iterator[Document]:
    """A guest on the bridge whose agent has told an address."""
    site.launch_ready(NAME, nics=[{"network": f"bridge:{BRIDGE}"}])
    # Until the agent has told one, the host's neighbours may.
    yield eventually(lambda: found if told_by_agent(found := site.get(NAME)) else None, "the agent tells it")
    site.delete(NAME)


def addresses(instance: Document) -> list[tuple[str, str]]:
    return [(one["address"], one["source"]) for nic in instance["status"]["nics"] for one in nic["addresses"]]


def told_by_agent(instance: Document) -> bool:
    return "agent" in {source for _, source in addresses(instance)}


def ports_of(site: Site) -> list[str]:
    links = json.loads(site.world.run("ip", "-j", "link", "show", "master", BRIDGE))
    return [link["ifname"] for link in links]


def test_the_address_is_the_bridges_own_dhcp_servers_and_the_agent_tells_it(
    site: Site, instance: Document
) -> None:
    assert instance["status"]["nics"][0]["network"] == f"bridge:{BRIDGE}"
    ((address, source),) = addresses(instance)
    assert source == "agent"
    assert IPv4Address(address) in POOL
    assert address in site.run(NAME, "ip -4 addr show dev eth0")


def test_the_guest_reaches_what_the_bridge_reaches(site: Site, instance: Document) -> None:
    listener = site.world.listen(site.world.host, OWN, 9001)
    with listener:
        assert site.probe(NAME, [(str(OWN), 9001)]) == {(str(OWN), 9001)}


def test_nothing_of_the_bridge_is_changed_but_the_port(site: Site, instance: Document) -> None:
    assert len(ports_of(site)) == 1
    (bridge,) = json.loads(site.world.run("ip", "-j", "addr", "show", "dev", BRIDGE))
    assert [one["local"] for one in bridge["addr_info"] if one["family"] == "inet"] == [str(OWN)]
    assert BRIDGE not in site.world.run("nft", "list", "ruleset")


def test_ports_cannot_be_published_there(site: Site, instance: Document) -> None:
    refused = site.inside(
        lambda: site.cloud.api.request(
            "PATCH", f"/v1/instances/{NAME}", json={"ports": [{"host": 2222, "guest": 22}]}
        )
    )
    assert (refused.status_code, document(refused)["reason"]) == (400, "FIELD_INVALID")


def test_without_an_agent_the_hosts_neighbours_tell_the_address(site: Site, instance: Document) -> None:
    ((address, _),) = addresses(instance)
    site.run(NAME, WITHOUT_AGENT)
    site.inside(lambda: site.stack.kill_and_wait_restarted("qemu-runner"))

    def spoken_to() -> bool:
        # The host knows whom it speaks to; that nobody listens there is an answer too.
        try:
            site.world.connect(site.world.host, IPv4Address(address), 9).close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(spoken_to, "the guest answers the host")
    eventually(lambda: addresses(site.get(NAME)) == [(address, "neighbour")], "the neighbour is shown")


def test_the_tap_goes_with_the_machine_and_the_bridge_stays(site: Site, instance: Document) -> None:
    stopped = site.inside(lambda: site.cloud.verb(NAME, "stop", force=True))
    assert addresses(stopped) == []
    assert ports_of(site) == []
    assert site.inside(site.cloud.leaks) == []


def test_a_bridge_that_is_not_there_is_refused_with_advice(site: Site) -> None:
    body = {"name": "nowhere", "image": "tiny", "nics": [{"network": "bridge:br-none"}]}
    refused = site.inside(lambda: site.cloud.api.request("POST", "/v1/instances", json=body))
    problem = document(refused)
    assert (refused.status_code, problem["reason"]) == (422, "NETWORK_UNAVAILABLE")
    assert "To mend it: make the bridge" in problem["detail"]


def test_an_interface_that_is_no_bridge_is_refused(site: Site) -> None:
    body = {"name": "nowhere", "image": "tiny", "nics": [{"network": "bridge:up0"}]}
    refused = site.inside(lambda: site.cloud.api.request("POST", "/v1/instances", json=body))
    assert "is no bridge" in document(refused)["detail"]
