"""A `tcp` probe through passt, which accepts in the guest's place: what counts is the guest. Needs root."""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from framework.cloud import Document, document
from framework.site import Site, SiteOf

pytestmark = [pytest.mark.netns, pytest.mark.native("containers have no passt")]

LOOPBACK = IPv4Address("127.0.0.1")
NAME = "behind-passt"
PUBLISHED = 2223
PORT = 7777


@pytest.fixture
def site(site_of: SiteOf) -> Iterator[Site]:
    """A guest behind passt that answers its agent and serves nothing, with one published port."""
    with site_of("qc-fw-") as running:
        running.inside(
            lambda: running.cloud.launch(
                NAME,
                nics=[{"network": "user"}],
                ports=[{"host": PUBLISHED, "guest": PORT}],
                readiness={"all": [{"agent": {}}, {"tcp": {"port": PORT}}], "deadline": "600s"},
            )
        )
        assert wait(running, "AgentConnected", 300)[0] == 200
        yield running
        running.delete(NAME)


def wait(site: Site, condition: str, timeout_s: int) -> tuple[int, Document]:
    """Wait for a condition of the guest; return status and body."""
    response = site.inside(
        lambda: site.cloud.api.request(
            "GET", f"/v1/instances/{NAME}/wait", params={"condition": condition, "timeout": timeout_s}
        )
    )
    return response.status_code, document(response)


def test_a_connection_that_only_passt_accepts_makes_nobody_ready(site: Site) -> None:
    # Longer than passt needs to find out that nobody is there.
    with site.world.connect(site.world.host, LOOPBACK, PUBLISHED):
        status, problem = wait(site, "Ready", 25)
    assert (status, problem["reason"]) == (504, "READINESS_TIMEOUT")
    assert problem["metadata"]["evidence"].startswith(f"Still missing: tcp {PORT} (")

    site.serve(NAME, PORT, "from-the-guest")
    status, instance = wait(site, "Ready", 120)
    assert (status, instance["name"]) == (200, NAME)
