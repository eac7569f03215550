"""A gRPC server with the error table and nothing else: no health, no tracing, gone at once when left."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from prometheus_client import CollectorRegistry
from servicekit.interceptor import ProblemInterceptor, Translate
from servicekit.server import Register


@asynccontextmanager
async def plain_server(
    target: str, services: Iterable[tuple[str, Register]], translate: Translate
) -> AsyncIterator[None]:
    """Serve `services` at `target` until the block ends; what is in flight then is broken off."""
    interceptors: list[Any] = [ProblemInterceptor(translate, CollectorRegistry())]
    server = grpc.aio.server(
        interceptors=interceptors, options=[("grpc.http2.min_ping_interval_without_data_ms", 5_000)]
    )
    for _, register in services:
        register(server)
    server.add_insecure_port(target)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
