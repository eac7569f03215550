"""Fail points in the middle of each call of a server, whatever the service (ADR 89).

`rpc.<Method>.before`: the call has come, nothing is done. `rpc.<Method>.after`: all of it is done, and the
end of the answer is not sent. The server has them only where a test may end the process at all.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from servicekit.failpoints import FailPoints
from servicekit.interceptor import rewrapped

# Quoted: the class is generic in its stubs only.
_Continuation = Callable[[grpc.HandlerCallDetails], "Awaitable[grpc.RpcMethodHandler[Any, Any] | None]"]
# Of every server, and of no operation.
_NOT_OURS = ("/grpc.",)


class CallMoments(grpc.aio.ServerInterceptor):
    """Passes a fail point at the beginning and at the end of each call."""

    def __init__(self, fail_point: FailPoints) -> None:
        self._fail_point = fail_point

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_NOT_OURS):
            return handler
        return rewrapped(handler, method.rpartition("/")[2], self._unary, self._stream)

    def _unary(self, behaviour: Any, method: str) -> Any:
        async def answer(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            self._fail_point(f"rpc.{method}.before")
            response = await behaviour(request, context)
            self._fail_point(f"rpc.{method}.after")
            return response

        return answer

    def _stream(self, behaviour: Any, method: str) -> Any:
        async def answer(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
            self._fail_point(f"rpc.{method}.before")
            async for response in behaviour(request, context):
                yield response
            self._fail_point(f"rpc.{method}.after")

        return answer
