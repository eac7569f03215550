"""Connexion's part: requests are routed by openapi.yaml to the handler of their operationId.

Connexion reads the specification and routes; of its middlewares only routing is installed. Parameters and
bodies are checked here, before the handler runs: its own checks stop at the first fault, quote schemas at
clients and rebuild validators for every request.
"""

import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

with warnings.catch_warnings():
    # connexion imports Starlette's test client, which is deprecated in its present form.
    warnings.simplefilter("ignore")
    from connexion.apps.asynchronous import AsyncApp
    from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
    from connexion.middleware.routing import RoutingMiddleware
    from connexion.resolver import Resolver
    from connexion.spec import Specification

from gateway.boundary import EXCHANGE_KEY, Exchange
from gateway.calls import Call, read_call
from gateway.contract import Contract, ContractOperation
from gateway.errors import BodyMalformedError, PathNotFoundError, RequestInvalidError

__all__ = ["Handler", "Precheck", "Specification", "connexion_app"]

Handler = Callable[[Call], Awaitable[Response]]
Precheck = Callable[[Call], Awaitable[None]]


class _Endpoint:
    """One operation as an ASGI application."""

    def __init__(
        self, operation: ContractOperation, handler: Handler, precheck: Precheck, max_body_bytes: int
    ) -> None:
        self._operation = operation
        self._handler = handler
        self._precheck = precheck
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._operation
        exchange: Exchange = scope[EXCHANGE_KEY]
        exchange.route = operation.template
        span = trace.get_current_span()
        if span.is_recording():
            span.update_name(f"{operation.method} {operation.template}")
            span.set_attribute("http.route", operation.template)
        request, path = Request(scope, receive), scope["path_params"]
        try:
            call, faults = await read_call(request, operation, path, self._max_body_bytes)
        except BodyMalformedError:
            await self._check_first(Call(request, operation, path))
            raise
        if operation.names_instance and span.is_recording():
            span.set_attribute("qcontroller.instance.name", call.name)
        if faults:
            await self._check_first(call)
            raise RequestInvalidError(faults)
        response = await self._handler(call)
        await response(scope, receive, send)

    async def _check_first(self, call: Call) -> None:
        """Refuse what goes before faults of the input."""
        if self._operation.names_instance or self._operation.names_operation:
            await self._precheck(call)


class _Api(RoutedAPI[Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_paths()

    def make_operation(self, operation: Any) -> Any:
        return operation.function


class _EndpointMiddleware(RoutedMiddleware[_Api]):
    """Hands routed requests to their endpoint; nothing lies behind it."""

    api_cls = _Api

    def __init__(self, app: Any) -> None:
        super().__init__(_nothing_here)
        del app


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    del receive, send
    raise PathNotFoundError(scope["path"])


def connexion_app(
    contract: Contract, handlers: Mapping[str, Handler], precheck: Precheck, max_body_bytes: int
) -> Any:
    """Return the Connexion application that serves `contract`.

    Raises:
        KeyError: An operation has no handler, or a handler no operation.
    """
    if handlers.keys() != contract.operations.keys():
        raise KeyError(handlers.keys() ^ contract.operations.keys())
    endpoints = {
        name: _Endpoint(contract.operations[name], handler, precheck, max_body_bytes)
        for name, handler in handlers.items()
    }
    app = AsyncApp(
        "gateway",
        middlewares=[RoutingMiddleware, _EndpointMiddleware],
        resolver=Resolver(endpoints.__getitem__),
    )
    app.add_api(contract.source)
    return app
