"""gRPC channels that come back quickly after their peer was away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry.instrumentation.grpc import aio_client_interceptors, filters


@asynccontextmanager
async def grpc_channel(target: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to `target` ("unix:/path" or "host:port"); it must be made inside the running loop."""
    interceptors: list[Any] = aio_client_interceptors(  # type: ignore[no-untyped-call]
        filter_=filters.negate(filters.health_check())
    )
    async with grpc.aio.insecure_channel(
        target,
        interceptors=interceptors,
        options=[
            # The default grows to two minutes, during which a peer that is back counts as away.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # A peer that is frozen or cut off without a word is noticed within 20 s.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # By default a stream on which nothing is sent may be pinged twice, and then never again.
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_receive_message_length", 4 * 1024 * 1024),
            # Two channels of one process to one target are two connections.
            ("grpc.use_local_subchannel_pool", 1),
        ],
    ) as channel:
        yield channel
