"""Programs in guests over WebSocket, through a real server and another's client."""

import asyncio
import contextlib
import json
from typing import Any

import grpc
import pytest
from framework.api_client import ApiClient, Contract
from gateway_fakes import Stand
from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.rpc_errors import RpcProblem
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

CONTRACT = Contract()
PATH = "/v1/instances/web-1/exec"


@pytest.fixture
def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}{PATH}"


async def told(socket: ClientConnection, schema: str = "ExecMessage") -> list[dict[str, Any]]:
    """Return every message until the end, each of which must be of the schema."""
    documents = []
    async with asyncio.timeout(10):
        # Any code but the usual ones ends the iteration with an error; the tests look at the code.
        with contextlib.suppress(ConnectionClosedError):
            async for message in socket:
                documents.append(json.loads(message))  # noqa: PERF401 - what came before an error counts
    for document in documents:
        CONTRACT.check_value(document, CONTRACT.schema(schema), "message")
    return documents


async def test_output_and_end_are_messages(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await socket.send(json.dumps({"argv": ["/bin/true"], "env": {"A": "b"}, "stdin": "in", "timeout": 5}))
        documents = await told(socket)
    assert documents == [
        {},
        {"stdout": "grüße\n"},
        {"stderrBase64": "/w=="},
        {"end": {"exitCode": 3, "truncated": True}},
    ]
    assert socket.close_code == 1000
    request = rest.controller.last(pb.StreamExecRequest)
    assert (request.name, request.argv, request.env, request.stdin, request.timeout) == (
        "web-1",
        ["/bin/true"],
        {"A": "b"},
        b"in",
        "5",
    )


@pytest.mark.parametrize(
    "message", ["{", "[]", '{"argv": []}', '{"argv": ["a"], "more": 1}', b"{}", '{"argv": ["a"], "argv": []}']
)
async def test_a_first_message_that_is_no_exec_is_a_problem(url: str, message: str | bytes) -> None:
    async with connect(url) as socket:
        await socket.send(message)
        (problem,) = await told(socket, "Problem")
    assert problem["status"] == 400
    assert (socket.close_code, socket.close_reason) == (4400, problem["reason"])


@pytest.mark.parametrize("reason", ["GUEST_AGENT_UNAVAILABLE", "INSTANCE_STATE_CONFLICT"])
async def test_a_refusal_is_the_problem_that_the_plain_form_answers(
    url: str, rest: Stand, reason: str
) -> None:
    refusal = RpcProblem(grpc.StatusCode.FAILED_PRECONDITION, reason, "No.")
    rest.controller.answers["StreamExec"] = refusal
    async with connect(url) as socket:
        await socket.send('{"argv": ["a"]}')
        (problem,) = await told(socket, "Problem")
    assert (problem["reason"], problem["status"], socket.close_code) == (reason, 409, 4400)


async def test_a_client_that_goes_ends_the_program(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await socket.send('{"argv": ["endless"]}')
        await socket.recv()
        await socket.recv()
    await asyncio.wait_for(rest.controller.listeners_gone.wait(), 10)


async def test_a_second_message_ends_the_program(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await socket.send('{"argv": ["endless"]}')
        await socket.recv()
        await socket.send("more")
        await told(socket)
    assert (socket.close_code, socket.close_reason) == (1003, "ONE_MESSAGE_ONLY")
    await asyncio.wait_for(rest.controller.listeners_gone.wait(), 10)


async def test_a_gateway_that_stops_ends_the_program(url: str, rest: Stand) -> None:
    async with connect(url) as socket:
        await socket.send('{"argv": ["endless"]}')
        await socket.recv()
        rest.closing.set()
        await told(socket)
    assert (socket.close_code, socket.close_reason) == (1012, "GATEWAY_STOPPING")
    await asyncio.wait_for(rest.controller.listeners_gone.wait(), 10)


async def test_without_an_upgrade_it_is_refused(wire: ApiClient) -> None:
    response = await wire.get(PATH)
    assert (response.status_code, response.json()["reason"]) == (426, "WEBSOCKET_REQUIRED")


async def test_a_page_of_another_origin_may_not_run_programs(url: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, additional_headers={"Origin": "http://evil.example"}):
            pass
    assert caught.value.response.status_code == 403
