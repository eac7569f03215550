"""Serial consoles over WebSocket, through a real server and another's client."""

import asyncio
import contextlib
import json
from typing import Any

import grpc
import pytest
from framework.api_client import ApiClient, Contract
from gateway_fakes import Stand, instance
from qcontroller.controller.v1 import console_pb2
from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.rpc_errors import RpcProblem
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

CONTRACT = Contract()
PATH = "/v1/instances/web-1/console/attach"


@pytest.fixture
def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}{PATH}"


async def message(socket: ClientConnection, schema: str = "ConsoleMessage") -> dict[str, Any]:
    """Return the next text message, which must be of the schema."""
    async with asyncio.timeout(10):
        text = await socket.recv()
    assert isinstance(text, str)
    document: dict[str, Any] = json.loads(text)
    CONTRACT.check_value(document, CONTRACT.schema(schema), "message")
    return document


async def output(socket: ClientConnection) -> bytes:
    async with asyncio.timeout(10):
        data = await socket.recv()
    assert isinstance(data, bytes)
    return data


async def opened(socket: ClientConnection) -> dict[str, Any]:
    """Return who writes, behind the first message."""
    assert "opened" in await message(socket)
    role: dict[str, Any] = (await message(socket))["role"]
    return role


async def closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionClosedError):
            async for _ in socket:
                pass
    return socket.close_code, socket.close_reason


async def ticket(wire: ApiClient, name: str = "web-1") -> str:
    url: str = (await wire.post(f"/v1/instances/{name}/console/tickets")).json()["url"]
    return url


async def test_input_goes_in_and_output_comes_as_bytes(url: str, rest: Stand) -> None:
    async with connect(f"{url}?offset=7&write=true&force=true&viewer=ada") as socket:
        assert (await message(socket))["opened"] == {"offset": 7, "label": "viewer 1", "endOffset": 7}
        assert (await message(socket))["role"]["writer"]
        for sent, seen in (
            (b"\x00\xff", b"\x00\xff"),
            ('{"input": "grüße"}', "grüße".encode()),
            ('{"inputBase64": "/w=="}', b"\xff"),
        ):
            await socket.send(sent)
            assert await output(socket) == seen
    viewer = rest.controller.last(pb.ConsoleAttach).viewer
    assert viewer == console_pb2.ConsoleViewer(label="ada", offset=7, write=True, force=True)


async def test_size_and_role_are_asked_and_answered(url: str) -> None:
    async with connect(url) as socket:
        assert not (await opened(socket))["writer"]
        await socket.send('{"resize": {"columns": 80, "rows": 24}}')
        assert (await message(socket))["resized"]["columns"] == 80
        await socket.send('{"role": {"take": true, "force": true}}')
        assert (await message(socket))["role"]["writer"]


async def test_the_end_of_the_machine_ends_it(url: str) -> None:
    async with connect(url) as socket:
        await opened(socket)
        await socket.send(b"poweroff\n")
        assert (await message(socket))["end"] == {"reason": "GUEST_SHUTDOWN", "detail": "", "offset": 9}
        assert await closed(socket) == (1000, "GUEST_SHUTDOWN")


@pytest.mark.parametrize(
    "sent",
    [
        "{",
        "[]",
        "{}",
        '{"input": "a", "inputBase64": ""}',
        '{"inputBase64": "%"}',
        '{"resize": {"columns": 0, "rows": 24}}',
        '{"resize": {"columns": 80, "rows": 1e9}}',
        '{"role": {}}',
        '{"more": 1}',
    ],
)
async def test_a_message_that_is_no_command_is_a_problem(url: str, rest: Stand, sent: str) -> None:
    async with connect(url) as socket:
        await opened(socket)
        await socket.send(sent)
        problem = await message(socket, "Problem")
        assert problem["status"] == 400
        assert await closed(socket) == (4400, problem["reason"])
    await asyncio.wait_for(rest.controller.listeners_gone.wait(), 10)


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "write=perhaps", f"viewer={'x' * 65}", "more=1"])
async def test_a_query_with_faults_is_a_problem(url: str, query: str) -> None:
    async with connect(f"{url}?{query}") as socket:
        problem = await message(socket, "Problem")
        assert problem["errors"][0]["pointer"] == f"/query/{query.split('=', maxsplit=1)[0]}"
        assert await closed(socket) == (4400, "FIELD_INVALID")


async def test_a_message_too_large_ends_it(url: str) -> None:
    async with connect(url) as socket:
        await opened(socket)
        await socket.send(b"x" * 5000)
        code, _ = await closed(socket)
        assert code == 1009


async def test_a_refusal_is_a_problem(url: str, rest: Stand) -> None:
    refusal = RpcProblem(grpc.StatusCode.FAILED_PRECONDITION, "INSTANCE_STATE_CONFLICT", "No.")
    rest.controller.answers["AttachConsole"] = refusal
    async with connect(url) as socket:
        assert (await message(socket, "Problem"))["status"] == 409
        assert await closed(socket) == (4400, "INSTANCE_STATE_CONFLICT")


async def test_a_runner_that_goes_away_closes_it_to_be_tried_again(url: str) -> None:
    async with connect(url) as socket:
        await opened(socket)
        await socket.send(b"crash")
        assert (await message(socket, "Problem"))["status"] == 503
        assert await closed(socket) == (1013, "RUNNER_UNAVAILABLE")


async def test_a_client_that_goes_is_detached(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await opened(socket)
    await asyncio.wait_for(rest.controller.listeners_gone.wait(), 10)


async def test_a_gateway_that_stops_says_so(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await opened(socket)
        rest.closing.set()
        assert await closed(socket) == (1012, "GATEWAY_STOPPING")


async def test_without_an_upgrade_it_is_refused(wire: ApiClient) -> None:
    response = await wire.get(PATH)
    assert (response.status_code, response.json()["reason"]) == (426, "WEBSOCKET_REQUIRED")


async def test_force_without_what_it_forces_is_refused(url: str) -> None:
    async with connect(f"{url}?force=true") as socket:
        assert (await message(socket, "Problem"))["errors"][0]["pointer"] == "/query/force"
        assert await closed(socket) == (4400, "FIELD_INVALID")


async def test_a_page_of_another_origin_is_refused(url: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, origin="http://evil.example"):  # type: ignore[arg-type]
            pass
    assert caught.value.response.status_code == 403


def page(port: int) -> Any:
    return f"http://127.0.0.1:{port}"


async def test_a_page_needs_a_ticket(url: str, port: int) -> None:
    async with connect(url, origin=page(port)) as socket:
        assert (await message(socket, "Problem"))["status"] == 403
        assert await closed(socket) == (4400, "CONSOLE_TICKET_REQUIRED")


async def test_a_ticket_lets_a_page_in_once(wire: ApiClient, port: int) -> None:
    target = f"ws://127.0.0.1:{port}{await ticket(wire)}&write=true"
    async with connect(target, origin=page(port)) as socket:
        assert (await opened(socket))["writer"]
    async with connect(target, origin=page(port)) as socket:
        assert (await message(socket, "Problem"))["reason"] == "CONSOLE_TICKET_USED"
        assert await closed(socket) == (4400, "CONSOLE_TICKET_USED")


async def test_a_ticket_is_looked_at_wherever_it_comes_from(url: str) -> None:
    async with connect(f"{url}?ticket=guess") as socket:
        assert await closed(socket) == (4400, "CONSOLE_TICKET_UNKNOWN")
    async with connect(f"{url}?ticket=a&ticket=b") as socket:
        assert await closed(socket) == (4400, "FIELD_INVALID")


async def test_a_ticket_is_not_good_for_another_instance_of_the_name(
    wire: ApiClient, port: int, rest: Stand
) -> None:
    target = f"ws://127.0.0.1:{port}{await ticket(wire)}"
    later = instance()
    later.id = "00000000-0000-4000-8000-000000000009"
    rest.controller.answers["Get"] = pb.GetInstanceResponse(instance=later)
    async with connect(target) as socket:
        assert await closed(socket) == (4400, "CONSOLE_TICKET_UNKNOWN")
