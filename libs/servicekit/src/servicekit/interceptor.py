"""The innermost server interceptor: errors encoded, spans marked, durations measured."""

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

import grpc
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Histogram

from servicekit.rpc_errors import DETAILS_KEY, INTERNAL_PROBLEM, RpcProblem, encode

_LOG = logging.getLogger(__name__)

Translate = Callable[[Exception], RpcProblem | None]
# Quoted: the class is generic in its stubs only.
_Continuation = Callable[[grpc.HandlerCallDetails], "Awaitable[grpc.RpcMethodHandler[Any, Any] | None]"]

# Takes what answers a method, and the method's name; returns what answers instead.
_Wrap = Callable[[Any, str], Any]

_DRAIN_S: Final = 1.0
_SECONDS: Final[WeakKeyDictionary[CollectorRegistry, Histogram]] = WeakKeyDictionary()


def _seconds(registry: CollectorRegistry) -> Histogram:
    """Return the registry's one histogram: a service with several edges has several servers."""
    histogram = _SECONDS.get(registry)
    if histogram is None:
        histogram = _SECONDS[registry] = Histogram(
            "rpc_server_duration_seconds", "Time to answer a call.", ["method", "code"], registry=registry
        )
    return histogram


def rewrapped(
    handler: "grpc.RpcMethodHandler[Any, Any]", method: str, unary: _Wrap, stream: _Wrap
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return the handler of `method` with its behaviour wrapped, by `stream` if it answers with a stream."""
    factory_name = (
        ("stream" if handler.request_streaming else "unary")
        + "_"
        + ("stream" if handler.response_streaming else "unary")
    )
    behaviour: Any = getattr(handler, factory_name)
    wrap = stream if handler.response_streaming else unary
    factory: Any = getattr(grpc, f"{factory_name}_rpc_method_handler")
    wrapped: grpc.RpcMethodHandler[Any, Any] = factory(
        wrap(behaviour, method), handler.request_deserializer, handler.response_serializer
    )
    return wrapped


async def _drain(request: Any) -> None:
    """Take what a caller still sends before it is refused, for a moment at most.

    A caller of grpc.aio whose write fails because the call has ended takes the failure of the write for the
    answer ("Internal error from Core") and never sees the refusal.
    """
    if not hasattr(request, "__anext__"):
        return
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in request:
                pass
    except (TimeoutError, RuntimeError, grpc.aio.BaseError) as exc:
        # It goes on sending, has gone, or somebody else reads what it sends.
        _LOG.debug("requests not drained", extra={"error": repr(exc)})


class ProblemInterceptor(grpc.aio.ServerInterceptor):
    """Answers a handler's exception with the problem that the service's table has for it."""

    def __init__(self, translate: Translate, registry: CollectorRegistry) -> None:
        """Take the service's table and the registry that the histogram of durations goes to."""
        self._translate = translate
        self._seconds = _seconds(registry)

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return rewrapped(handler, str(handler_call_details.method), self._unary, self._stream)

    def _unary(self, behaviour: Any, method: str) -> Any:
        async def answer(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            begin = time.monotonic()
            try:
                response = await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as exc:  # noqa: BLE001 - the edge: whatever it is, the caller gets a problem
                await _drain(request)
                await self._fail(exc, context, method, begin)
            self._seconds.labels(method, "OK").observe(time.monotonic() - begin)
            return response

        return answer

    def _stream(self, behaviour: Any, method: str) -> Any:
        async def answer(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
            begin = time.monotonic()
            try:
                responses = behaviour(request, context)
                if inspect.isawaitable(responses):
                    # A handler that writes to the context itself, as the health service's Watch does.
                    await responses
                else:
                    async for response in responses:
                        yield response
            except grpc.aio.AbortError:
                raise
            except Exception as exc:  # noqa: BLE001 - as above
                await self._fail(exc, context, method, begin)
            self._seconds.labels(method, "OK").observe(time.monotonic() - begin)

        return answer

    async def _fail(
        self, exc: Exception, context: "grpc.aio.ServicerContext[Any, Any]", method: str, begin: float
    ) -> NoReturn:
        problem = exc if isinstance(exc, RpcProblem) else self._translate(exc)
        if problem is None:
            _LOG.error("call failed", exc_info=exc, extra={"method": method})
            problem = INTERNAL_PROBLEM
        else:
            _LOG.info("call refused", extra={"method": method, "reason": problem.reason, "detail": str(exc)})
        span = trace.get_current_span()
        span.set_attribute("qcontroller.reason", problem.reason)
        self._seconds.labels(method, problem.code.name).observe(time.monotonic() - begin)
        # abort, not abort_with_status: the latter leaves the span of the tracing interceptor at OK.
        await context.abort(problem.code, problem.message, ((DETAILS_KEY, encode(problem)),))
