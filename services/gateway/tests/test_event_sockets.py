"""The event log over WebSocket, through a real server and another's client."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from framework.api_client import Contract
from gateway.backends import backends
from gateway.calls import Call
from gateway.contract import load_contract
from gateway.errors import PeerUnavailableError
from gateway.watching import open_watch
from gateway_fakes import Stand, event, gap
from qcontroller.controller.v1 import host_pb2
from servicekit.rpc_errors import RpcProblem
from starlette.requests import Request
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

CONTRACT = Contract()


async def message(socket: ClientConnection) -> dict[str, Any]:
    """Return the next message, which must be an Event."""
    async with asyncio.timeout(10):
        document: dict[str, Any] = json.loads(await socket.recv(decode=True))
    CONTRACT.check_value(document, CONTRACT.schema("Event"), "message")
    return document


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Return code and reason of the end, after whatever is still to come."""
    await asyncio.wait_for(socket.wait_closed(), 10)
    return socket.close_code or 0, socket.close_reason or ""


async def refusal(url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Return status and problem of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, **options):
            pass
    response = caught.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(response.body or b"")
    CONTRACT.check_value(problem, CONTRACT.schema("Problem"), "refusal")
    return response.status_code, problem


HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture
def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/v1/events"


async def test_the_first_message_tells_where_the_stream_starts(url: str) -> None:
    async with connect(url) as socket:
        first = await message(socket)
    assert (first["type"], first["cursor"]) == ("stream.opened", "start")


async def test_each_event_is_a_message_with_its_cursor(url: str, rest: Stand) -> None:
    rest.controller.events.put_nowait(event("c1"))
    rest.controller.events.put_nowait(event("c2", "instance.deleted"))
    async with connect(url) as socket:
        await message(socket)
        first, second = await message(socket), await message(socket)
    assert (first["cursor"], first["type"]) == ("c1", "instance.updated")
    assert first["resource"] == {"name": "web-1", "vm": {"cpus": 2}, "speed": 0.5}
    assert second["cursor"] == "c2"


@pytest.mark.parametrize(
    ("query", "headers", "cursor"),
    [("?cursor=a", {}, "a"), ("", {"Last-Event-ID": "b"}, "b"), ("?cursor=a", {"Last-Event-ID": "b"}, "b")],
)
async def test_a_socket_resumes_as_the_server_sent_form_does(
    url: str, rest: Stand, query: str, headers: dict[str, str], cursor: str
) -> None:
    async with connect(url + query, additional_headers=headers) as socket:
        await message(socket)
    assert rest.controller.last(host_pb2.WatchEventsRequest).cursor == cursor


async def test_filters_are_handed_on(url: str, rest: Stand) -> None:
    async with connect(f"{url}?instance=web-1&type=instance.updated&type=instance.deleted") as socket:
        await message(socket)
    asked = rest.controller.last(host_pb2.WatchEventsRequest)
    assert (list(asked.instances), list(asked.types)) == (["web-1"], ["instance.updated", "instance.deleted"])


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "CURSOR_INVALID", 400),
        (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED", 410),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 503),
    ],
)
async def test_a_refused_cursor_is_a_refused_handshake(
    url: str, rest: Stand, code: grpc.StatusCode, reason: str, status: int
) -> None:
    rest.controller.answers["WatchEvents"] = RpcProblem(code, reason, "No.")
    assert (await refusal(f"{url}?cursor=x"))[0] == status


@pytest.mark.parametrize("query", ["lastEventId=x", "cursor=a&cursor=b", "type=instance.exploded"])
async def test_a_faulty_query_is_a_refused_handshake(url: str, query: str) -> None:
    status, problem = await refusal(f"{url}?{query}")
    assert (status, problem["reason"]) == (400, "FIELD_INVALID")


async def test_a_page_of_another_origin_gets_no_socket(url: str) -> None:
    status, problem = await refusal(url, origin=Origin("https://elsewhere.example"))
    assert (status, problem["reason"]) == (403, "ORIGIN_NOT_ALLOWED")


async def test_a_page_of_this_origin_gets_one(url: str) -> None:
    async with connect(url, origin=Origin("http://localhost:3000")) as socket:
        assert (await message(socket))["type"] == "stream.opened"


async def test_a_strange_host_gets_no_socket(port: int) -> None:
    status, problem = await refusal("ws://rebound.example/v1/events", host="127.0.0.1", port=port)
    assert (status, problem["reason"]) == (421, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("path", ["/v1/instances", "/nowhere", "/v1/swagger/index.html"])
async def test_no_other_path_is_a_socket(port: int, path: str) -> None:
    status, problem = await refusal(f"ws://127.0.0.1:{port}{path}")
    assert (status, problem["reason"]) == (400, "WEBSOCKET_NOT_SERVED")


async def test_a_gap_closes_the_socket_with_its_reason(url: str, rest: Stand) -> None:
    rest.controller.events.put_nowait(gap("g"))
    async with connect(url) as socket:
        await message(socket)
        told = await message(socket)
        assert await closed(socket) == (4410, "READER_TOO_SLOW")
    assert (told["type"], told["resource"]["reason"]) == ("stream.gap", "READER_TOO_SLOW")


async def test_a_controller_that_goes_closes_the_socket_for_a_while(url: str, rest: Stand) -> None:
    rest.controller.events.put_nowait(None)
    async with connect(url) as socket:
        assert await closed(socket) == (1013, "CONTROLLER_UNAVAILABLE")


async def test_a_gateway_that_stops_closes_the_socket(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await message(socket)
        rest.closing.set()
        assert await closed(socket) == (1012, "GATEWAY_STOPPING")


async def test_a_client_that_speaks_is_told_that_nobody_listens(url: str) -> None:
    async with connect(url) as socket:
        await socket.send("hello?")
        assert await closed(socket) == (1003, "EVENTS_ONLY")


@pytest.mark.parametrize("headers", ["", HANDSHAKE], ids=["server-sent", "socket"])
async def test_a_client_that_takes_nothing_holds_up_no_stop(port: int, rest: Stand, headers: str) -> None:
    large = event("c")
    large.resource.update({"padding": "x" * 1_000_000})
    for _ in range(40):
        rest.controller.events.put_nowait(large)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
    assert await reader.readline()
    rest.closing.set()
    await asyncio.wait_for(rest.controller.watchers_gone.wait(), 10)
    writer.close()
    assert not rest.controller.events.empty()


async def test_without_its_controller_the_log_is_not_to_be_had() -> None:
    contract = load_contract()
    nowhere = "unix:/nonexistent/c.sock"
    async with backends(nowhere, nowhere) as peers:
        request = Request({"type": "http", "method": "GET", "path": "/v1/events", "headers": []})
        call = Call(request, contract.operations["watchEvents"], {})
        with pytest.raises(PeerUnavailableError) as caught:
            await open_watch(peers.events, call)
    assert caught.value.reason == "CONTROLLER_UNAVAILABLE"


async def test_a_client_that_goes_ends_the_watch(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await message(socket)
    await asyncio.wait_for(rest.controller.watchers_gone.wait(), 10)
