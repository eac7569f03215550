"""Server-sent events through a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from framework.api_client import ApiClient
from gateway_fakes import Stand, event, gap
from qcontroller.controller.v1 import host_pb2
from servicekit.rpc_errors import RpcProblem


async def lines_of(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        yield line


async def until(lines: AsyncIterator[str], beginning: str) -> str:
    async with asyncio.timeout(10):
        async for line in lines:
            if line.startswith(beginning):
                return line
    raise AssertionError(f"no line begins with {beginning}")


async def test_an_event_is_id_type_and_data(wire: ApiClient, rest: Stand) -> None:
    rest.controller.events.put_nowait(event("c1"))
    async with wire.stream("GET", "/v1/events") as response:
        lines = lines_of(response)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert await until(lines, "id: c") == "id: c1"
        assert await until(lines, "event:") == "event: instance.updated"
        document = json.loads((await until(lines, "data:")).removeprefix("data: "))
    wire.contract.check_value(document, wire.contract.schema("Event"), "event")
    assert document["resource"] == {"name": "web-1", "vm": {"cpus": 2}, "speed": 0.5}


async def test_an_operation_that_failed_carries_a_whole_problem(wire: ApiClient, rest: Stand) -> None:
    failed = event("c1", "operation.finished")
    failed.resource.Clear()
    error: dict[str, Any] = {"reason": "DISK_FULL", "detail": "No room.", "metadata": {"node": "node-1"}}
    failed.resource.update({"id": "op-1", "traceId": "ab", "error": error})
    rest.controller.events.put_nowait(failed)
    async with wire.stream("GET", "/v1/events") as response:
        document = json.loads((await until(lines_of(response), "data:")).removeprefix("data: "))
    problem = document["resource"]["error"]
    wire.contract.check_value(problem, wire.contract.schema("Problem"), "error")
    assert (problem["status"], problem["instance"]) == (503, "/v1/operations/op-1")


@pytest.mark.parametrize(
    ("query", "headers", "cursor"),
    [
        ("", {}, ""),
        ("?cursor=a", {}, "a"),
        ("", {"Last-Event-ID": "b"}, "b"),
        ("?cursor=a", {"Last-Event-ID": "b"}, "b"),
    ],
)
async def test_a_watch_resumes_from_the_cursor(
    wire: ApiClient, rest: Stand, query: str, headers: dict[str, str], cursor: str
) -> None:
    async with wire.stream("GET", f"/v1/events{query}", headers=headers):
        pass
    assert rest.controller.last(host_pb2.WatchEventsRequest).cursor == cursor


async def test_a_stream_begins_with_the_cursor_of_its_start(wire: ApiClient) -> None:
    async with wire.stream("GET", "/v1/events") as response:
        assert await until(lines_of(response), "id:") == "id: start"


async def test_filters_are_the_controllers_to_apply(wire: ApiClient, rest: Stand) -> None:
    async with wire.stream("GET", "/v1/events?instance=web-1&instance=web-2&type=instance.deleted"):
        pass
    asked = rest.controller.last(host_pb2.WatchEventsRequest)
    assert (list(asked.instances), list(asked.types)) == (["web-1", "web-2"], ["instance.deleted"])


async def test_a_type_that_no_event_has_is_refused(wire: ApiClient) -> None:
    response = await wire.get("/v1/events?type=instance.exploded")
    assert (response.status_code, response.json()["reason"]) == (400, "FIELD_INVALID")


async def test_silence_is_broken_by_heartbeats(wire: ApiClient) -> None:
    async with wire.stream("GET", "/v1/events") as response:
        assert await until(lines_of(response), ": heartbeat") == ": heartbeat"


async def test_a_gap_ends_the_stream(wire: ApiClient, rest: Stand) -> None:
    rest.controller.events.put_nowait(gap("g"))
    async with wire.stream("GET", "/v1/events") as response, asyncio.timeout(10):
        body = await response.aread()
    assert b"id: g\nevent: stream.gap" in body
    assert body.endswith(b": closed: READER_TOO_SLOW\n\n")


async def test_a_controller_that_ends_the_stream_is_named(wire: ApiClient, rest: Stand) -> None:
    rest.controller.events.put_nowait(None)
    async with wire.stream("GET", "/v1/events") as response, asyncio.timeout(10):
        assert (await response.aread()).endswith(b": closed: CONTROLLER_UNAVAILABLE\n\n")


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "CURSOR_INVALID", 400),
        (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED", 410),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 503),
    ],
)
async def test_a_refused_cursor_is_a_problem(
    wire: ApiClient, rest: Stand, code: grpc.StatusCode, reason: str, status: int
) -> None:
    rest.controller.answers["WatchEvents"] = RpcProblem(code, reason, "No.")
    assert (await wire.get("/v1/events?cursor=x")).status_code == status


async def test_a_client_that_goes_ends_the_watch(wire: ApiClient, rest: Stand) -> None:
    async with wire.stream("GET", "/v1/events"):
        pass
    await asyncio.wait_for(rest.controller.watchers_gone.wait(), 10)


async def test_a_gateway_that_stops_ends_the_stream(wire: ApiClient, rest: Stand) -> None:
    async with wire.stream("GET", "/v1/events") as response:
        rest.closing.set()
        async with asyncio.timeout(10):
            assert (await response.aread()).endswith(b": closed: GATEWAY_STOPPING\n\n")


async def test_head_of_the_events_ends_at_once(wire: ApiClient) -> None:
    assert (await wire.head("/v1/events")).status_code == 200
