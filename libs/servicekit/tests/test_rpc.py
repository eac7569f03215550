"""Server, channel and errors together, over a real socket: what one side raises the other side reads."""

from __future__ import annotations  # the stubs' classes for asyncio exist for the type checker only

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import operation_pb2, operation_pb2_grpc
from servicekit.channel import grpc_channel
from servicekit.health import DETAIL_KEY
from servicekit.rpc_errors import RpcProblem, Violation, decode, is_unreachable
from servicekit.server import AddressInUseError, grpc_server

SERVICE = "qcontroller.controller.v1.OperationService"


class NotThereError(Exception):
    """A domain error of the service under test."""


class Servicer(operation_pb2_grpc.OperationServiceServicer):
    """Raises what the test asked for by id."""

    async def GetOperation(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        match request.id:
            case "domain":
                raise NotThereError("gone")
            case "bug":
                raise ZeroDivisionError("secret detail")
            case "problem":
                raise RpcProblem(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "FIELD_INVALID",
                    "Two faults.",
                    {"a": "b"},
                    (Violation("/x", "too big"), Violation("/y", "too small")),
                )
        return operation_pb2.GetOperationResponse(operation=operation_pb2.Operation(id=request.id))


def translate(exc: Exception) -> RpcProblem | None:
    if isinstance(exc, NotThereError):
        return RpcProblem(grpc.StatusCode.NOT_FOUND, "NOT_THERE", str(exc))
    return None


def register(server: grpc.aio.Server) -> None:
    operation_pb2_grpc.add_OperationServiceServicer_to_server(
        Servicer(),  # type: ignore[abstract]  # the other calls are not made
        server,
    )


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/s.sock"


@pytest.fixture
async def stub(address: str) -> AsyncIterator[operation_pb2_grpc.OperationServiceAsyncStub]:
    async with (
        grpc_server(
            [address], services=[(SERVICE, register)], translate=translate, registry=CollectorRegistry()
        ),
        grpc_channel(address) as channel,
    ):
        yield operation_pb2_grpc.OperationServiceStub(channel)


async def refusal(stub: operation_pb2_grpc.OperationServiceAsyncStub, what: str) -> RpcProblem:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetOperation(operation_pb2.GetOperationRequest(id=what), timeout=5)
    return decode(refused.value)


async def test_an_answer_comes_back(stub: operation_pb2_grpc.OperationServiceAsyncStub) -> None:
    assert (
        await stub.GetOperation(operation_pb2.GetOperationRequest(id="op-1"), timeout=5)
    ).operation.id == "op-1"


async def test_a_domain_error_arrives_as_the_tables_problem(
    stub: operation_pb2_grpc.OperationServiceAsyncStub,
) -> None:
    assert await refusal(stub, "domain") == RpcProblem(grpc.StatusCode.NOT_FOUND, "NOT_THERE", "gone")


async def test_faults_of_the_input_arrive_one_by_one(
    stub: operation_pb2_grpc.OperationServiceAsyncStub,
) -> None:
    problem = await refusal(stub, "problem")
    assert problem.metadata == {"a": "b"}
    assert problem.violations == (Violation("/x", "too big"), Violation("/y", "too small"))


async def test_a_bug_is_told_without_its_detail_and_logged(
    stub: operation_pb2_grpc.OperationServiceAsyncStub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        problem = await refusal(stub, "bug")
    assert problem == RpcProblem(grpc.StatusCode.INTERNAL, "INTERNAL", "Internal error.")
    assert "secret detail" in caplog.text


async def test_health_tells_watchers_of_changes_and_those_who_ask_why(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/health.sock"
    async with (
        grpc_server([target], services=[], translate=lambda _: None, registry=CollectorRegistry()) as health,
        grpc_channel(target) as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=5)
        changes = aiter(watch)
        assert (await anext(changes)).status == health_pb2.HealthCheckResponse.SERVING
        await health.say(serving=False, detail="The disk is away: ö.")
        assert (await anext(changes)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        call = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert (await call).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert dict(await call.trailing_metadata())[DETAIL_KEY] == "The disk is away: ?."


async def test_health_tells_each_service(
    stub: operation_pb2_grpc.OperationServiceAsyncStub, address: str
) -> None:
    async with grpc_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_second_server_never_steals_a_live_socket(
    stub: operation_pb2_grpc.OperationServiceAsyncStub, address: str
) -> None:
    with pytest.raises(AddressInUseError):
        async with grpc_server([address], services=[], translate=translate, registry=CollectorRegistry()):
            pass
    assert (
        await stub.GetOperation(operation_pb2.GetOperationRequest(id="op-2"), timeout=5)
    ).operation.id == "op-2"


async def test_a_peer_that_is_away_is_unreachable(tmp_path: Path) -> None:
    async with grpc_channel(f"unix:{tmp_path}/nobody.sock") as channel:
        assert is_unreachable(await refusal(operation_pb2_grpc.OperationServiceStub(channel), "x"))


async def test_the_socket_is_for_owner_and_group_only(
    stub: operation_pb2_grpc.OperationServiceAsyncStub, address: str
) -> None:
    assert Path(address.removeprefix("unix:")).stat().st_mode & 0o777 == 0o660


async def test_several_servers_share_one_registry(address: str) -> None:
    registry = CollectorRegistry()
    async with (
        grpc_server([address], services=[], translate=translate, registry=registry),
        grpc_server([f"{address}2"], services=[], translate=translate, registry=registry),
    ):
        assert sum(metric.name == "rpc_server_duration_seconds" for metric in registry.collect()) == 1


async def _refuse(requests: Any, _context: Any) -> bytes:
    await anext(requests)
    raise NotThereError("gone")


def register_upload(server: grpc.aio.Server) -> None:
    handler: Any = grpc.stream_unary_rpc_method_handler(_refuse)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Upload", {"Send": handler})])


async def test_a_caller_that_is_still_sending_learns_why_it_is_refused(address: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(65_536)
            await asyncio.sleep(0)

    async with (
        grpc_server(
            [address],
            services=[("test.Upload", register_upload)],
            translate=translate,
            registry=CollectorRegistry(),
        ),
        grpc_channel(address) as channel,
    ):
        send: Any = channel.stream_unary("/test.Upload/Send")
        for _ in range(300):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send(pieces(), timeout=5)
            assert decode(refused.value).reason == "NOT_THERE"
