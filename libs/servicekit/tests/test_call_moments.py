"""Fail points in the middle of calls, over a real socket."""

from __future__ import annotations  # the stubs' classes for asyncio exist for the type checker only

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from qcontroller.controller.v1 import operation_pb2, operation_pb2_grpc
from servicekit.channel import grpc_channel
from servicekit.server import grpc_server

SERVICE = "qcontroller.controller.v1.OperationService"


class Servicer(operation_pb2_grpc.OperationServiceServicer):
    """Answers, with one value and with two."""

    def __init__(self, passed: list[str]) -> None:
        self._passed = passed

    async def GetOperation(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        if request.id == "none":
            await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        self._passed.append("done")
        return operation_pb2.GetOperationResponse()

    async def GetOperationBundle(  # noqa: N802 - the contract's name
        self, request: Any, context: Any
    ) -> AsyncIterator[Any]:
        for _ in range(2):
            self._passed.append("part")
            yield operation_pb2.GetOperationBundleResponse()


@pytest.fixture
def passed() -> list[str]:
    return []


@pytest.fixture
async def channel(tmp_path: Path, passed: list[str]) -> AsyncIterator[grpc.aio.Channel]:
    address = f"unix:{tmp_path}/s.sock"

    def register(server: grpc.aio.Server) -> None:
        operation_pb2_grpc.add_OperationServiceServicer_to_server(
            Servicer(passed),  # type: ignore[abstract]  # the other calls are not made
            server,
        )

    async with (
        grpc_server(
            [address],
            services=[(SERVICE, register)],
            translate=lambda _: None,
            registry=CollectorRegistry(),
            fail_point=passed.append,
        ),
        grpc_channel(address) as channel,
    ):
        yield channel


async def test_a_call_passes_a_moment_before_and_after_what_it_does(
    channel: grpc.aio.Channel, passed: list[str]
) -> None:
    stub: Any = operation_pb2_grpc.OperationServiceStub(channel)
    await stub.GetOperation(operation_pb2.GetOperationRequest(id="op-1"), timeout=5)
    assert passed == ["rpc.GetOperation.before", "done", "rpc.GetOperation.after"]


async def test_a_stream_passes_them_around_all_of_its_parts(
    channel: grpc.aio.Channel, passed: list[str]
) -> None:
    stub: Any = operation_pb2_grpc.OperationServiceStub(channel)
    request = operation_pb2.GetOperationBundleRequest(id="op-1")
    parts = [part async for part in stub.GetOperationBundle(request, timeout=5)]
    assert len(parts) == 2
    assert passed == ["rpc.GetOperationBundle.before", "part", "part", "rpc.GetOperationBundle.after"]


async def test_a_call_that_fails_has_no_moment_at_its_end(
    channel: grpc.aio.Channel, passed: list[str]
) -> None:
    stub: Any = operation_pb2_grpc.OperationServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.GetOperation(operation_pb2.GetOperationRequest(id="none"), timeout=5)
    assert passed == ["rpc.GetOperation.before"]


async def test_health_passes_none(channel: grpc.aio.Channel, passed: list[str]) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert passed == []
