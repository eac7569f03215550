"""What is asked of a guest, over HTTP."""

import grpc
from framework.api_client import ApiClient
from gateway_fakes import Stand
from servicekit.rpc_errors import RpcProblem

GUEST = "/v1/instances/web-1/guest"


def no_agent() -> RpcProblem:
    return RpcProblem(grpc.StatusCode.FAILED_PRECONDITION, "GUEST_AGENT_UNAVAILABLE", "Nobody answers.")


async def test_a_guests_report_holds_what_it_told_and_nothing_else(wire: ApiClient) -> None:
    document = (await wire.get(GUEST)).json()
    assert document["timeZone"] == {"name": "CET", "offsetSeconds": 3600}
    assert document["filesystems"] == [
        {"mountpoint": "/", "device": "vda1", "type": "ext4", "totalBytes": 2**40, "usedBytes": 0},
        {"mountpoint": "/mnt", "device": "vdb", "type": "iso9660"},
    ]
    assert document["memory"] == {"source": "balloon", "totalBytes": 2**31}
    assert document["users"] == [{"name": "ada", "domain": "", "loginTime": "2026-01-01T00:00:00Z"}]


async def test_a_guest_without_agent_is_a_conflict(wire: ApiClient, rest: Stand) -> None:
    rest.controller.answers["GetGuest"] = no_agent()
    response = await wire.get(GUEST)
    assert (response.status_code, response.json()["reason"]) == (409, "GUEST_AGENT_UNAVAILABLE")


async def test_the_guest_of_no_instance_is_not_found(wire: ApiClient) -> None:
    assert (await wire.get("/v1/instances/absent/guest")).status_code == 404
