"""The outermost application: access rule, problems for whatever is raised, security headers, metrics.

Everything that leaves the gateway passes here, so no framework's own error page ever does.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access import AccessRule
from gateway.answers import HEAD_KEY
from gateway.contract import Contract
from gateway.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowedError,
    PathNotFoundError,
    PeerUnavailableError,
)
from gateway.metrics import HttpMetrics
from gateway.problems import problem_response

_LOG = logging.getLogger(__name__)
EXCHANGE_KEY: Final = "qcontroller.exchange"
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
# A client that is still sending gets its answer at once; so much more of what it sends is thrown away before
# the connection is closed, lest the answer be lost with it.
_LINGER_BYTES: Final = 4 * 1024 * 1024
_LINGER_S: Final = 2.0


@dataclass(slots=True)
class Exchange:
    """What is learned of one request on its way."""

    route: str = "unmatched"
    status: int = 0
    started: bool = False
    body_read: bool = False


class Boundary:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, contract: Contract, rule: AccessRule, metrics: HttpMetrics) -> None:
        self._app = app
        self._contract = contract
        self._rule = rule
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        exchange = Exchange()
        inner = self._inner_scope(scope, exchange)

        async def read() -> Message:
            message = await receive()
            exchange.body_read = not message.get("more_body", False)
            return message

        async def write(message: Message) -> None:
            if message["type"] == "websocket.accept":
                exchange.started = True
                exchange.status = 101
            elif message["type"] in {"http.response.start", "websocket.http.response.start"}:
                exchange.started = True
                exchange.status = message["status"]
                names = {name.lower() for name, _ in message["headers"]}
                policy = () if b"content-security-policy" in names else (_POLICY,)
                message["headers"] = [*message["headers"], *_HEADERS, *policy]
            await send(message)

        try:
            await self._answer(inner, exchange, read, write)
        finally:
            self._metrics.observe(inner["method"], exchange.route, exchange.status, time.monotonic() - begin)

    async def _answer(self, scope: Scope, exchange: Exchange, read: Receive, write: Send) -> None:
        headers = Headers(scope=scope)
        try:
            self._rule.check(headers.get("host", ""), headers.get("origin"))
            await self._app(scope, read, write)
        except GatewayError as exc:
            error = exc
        except HTTPException as exc:
            error = self._framework_error(exc, scope)
        except Exception as exc:
            if exchange.started:
                raise
            _LOG.exception("request failed", extra={"path": scope["path"]})
            error = InternalError()
            error.__cause__ = exc
        else:
            return
        if exchange.started:
            # The head is out: only closing the connection can still say that the answer is not whole.
            raise error
        if isinstance(error, PeerUnavailableError):
            _LOG.warning("peer unavailable", extra={"reason": error.reason, "said": error.said})
        response = problem_response(error, scope["path"])
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if scope["type"] == "http" and has_body and not exchange.body_read:
            response.headers["connection"] = "close"
            await write(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": response.raw_headers,
                }
            )
            await write({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
            await _linger(read)
            await write({"type": "http.response.body", "body": b""})
            return
        await response(scope, read, write)

    def _framework_error(self, error: HTTPException, scope: Scope) -> GatewayError:
        path = scope["path"]
        allowed = self._contract.methods_of(path)
        if error.status_code == 405:
            method = "HEAD" if scope.get(HEAD_KEY) else scope["method"]
            return MethodNotAllowedError(method, allowed or ("GET", "HEAD"))
        if error.status_code != 404:
            _LOG.error("unforeseen framework error", extra={"status": error.status_code, "path": path})
            return InternalError()
        return PathNotFoundError(path)

    def _inner_scope(self, scope: Scope, exchange: Exchange) -> Scope:
        """Return the scope that handlers see: HEAD as GET, no trailing slash, the exchange at hand."""
        inner = {"method": "GET", **scope, EXCHANGE_KEY: exchange}
        if inner["method"] == "HEAD":
            inner["method"] = "GET"
            inner[HEAD_KEY] = True
        path = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            inner["path"] = path.rstrip("/") or "/"
            inner["raw_path"] = inner["path"].encode()
        return inner


async def _linger(read: Receive) -> None:
    taken = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while taken < _LINGER_BYTES:
                message = await read()
                taken += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return  # it sends so slowly that it has time to see the answer
