"""The health check, against real servers: it must not take a dead service for a living one."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import health, health_pb2
from prometheus_client import CollectorRegistry
from servicekit.ping import NotAliveError, main, ping
from servicekit.server import grpc_server


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/s.sock"


@pytest.fixture
async def servicer(address: str) -> AsyncIterator[health.aio.HealthServicer]:
    async with grpc_server(
        [address, f"{address}.second"], services=[], translate=lambda _: None, registry=CollectorRegistry()
    ) as servicer:
        yield servicer


async def test_a_serving_service_is_alive(servicer: health.aio.HealthServicer, address: str) -> None:
    del servicer
    await asyncio.to_thread(ping, address)


async def test_a_service_that_does_not_serve_is_not(
    servicer: health.aio.HealthServicer, address: str
) -> None:
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    with pytest.raises(NotAliveError, match="not serving"):
        await asyncio.to_thread(ping, address)


async def test_a_service_whose_loop_hangs_is_not_alive(
    servicer: health.aio.HealthServicer, address: str
) -> None:
    del servicer
    # Called from the loop itself: the kernel accepts, gRPC's own threads answer, the service does not.
    with pytest.raises(NotAliveError, match="timed out"):
        ping(address, timeout_s=0.3)


def test_nobody_at_the_socket_is_not_alive(address: str) -> None:
    with pytest.raises(NotAliveError):
        ping(address)


@pytest.mark.parametrize(("answer", "status"), [("200 OK", 0), ("503 Service Unavailable", 1)])
def test_a_page_is_alive_by_its_status(answer: str, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())

        answering = threading.Thread(target=answer_once)
        answering.start()
        assert main([f"http://127.0.0.1:{server.getsockname()[1]}/healthz"]) == status
        answering.join()
