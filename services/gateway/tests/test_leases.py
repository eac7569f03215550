"""Leases over a real server: heartbeats, and streams that hold them."""

import asyncio
import json

import grpc
import pytest
from framework.api_client import ApiClient
from gateway_fakes import Stand
from servicekit.rpc_errors import RpcProblem

PATH = "/v1/instances/web-1/lease"


def refusal(reason: str) -> RpcProblem:
    return RpcProblem(grpc.StatusCode.FAILED_PRECONDITION, reason, "No.")


async def test_a_heartbeat_answers_the_lease(wire: ApiClient) -> None:
    response = await wire.post(PATH)
    assert response.status_code == 200
    assert response.json()["lease"] == "60s"


@pytest.mark.parametrize("reason", ["LEASE_LOST", "INSTANCE_WITHOUT_LEASE"])
async def test_a_lease_that_is_not_there_is_a_conflict_for_both_ways(
    wire: ApiClient, rest: Stand, reason: str
) -> None:
    rest.controller.answers |= {"RenewLease": refusal(reason), "HoldLease": refusal(reason)}
    for response in (await wire.post(PATH), await wire.get(PATH)):
        assert (response.status_code, response.json()["reason"]) == (409, reason)


async def test_a_heartbeat_takes_no_body(wire: ApiClient) -> None:
    assert (await wire.post(PATH, json={"lease": "60s"})).status_code == 400


async def test_a_stream_tells_renewals_and_why_it_ends(wire: ApiClient, rest: Stand) -> None:
    rest.controller.lease_ends.put_nowait(refusal("LEASE_LOST"))
    async with wire.stream("GET", PATH) as response, asyncio.timeout(10):
        assert response.headers["content-type"].startswith("text/event-stream")
        events = (await response.aread()).decode().strip().split("\n\n")
    name, data = events[0].split("\n")
    assert name == "event: lease"
    document = json.loads(data.removeprefix("data: "))
    wire.contract.check_value(document, wire.contract.schema("Lease"), "lease")
    assert events[1:] == ['event: closed\ndata: {"reason":"LEASE_LOST"}']


async def test_a_client_that_goes_lets_the_lease_go(wire: ApiClient, rest: Stand) -> None:
    async with wire.stream("GET", PATH) as response:
        await anext(response.aiter_lines())
    await asyncio.wait_for(rest.controller.holders_gone.wait(), 10)


async def test_a_gateway_that_stops_ends_the_stream(wire: ApiClient, rest: Stand) -> None:
    async with wire.stream("GET", PATH) as response:
        rest.closing.set()
        async with asyncio.timeout(10):
            await response.aread()
    await asyncio.wait_for(rest.controller.holders_gone.wait(), 10)


async def test_who_only_looks_holds_nothing(wire: ApiClient, rest: Stand) -> None:
    assert (await wire.head(PATH)).status_code == 200
    assert not rest.controller.holders_gone.is_set()
