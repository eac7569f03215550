"""The end of a stack leaves the host as it was: no link, rule, switch or dnsmasq, however the runner ended.

In network namespaces of the test's own, where nothing but this stack could have left anything. Needs root.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from framework.cloud import Document
from framework.site import Site, running_site
from qcstack import lifecycle
from user_network_world import World

pytestmark = [
    pytest.mark.netns,
    pytest.mark.native("tests/compose ends projects, also behind a killed runner"),
]


@pytest.fixture
def site() -> Iterator[Site]:
    """A stack with a guest on the default network."""
    with running_site("qc-dw-", stop_grace="5s") as running:
        # A namespace begins with what the machine itself forwards, which a container engine may have set.
        running.world.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        assert _left(running.world) == [], "nothing is made before the first card needs it"
        _launched(running)
        yield running


def test_down_leaves_nothing_on_the_host(site: Site) -> None:
    assert len(_left(site.world)) == 5, "a tap, a bridge, two tables, and forwarding could be left"
    site.inside(lambda: lifecycle.down(site.stack.layout))
    assert _left(site.world) == []
    assert _serving(site) == []


def test_down_straight_after_a_kill_of_the_runner_leaves_nothing_either(site: Site) -> None:
    with site.inside(lambda: site.stack.away("qemu-runner")):
        # With its parent ends dnsmasq; bridge and rules stay, for the guest that runs on.
        assert _left(site.world)
        lifecycle_status = lifecycle.status(site.stack.layout)
        assert lifecycle_status.supervisor is not None
        lifecycle_status.supervisor.signal(signal.SIGKILL)
    site.inside(lambda: lifecycle.down(site.stack.layout))
    assert _left(site.world) == []
    assert _serving(site) == []


def _launched(site: Site) -> Document:
    return site.inside(lambda: site.cloud.launch("leaver", nics=[{"network": "qc0"}]))


def _left(world: World) -> list[str]:
    """Return what the namespace of the host has beyond what the test made."""
    links = [link["ifname"] for link in json.loads(world.run("ip", "-j", "link"))]
    tables = world.run("nft", "list", "tables").splitlines()
    forwarding = world.run("sysctl", "-n", "net.ipv4.conf.up0.forwarding").strip()
    return [
        *(name for name in links if name not in {"lo", "up0"}),
        *tables,
        *(["up0 forwards"] if forwarding != "0" else []),
    ]


def _serving(site: Site) -> list[str]:
    """Return the command lines of dnsmasq for this stack."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "dnsmasq" in words and site.stack.layout.bridge in words:
            found.append(words)
    return found
