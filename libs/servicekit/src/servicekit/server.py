"""A gRPC server with health, reflection, tracing and the service's error table."""

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters
from prometheus_client import CollectorRegistry

from servicekit.call_moments import CallMoments
from servicekit.failpoints import FailPoints, no_fail_points
from servicekit.health import Health
from servicekit.interceptor import ProblemInterceptor, Translate

_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_STOP_GRACE_S: Final = 3.0
Register = Callable[[grpc.aio.Server], None]


class AddressInUseError(Exception):
    """Another process serves this address."""


@asynccontextmanager
async def grpc_server(
    listen: Sequence[str],
    *,
    services: Iterable[tuple[str, Register]],
    translate: Translate,
    registry: CollectorRegistry,
    serving: bool = True,
    fail_point: FailPoints = no_fail_points,
) -> AsyncIterator[Health]:
    """Serve `services` (full name and function that registers the servicer) at every address of `listen`.

    Health says SERVING (or not, as `serving` is) for each of them and for "" until it is told otherwise.
    With a `fail_point` of a test, each call passes it.
    Unix sockets are made for the owner and the group of their directory; a lock beside each keeps a second
    server from stealing a live one, which gRPC by itself would allow.

    Raises:
        AddressInUseError: An address is taken.
    """
    interceptors: list[Any] = [
        aio_server_interceptor(  # type: ignore[no-untyped-call]
            filter_=filters.negate(filters.health_check())
        ),
        ProblemInterceptor(translate, registry),
    ]
    if fail_point is not no_fail_points:
        interceptors.append(CallMoments(fail_point))
    server = grpc.aio.server(
        interceptors=interceptors,
        options=[
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            # Channels ping every 10 s (channel.py); the default would send them away as too eager.
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    names = []
    for name, register in services:
        register(server)
        names.append(name)
    servicer = Health(names)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    with ExitStack() as stack:
        for address in listen:
            stack.enter_context(_bound(server, address))
        await servicer.say(serving=serving)
        await server.start()
        try:
            yield servicer
        finally:
            await servicer.enter_graceful_shutdown()
            await server.stop(_STOP_GRACE_S)


@contextmanager
def _bound(server: grpc.aio.Server, address: str) -> Iterator[None]:
    path = Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
    lock = _locked(path) if path is not None else None
    previous = os.umask(0o117)
    try:
        server.add_insecure_port(address)
    except RuntimeError as exc:
        raise AddressInUseError(f"{address} cannot be bound: is another stack running?") from exc
    finally:
        os.umask(previous)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _locked(path: Path) -> int:
    lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise AddressInUseError(f"{path} is served by another process") from exc
    return lock
